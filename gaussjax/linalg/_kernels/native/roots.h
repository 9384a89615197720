// Triangular roots of F Fᵀ, from the rows of F, and conditionals from them.

#pragma once

#include "triangular.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// √Σ xᵢ², where the squares may leave the range.
template <class T>
Vector<T> length_of(const Vector<T>* x, int64_t n) {
  using V = Vector<T>;
  V zero{}, one = zero + 1, unit = zero, sum = zero;
  for (int64_t i = 0; i < n; ++i) {
    V size = magnitude<T>(x[i]);
    unit = size > unit || size != size ? size : unit;
  }
  V divisor = unit == 0 ? one : unit;
  for (int64_t i = 0; i < n; ++i) sum += (x[i] / divisor) * (x[i] / divisor);
  return unit * root<T>(sum);
}

// Each of d rows in its own unit, its largest entry, so that no square leaves the range.
template <class T>
void in_units(Vector<T>* f, Vector<T>* units, int64_t d, int64_t k, int64_t w) {
  using V = Vector<T>;
  V zero{}, one = zero + 1;
  for (int64_t i = 0; i < d; ++i) {
    V *own = f + i * w, size = zero;
    for (int64_t c = 0; c < k; ++c) {
      V x = magnitude<T>(own[c]);
      size = x > size || x != x ? x : size;
    }
    units[i] = size == 0 ? one : size;
    for (int64_t c = 0; c < k; ++c) own[c] /= units[i];
  }
}

// The largest entry of row j comes to column j, in each lane that has a much larger one behind it.
template <class T>
void pivot_columns(Vector<T>* f, int64_t j, int64_t d, int64_t k, int64_t w) {
  using V = Vector<T>;
  const V* own = f + j * w;
  V here = magnitude<T>(own[j]), largest = here;
  for (int64_t c = j + 1; c < k; ++c) {
    V x = magnitude<T>(own[c]);
    largest = x > largest ? x : largest;
  }
  Mask<T> is_small = 4 * here < largest;
  if (!any<T>(is_small)) return;
  for (int lane = 0; lane < width<T>; ++lane) {
    if (!is_small[lane]) continue;
    int64_t place = j;
    for (int64_t c = j + 1; c < k; ++c)
      if (fabs(own[c][lane]) > fabs(own[place][lane])) place = c;
    for (int64_t i = j; i < d; ++i) {
      T x = f[i * w + j][lane];
      f[i * w + j][lane] = f[i * w + place][lane];
      f[i * w + place][lane] = x;
    }
  }
}

// Lower L with L Lᵀ = F Fᵀ from the d rows of F, k entries of the w = k + d that each has room for,
// which are lost; by Householder reflections. With the largest entry of a row in front they keep
// the digits of small columns (Powell & Reid 1969). A row that is zero by then has a column of
// zeros: what others have in its place moves behind the rest.
template <class T>
void root_of_rows(Vector<T>* l, Vector<T>* f, Vector<T>* units, int64_t d, int64_t k) {
  using V = Vector<T>;
  V zero{}, one = zero + 1;
  int64_t w = k + d;
  in_units<T>(f, units, d, k, w);
  for (int64_t j = 0; j < d; ++j) {
    if (j >= k) {
      for (int64_t i = j; i < d; ++i) row(l, i)[j] = zero;
      continue;
    }
    pivot_columns<T>(f, j, d, k, w);
    V *own = f + j * w, first = own[j], rest = sum_of_squares(own + j + 1, k - j - 1);
    V norm = root<T>(first * first + rest), sign = first < 0 ? one : -one;
    V v = first - sign * norm, length = v * v + rest;
    V scale = 2 / (length == 0 ? one : length);
    row(l, j)[j] = norm * units[j];
    Mask<T> is_zero = norm == 0;
    bool has_zero = any<T>(is_zero);
    for (int64_t i = j + 1; i < d; ++i) {
      V *other = f + i * w, sums[4] = {v * other[j], zero, zero, zero};
      int64_t c = j + 1;
      for (; c + 4 <= k; c += 4)
        for (int r = 0; r < 4; ++r) sums[r] += own[c + r] * other[c + r];
      for (; c < k; ++c) sums[0] += own[c] * other[c];
      V x = scale * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
      for (c = j + 1; c < k; ++c) other[c] -= x * own[c];
      V entry = sign * (other[j] - x * v);
      if (has_zero) {
        other[k] = is_zero ? other[j] : zero;
        entry = is_zero ? zero : entry;
      }
      row(l, i)[j] = entry * units[i];
    }
    if (has_zero) ++k;
  }
}

