// Observations y = H x + e: `exchange.py` and `conditional.py` have the formulas.

#pragma once

#include "roots.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// Sizes of m observations of d coordinates, with n parts of noise, and what is made of them:
// rows [Z, [T; S]] of (m + d) × (d + n + m), and which observation took the place of which
// coordinate.
template <class T>
struct Exchange {
  using V = Vector<T>;
  int64_t m, d, n, w;
  V *rows, *pairs, *least;
  bool is_trivial = true;

  static int64_t vectors(int64_t m, int64_t d, int64_t n) {
    return (m + d) * (d + n + m) + m * d + m;
  }

  Exchange(int64_t m, int64_t d, int64_t n, V* scratch)
      : m(m),
        d(d),
        n(n),
        w(d + n + m),
        rows(scratch),
        pairs(rows + (m + d) * w),
        least(pairs + m * d) {}

  V* end() const { return least + m; }

  void load(const Source<T>& matrix, const Source<T>& noise, const V* sizes) {
    memset(rows, 0, (m + d) * w * sizeof(V));
    memset(pairs, 0, m * d * sizeof(V));
    for (int64_t i = 0; i < m; ++i) {
      V *own = rows + i * w, largest{};
      matrix.load(own, i * d, d);
      noise.load(own + d, i * n, n);
      own[d + n + i] = all<T>(1);
      for (int64_t j = 0; j < d; ++j) {
        V size = magnitude<T>(own[j]) * sizes[j];
        largest = size > largest || size != size ? size : largest;
      }
      least[i] = epsilon<T> * largest;
    }
    for (int64_t j = 0; j < d; ++j) rows[(m + j) * w + j] = all<T>(1);
  }

  // What precise observations fix is eliminated, in each lane by itself: few have any.
  void eliminate(const V* sizes) {
    Mask<T> begins = has_precise(sizes);
    for (int lane = 0; lane < width<T>; ++lane)
      for (int64_t steps = 0; steps < m && begins[lane] && step(sizes, lane); ++steps)
        is_trivial = false;
  }

 private:
  // Where a coordinate is larger in an observation than BAR units of its noise.
  Mask<T> has_precise(const V* sizes) const {
    V zero{}, one = zero + 1, limit = all<T>(T(8) * T(m + d));
    Mask<T> found = zero != zero;
    for (int64_t i = 0; i < m; ++i) {
      const V* own = rows + i * w;
      V scale = length_of<T>(own + d, n);
      scale = scale > least[i] || scale != scale ? scale : least[i];
      scale = limit * (scale == 0 ? one : scale);
      for (int64_t j = 0; j < d; ++j) found |= magnitude<T>(own[j]) * sizes[j] > scale;
    }
    return found;
  }

  T length_of_noise(int64_t i, int lane) const {
    T unit = 0, sum = 0;
    for (int64_t c = d; c < d + n; ++c) {
      T x = fabs(rows[i * w + c][lane]);
      unit = x > unit || x != x ? x : unit;
    }
    if (unit == 0 || !(unit < T(__builtin_inf()))) return unit;
    for (int64_t c = d; c < d + n; ++c) {
      T x = rows[i * w + c][lane] / unit;
      sum += x * x;
    }
    return unit * sqrt(sum);
  }

  bool is_taken(int64_t i, int64_t j, int lane) const {
    for (int64_t c = 0; c < d; ++c)
      if (pairs[i * d + c][lane] != 0) return true;
    for (int64_t r = 0; r < m; ++r)
      if (pairs[r * d + j][lane] != 0) return true;
    return false;
  }