// The same by modified Gram-Schmidt, in a triangle more of scratch. A row of length one depends on
// those before it, and so has a column of zeros, if what is left of it is no more than what
// rounding of all of them leaves: noise (1 + |x|) for the coefficients x that give it.
template <class T>
void revealing_root_of_rows(Vector<T>* l, Vector<T>* f, Vector<T>* units, Vector<T>* inverse,
                            int64_t d, int64_t k) {
  using V = Vector<T>;
  V zero{}, one = zero + 1, noise = all<T>(T(d > k ? d : k) * epsilon<T>);
  in_units<T>(f, units, d, k, k);
  for (int64_t i = 0; i < d; ++i) {
    V *own = f + i * k, length = root<T>(sum_of_squares(own, k));
    length = length == 0 ? one : length;
    units[i] *= length;
    for (int64_t c = 0; c < k; ++c) own[c] /= length;
  }
  for (int64_t j = 0; j < d; ++j) {
    V *own = f + j * k, norm = root<T>(sum_of_squares(own, k)), *x = row(inverse, j);
    for (int64_t i = 0; i < j; ++i) x[i] = zero;
    for (int64_t i = 0; i < j; ++i)
      for (int64_t c = 0; c <= i; ++c) x[c] -= row(l, j)[i] * row(inverse, i)[c];
    Mask<T> depends = norm <= noise * (1 + root<T>(sum_of_squares(x, j)));
    V shrink = depends ? zero : 1 / (depends ? one : norm);
    x[j] = one;
    for (int64_t i = 0; i <= j; ++i) x[i] *= shrink;
    for (int64_t c = 0; c < k; ++c) own[c] *= shrink;
    row(l, j)[j] = depends ? zero : norm;
    for (int64_t i = j + 1; i < d; ++i) {
      V *other = f + i * k, sums[4] = {};
      int64_t c = 0;
      for (; c + 4 <= k; c += 4)
        for (int r = 0; r < 4; ++r) sums[r] += own[c + r] * other[c + r];
      for (; c < k; ++c) sums[0] += own[c] * other[c];
      row(l, i)[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      for (c = 0; c < k; ++c) other[c] -= row(l, i)[j] * own[c];
    }
  }
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) row(l, i)[j] *= units[i];
}

inline int64_t triangle_and_rows(const Operand* in) {
  int64_t d = in[0].rows, k = in[0].columns;
  return triangle(d) + d * (k + d) + 4 * d;
}

template <class T>
void triangular_root(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[0].columns;
  V *l = static_cast<V*>(scratch), *f = l + triangle(d), *units = f + d * (k + d);
  Source<T> from(call.in[0], first, last);
  for (int64_t i = 0; i < d; ++i) from.load(f + i * (k + d), i * k, k);
  root_of_rows<T>(l, f, units, d, k);
  store_lower(Target<T>(call.out[0], first, last), l, d);
}

template <class T>
void rank_revealing_root(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[0].columns;
  V *l = static_cast<V*>(scratch), *f = l + triangle(d), *units = f + d * k;
  Source<T>(call.in[0], first, last).load(f, 0, d * k);
  revealing_root_of_rows<T>(l, f, units, units + d, d, k);
  store_lower(Target<T>(call.out[0], first, last), l, d);
}

inline int64_t orthonormal_scratch(const Operand* in) {
  return is_large(in[0]) ? in[0].rows : triangle_and_rows(in);
}

// `orthonormal_rows` of one matrix, in the place of Q: by columns that stay in the cache.
template <class T>
void orthonormal_rows_of_one(const Call& call, int64_t index, T* along) {
  constexpr int64_t kColumns = 1024;
  int64_t d = call.in[0].rows, k = call.in[0].columns;
  T *l = result<T>(call.out[0], index), *q = result<T>(call.out[1], index);
  memcpy(q, matrix<T>(call.in[0], index), d * k * sizeof(T));
  auto columns = [k](int64_t c) { return k - c < kColumns ? k - c : kColumns; };
  for (int64_t i = 0; i < d; ++i) {
    T *own = q + i * k, *line = l + i * d, unit = largest_of_numbers(own, k);
    T start = unit == 0 ? T(__builtin_nan("")) : T(0);  // a row of zeros has no direction
    for (int64_t j = 0; j < d; ++j) line[j] = j < i ? start : T(0);
    scale_numbers(own, 1 / unit, k);
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < i; ++j) along[j] = 0;
      for (int64_t c = 0; c < k; c += kColumns)
        for (int64_t j = 0; j < i; ++j)
          along[j] += dot_of_numbers(own + c, q + j * k + c, columns(c));
      for (int64_t c = 0; c < k; c += kColumns)
        for (int64_t j = 0; j < i; ++j)
          subtract_numbers(own + c, along[j], q + j * k + c, columns(c));
      for (int64_t j = 0; j < i; ++j) line[j] += along[j] * unit;
    }
    T norm = T(sqrt(square_of_numbers(own, k)));
    scale_numbers(own, 1 / norm, k);
    line[i] = norm * unit + start;
  }
}

// L and Q of F = L Q: each row less what those before it have of it, twice, in a unit of its own.
template <class T>
void orthonormal_rows(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[0].columns;
  if (call.single) return orthonormal_rows_of_one(call, first, static_cast<T*>(scratch));
  V *l = static_cast<V*>(scratch), *f = l + triangle(d), *units = f + d * k;
  Source<T>(call.in[0], first, last).load(f, 0, d * k);
  in_units<T>(f, units, d, k, k);
  V zero{}, nan = all<T>(T(__builtin_nan("")));
  for (int64_t i = 0; i < d; ++i) {
    V* own = f + i * k;
    V start = sum_of_squares(own, k) == 0 ? nan : zero;  // a row of zeros has no direction
    for (int64_t j = 0; j < i; ++j) row(l, i)[j] = start;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const V* other = f + j * k;
        V x = dot_product(own, other, k);
        for (int64_t c = 0; c < k; ++c) own[c] -= x * other[c];
        row(l, i)[j] += x * units[i];
      }
    V norm = root<T>(sum_of_squares(own, k));
    for (int64_t c = 0; c < k; ++c) own[c] /= norm;
    row(l, i)[i] = norm * units[i] + start;
  }
  store_lower(Target<T>(call.out[0], first, last), l, d);
  Target<T>(call.out[1], first, last).store(f, 0, d * k);
}

inline int64_t sum_scratch(const Operand* in) { return triangle_and_rows(in + 1); }

// The same from the second operand: the first, F Fᵀ itself, is for those whom a factor costs more.
template <class T>
void root_of_sum(const Call& call, int64_t first, int64_t last, void* scratch) {
  triangular_root<T>({call.in + 1, call.out, call.order, call.single}, first, last, scratch);
}

// The rows of a lower triangle in another order, with room for `root_of_rows`.
template <class T>
void load_reordered(Vector<T>* f, const Source<T>& from, const int64_t* order, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    int64_t place = order[i];
    from.load(f + 2 * i * d, place * d, place + 1);
    for (int64_t j = place + 1; j < d; ++j) f[2 * i * d + j] = Vector<T>{};
  }
}

template <class T>
void reordered_root(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  V *l = static_cast<V*>(scratch), *f = l + triangle(d), *units = f + 2 * d * d;
  load_reordered(f, Source<T>(call.in[0], first, last), call.order, d);
  root_of_rows<T>(l, f, units, d, d);
  store_lower(Target<T>(call.out[0], first, last), l, d);
}

inline int64_t root_cotangent_scratch(const Operand* in) {
  int64_t d = in[0].rows, k = in[1].columns;
  return 2 * triangle(d) + d * (2 * k + d) + 4 * d;
}