  // The observation that is most precise beside what is known of a coordinate takes its place.
  bool step(const V* sizes, int lane) {
    T limit = T(8) * T(m + d), best = limit;  // BAR in exchange.py
    int64_t row = -1, column = 0;
    for (int64_t i = 0; i < m; ++i) {
      T scale = length_of_noise(i, lane);
      scale = scale > least[i][lane] || scale != scale ? scale : least[i][lane];
      if (scale == 0) scale = 1;
      for (int64_t j = 0; j < d; ++j) {
        T gain = fabs(rows[i * w + j][lane]) * sizes[j][lane] / scale;
        if (!(gain > best) && gain == gain) continue;
        if (is_taken(i, j, lane)) continue;
        if (gain != gain) return false;
        best = gain;
        row = i;
        column = j;
      }
    }
    if (row < 0) return false;
    const V* own = rows + row * w;
    T pivot = own[column][lane];
    for (int64_t i = 0; i < m + d; ++i) {
      if (i == row) continue;
      V* other = rows + i * w;
      T factor = other[column][lane] / pivot;
      for (int64_t c = 0; c < w; ++c) other[c][lane] -= factor * own[c][lane];
      other[column][lane] = 0;
    }
    pairs[row * d + column][lane] = 1;
    return true;
  }
};

inline int64_t exchange_scratch(const Operand* in) {
  int64_t m = in[0].rows, d = in[0].columns, n = in[1].columns;
  return Exchange<float>::vectors(m, d, n) + d;
}

// From H, R, and standard deviations of x.
template <class T>
void exchange(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t m = call.in[0].rows, d = call.in[0].columns, n = call.in[1].columns;
  Exchange<T> x(m, d, n, static_cast<V*>(scratch));
  V* sizes = x.end();
  Source<T>(call.in[2], first, last).load(sizes, 0, d);
  x.load(Source<T>(call.in[0], first, last), Source<T>(call.in[1], first, last), sizes);
  x.eliminate(sizes);
  Target<T> rows(call.out[0], first, last), moves(call.out[1], first, last);
  for (int64_t i = 0; i < m + d; ++i) {
    rows.store(x.rows + i * x.w, i * (d + n), d + n);
    moves.store(x.rows + i * x.w + d + n, i * m, m);
  }
  Target<T>(call.out[2], first, last).store(x.pairs, 0, m * d);
}

inline int64_t exchange_cotangents_scratch(const Operand* in) {
  int64_t all = in[0].rows, w = in[0].columns, m = in[2].rows, d = in[2].columns;
  int64_t k = in[3].columns, n = w - d;
  return 2 * all * w + 2 * all * m + m * d + 2 * d * k + all * (k + n) + all * m + m * w + d + 2;
}

// Of H, R and F, from those of the rows [Z_x F, Z_u], of the moves and of log|T|: the transpose of
// `_change` in `exchange.py`.
template <class T>
void exchange_cotangents(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t all_rows = call.in[0].rows, w = call.in[0].columns;
  int64_t m = call.in[2].rows, d = call.in[2].columns, k = call.in[3].columns, n = w - d;
  V *z = static_cast<V*>(scratch), *moves = z + all_rows * w, *pairs = moves + all_rows * m;
  V *f = pairs + m * d, *c = f + d * k, *c_moves = c + all_rows * (k + n);
  V *a = c_moves + all_rows * m, *g = a + all_rows * w, *out = g + all_rows * m;
  V *to_root = out + m * w, *c_logdet = to_root + d * k, zero{}, one = zero + 1;
  const int64_t sizes[] = {all_rows * w,       all_rows * m, m * d, d * k,
                           all_rows * (k + n), all_rows * m, 1};
  V* const parts[] = {z, moves, pairs, f, c, c_moves, c_logdet};
  for (int i = 0; i < 7; ++i) Source<T>(call.in[i], first, last).load(parts[i], 0, sizes[i]);

  // Of Z: that of Z_x F times Fᵀ beside that of Z_u, but for columns that stay.
  memset(to_root, 0, d * k * sizeof(V));
  for (int64_t i = 0; i < all_rows; ++i) {
    V *own = a + i * w, *row_of_c = c + i * (k + n);
    for (int64_t j = 0; j < d; ++j) {
      own[j] = dot_product(row_of_c, f + j * k, k);
      V x = z[i * w + j];
      for (int64_t s = 0; s < k; ++s) to_root[j * k + s] += x * row_of_c[s];
    }
    memcpy(own + d, row_of_c + k, n * sizeof(V));
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j < d; ++j) own[j] = pairs[r * d + j] != 0 ? zero : own[j];
  }
  // Of G, which spreads over the columns of A that belong to pivots.
  for (int64_t i = 0; i < all_rows; ++i)
    for (int64_t r = 0; r < m; ++r) {
      V sum = dot_product(a + i * w, z + r * w, w) + dot_product(c_moves + i * m, moves + r * m, m);
      g[i * m + r] = i == r ? -sum - *c_logdet : -sum;
    }
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < d; ++j) {
      Mask<T> is_pair = pairs[r * d + j] != 0;
      if (!any<T>(is_pair)) continue;
      V pivot = is_pair ? z[r * w + j] : one;
      for (int64_t i = 0; i < all_rows; ++i) a[i * w + j] += is_pair ? g[i * m + r] / pivot : zero;
    }
  // Of [H, R], through A = [T; S] [dH, dR].
  memset(out, 0, m * w * sizeof(V));
  for (int64_t i = 0; i < all_rows; ++i)
    for (int64_t r = 0; r < m; ++r) {
      V x = moves[i * m + r];
      for (int64_t j = 0; j < w; ++j) out[r * w + j] += x * a[i * w + j];
    }
  Target<T>(call.out[0], first, last).store(to_root, 0, d * k);
  for (int64_t r = 0; r < m; ++r) {
    Target<T>(call.out[1], first, last).store(out + r * w, r * d, d);
    Target<T>(call.out[2], first, last).store(out + r * w + d, r * n, n);
  }
}