// L⁻ᵀ (P + Pᵀ) Q, P = Φ(LᵀC) and Q = L⁻¹F; zero pivots count as ones whose columns of P are zero.
template <class T>
void root_cotangent(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[1].columns;
  V *l = static_cast<V*>(scratch), *c = l + triangle(d), *q = c + triangle(d);
  V *out = q + d * k, *p = out + d * k, zero{}, one = zero + 1;
  load_lower(l, Source<T>(call.in[0], first, last), d);
  Source<T>(call.in[1], first, last).load(q, 0, d * k);
  load_lower(c, Source<T>(call.in[2], first, last), d);
  V infinity = all<T>(T(__builtin_inf())), nan = infinity - infinity, *pivots = p + d * d;
  Mask<T> is_lost = zero != zero;
  for (int64_t i = 0; i < d; ++i) {
    pivots[i] = row(l, i)[i];
    for (int64_t j = 0; j <= i; ++j) {
      V x = row(l, i)[j];
      is_lost |= magnitude<T>(x) == infinity;
      if (j < i) is_lost |= (pivots[j] == 0) & (x != 0);
    }
    row(l, i)[i] = pivots[i] == 0 ? one : pivots[i];
  }
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      V& x = row(l, i)[j];
      x = is_lost ? nan : x;
    }
  // P + Pᵀ, whose diagonal is that of LᵀC.
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      V sum = zero;
      for (int64_t r = i; r < d; ++r) sum += row(l, r)[i] * row(c, r)[j];
      p[i * d + j] = p[j * d + i] = pivots[j] == 0 ? zero : sum;
    }
  solve_matrix(l, q, d, k);
  for (int64_t i = 0; i < d; ++i) {
    V* own = out + i * k;
    for (int64_t m = 0; m < k; ++m) own[m] = zero;
    for (int64_t j = 0; j < d; ++j)
      for (int64_t m = 0; m < k; ++m) own[m] += p[i * d + j] * q[j * k + m];
  }
  solve_matrix_transpose(l, out, d, k);
  Target<T>(call.out[0], first, last).store(out, 0, d * k);
}

inline int64_t condition_scratch(const Operand* in) {
  int64_t d = in[0].rows;
  return triangle(d) + 2 * d * d + 4 * d;
}

// Mean and lower root of the n = d − m last rows of L, ‖A⁻¹v‖² and log|A Aᵀ|, given m values of the
// first ones: `conditional.py` has the formulas.
template <class T>
void store_condition(const Call& call, int64_t first, int64_t last, const Vector<T>* l,
                     Vector<T>* w, Vector<T>* mean, int64_t d, int64_t m) {
  using V = Vector<T>;
  int64_t n = d - m;
  solve_vector(l, w, m);
  V distance = sum_of_squares(w, m), logdet{};
  for (int64_t i = 0; i < m; ++i)
    for (int lane = 0; lane < width<T>; ++lane) logdet[lane] += log_of_pivot(row(l, i)[i][lane]);
  logdet *= 2;
  for (int64_t i = 0; i < n; ++i) {
    mean[i] = V{};
    for (int64_t j = 0; j < m; ++j) mean[i] += row(l, m + i)[j] * w[j];
  }
  Target<T>(call.out[0], first, last).store(mean, 0, n);
  Target<T> to(call.out[1], first, last);
  for (int64_t i = 0; i < n; ++i) {
    to.store(row(l, m + i) + m, i * n, i + 1);
    to.zeros(i * n + i + 1, n - i - 1);
  }
  Target<T>(call.out[2], first, last).store(&distance, 0, 1);
  Target<T>(call.out[3], first, last).store(&logdet, 0, 1);
}

// Of the rows of a lower triangle in this order, the m given first.
template <class T>
void condition_triangle(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, m = call.in[1].rows;
  V *l = static_cast<V*>(scratch), *f = l + triangle(d), *units = f + 2 * d * d, *w = units + d;
  load_reordered(f, Source<T>(call.in[0], first, last), call.order, d);
  Source<T>(call.in[1], first, last).load(w, 0, m);
  root_of_rows<T>(l, f, units, d, d);
  store_condition<T>(call, first, last, l, w, w + d, d, m);
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