inline int64_t observe_scratch(const Operand* in) {
  int64_t d = in[0].rows, k = in[0].columns, m = in[1].rows, n = in[2].columns;
  return Exchange<float>::vectors(m, d, n) + d * k + (m + d) * (k + n + m + d) + triangle(m + d) +
         4 * (m + d);
}

// From F, H, R and the values of y.
template <class T>
void observe(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[0].columns, m = call.in[1].rows, n = call.in[2].columns;
  int64_t w = k + n + m + d;  // room for `root_of_rows`
  Exchange<T> x(m, d, n, static_cast<V*>(scratch));
  V *f = x.end(), *rows = f + d * k, *l = rows + (m + d) * w, *units = l + triangle(m + d);
  V *moved = units + m + d, *mean = moved + m + d, *values = mean + d;
  Source<T>(call.in[0], first, last).load(f, 0, d * k);
  V* sizes = units;
  for (int64_t i = 0; i < d; ++i) sizes[i] = length_of<T>(f + i * k, k);
  x.load(Source<T>(call.in[1], first, last), Source<T>(call.in[2], first, last), sizes);
  x.eliminate(sizes);
  Source<T>(call.in[3], first, last).load(values, 0, m);
  for (int64_t i = 0; i < m + d; ++i) {
    V *own = rows + i * w, *z = x.rows + i * x.w;
    if (x.is_trivial && i >= m) {
      memcpy(own, f + (i - m) * k, k * sizeof(V));
      memset(own + k, 0, n * sizeof(V));
      moved[i] = V{};
      for (int64_t j = 0; j < m; ++j) moved[i] += 0 * values[j];
      continue;
    }
    memset(own, 0, k * sizeof(V));
    for (int64_t j = 0; j < d; ++j)
      for (int64_t c = 0; c < k; ++c) own[c] += z[j] * f[j * k + c];
    memcpy(own + k, z + d, n * sizeof(V));
    moved[i] = V{};
    for (int64_t j = 0; j < m; ++j) moved[i] += z[d + n + j] * values[j];
  }
  root_of_rows<T>(l, rows, units, m + d, k + n);
  store_condition<T>(call, first, last, l, moved, mean, m + d, m);
  for (int64_t i = 0; i < d; ++i) mean[i] -= moved[m + i];
  Target<T>(call.out[0], first, last).store(mean, 0, d);
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
