// Sums, and solves and products with lower triangles.

#pragma once

#include "single.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// Vectors that so many triangles take, and a few vectors beside them.
template <int count>
int64_t triangles(const Operand* in) {
  return count * triangle(in[0].rows) + 4 * in[0].rows;
}

// sᵢ − ⟨rowᵢ, other⟩ of R rows at once: each waits for its own products, and none for another's.
template <int R, class V>
inline void minus_products(V* s, V* const* rows, const V* other, int64_t n) {
  V sums[R];
  for (int r = 0; r < R; ++r) sums[r] = s[r];
  for (int64_t k = 0; k < n; ++k)
    for (int r = 0; r < R; ++r) sums[r] -= rows[r][k] * other[k];
  for (int r = 0; r < R; ++r) s[r] = sums[r];
}

template <class V>
V dot_product(const V* x, const V* y, int64_t n) {
  V sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int r = 0; r < 4; ++r) sums[r] += x[i + r] * y[i + r];
  for (; i < n; ++i) sums[0] += x[i] * y[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class V>
V sum_of_squares(const V* x, int64_t n) {
  return dot_product(x, x, n);
}

// One more term of a long sum, and what its rounding has lost so far (Kahan). Where the total is
// not finite, nothing is.
template <class V>
void add(V& total, V& lost, V term) {
  V y = term - lost, sum = total + y;
  lost = (sum - total) - y;
  lost = lost == lost ? lost : V{};
  total = sum;
}

// Rows of K⁻¹T in place, for lower triangles: row i less Kᵢⱼ times those above it, over Kᵢᵢ.
template <class V>
void solve_triangle(const V* k, V* t, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    const V* factors = row(k, i);
    V* own = row(t, i);
    int64_t j = 0;
    for (; j + 2 <= i; j += 2) {  // two rows at once: half of the loads and stores of the sums
      const V *one = row(t, j), *two = row(t, j + 1), x = factors[j], y = factors[j + 1];
      for (int64_t c = 0; c <= j; ++c) own[c] -= x * one[c] + y * two[c];
      own[j + 1] -= y * two[j + 1];
    }
    for (; j < i; ++j) {
      const V *one = row(t, j), x = factors[j];
      for (int64_t c = 0; c <= j; ++c) own[c] -= x * one[c];
    }
    for (int64_t c = 0; c <= i; ++c) own[c] /= factors[i];
  }
}

// The lower triangle of K⁻ᵀT in place: of T, columns are read from their diagonal on.
template <class V>
void solve_triangle_transpose(const V* k, V* t, int64_t d) {
  for (int64_t i = d; i-- > 0;) {
    V* own = row(t, i);
    for (int64_t c = 0; c <= i; ++c) own[c] /= row(k, i)[i];
    for (int64_t j = 0; j < i; ++j) {
      V *above = row(t, j), x = row(k, i)[j];
      for (int64_t c = 0; c <= j; ++c) above[c] -= x * own[c];
    }
  }
}

// L⁻¹B in place, for a matrix of k columns.
template <class V>
void solve_matrix(const V* l, V* b, int64_t d, int64_t k) {
  for (int64_t i = 0; i < d; ++i) {
    const V* factors = row(l, i);
    V* own = b + i * k;
    int64_t j = 0;
    for (; j + 2 <= i; j += 2) {
      const V *one = b + j * k, *two = one + k, x = factors[j], y = factors[j + 1];
      for (int64_t c = 0; c < k; ++c) own[c] -= x * one[c] + y * two[c];
    }
    for (; j < i; ++j) {
      const V *one = b + j * k, x = factors[j];
      for (int64_t c = 0; c < k; ++c) own[c] -= x * one[c];
    }
    for (int64_t c = 0; c < k; ++c) own[c] /= factors[i];
  }
}

template <class V>
void solve_matrix_transpose(const V* l, V* b, int64_t d, int64_t k) {
  for (int64_t i = d; i-- > 0;) {
    V* own = b + i * k;
    for (int64_t c = 0; c < k; ++c) own[c] /= row(l, i)[i];
    for (int64_t j = 0; j < i; ++j) {
      V *above = b + j * k, x = row(l, i)[j];
      for (int64_t c = 0; c < k; ++c) above[c] -= x * own[c];
    }
  }
}

template <class V>
void solve_vector(const V* k, V* x, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    const V* own = row(k, i);
    V sums[4] = {x[i], V{}, V{}, V{}};
    int64_t j = 0;
    for (; j + 4 <= i; j += 4)
      for (int r = 0; r < 4; ++r) sums[r] -= own[j + r] * x[j + r];
    for (; j < i; ++j) sums[0] -= own[j] * x[j];
    x[i] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / own[i];
  }
}

template <class V>
void solve_vector_transpose(const V* k, V* x, int64_t d) {
  for (int64_t i = d; i-- > 0;) {
    V y = x[i] = x[i] / row(k, i)[i];
    for (int64_t j = 0; j < i; ++j) x[j] -= row(k, i)[j] * y;
  }
}

// The kernels ----------------------------------------------------------------------------------

inline int64_t triangle_and_matrix(const Operand* in) {
  return triangle(in[0].rows) + in[1].rows * in[1].columns;
}

template <class T, bool transposed>
void solve(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows, k = call.in[1].columns;
  V *l = static_cast<V*>(scratch), *b = l + triangle(d);
  load_lower(l, Source<T>(call.in[0], first, last), d);
  Source<T>(call.in[1], first, last).load(b, 0, d * k);
  if (k == 1)
    transposed ? solve_vector_transpose(l, b, d) : solve_vector(l, b, d);
  else
    transposed ? solve_matrix_transpose(l, b, d, k) : solve_matrix(l, b, d, k);
  Target<T>(call.out[0], first, last).store(b, 0, d * k);
}

template <class T>
void solve_lower(const Call& call, int64_t first, int64_t last, void* scratch) {
  solve<T, false>(call, first, last, scratch);
}

template <class T>
void solve_lower_transpose(const Call& call, int64_t first, int64_t last, void* scratch) {
  solve<T, true>(call, first, last, scratch);
}

// L⁻¹v and L⁻ᵀL⁻¹v; zero where a pivot is: as if that were infinite.
template <class T>
void solutions(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  if (call.single) {
    const T* l = matrix<T>(call.in[0], first);
    T *w = result<T>(call.out[0], first), *u = result<T>(call.out[1], first);
    memcpy(w, matrix<T>(call.in[1], first), d * sizeof(T));
    substitute(l, w, d);
    memcpy(u, w, d * sizeof(T));
    return substitute_transpose(l, u, d);
  }
  V *l = static_cast<V*>(scratch), *x = l + triangle(d), infinity = all<T>(T(__builtin_inf()));
  load_lower(l, Source<T>(call.in[0], first, last), d);
  for (int64_t i = 0; i < d; ++i) row(l, i)[i] = row(l, i)[i] == 0 ? infinity : row(l, i)[i];
  Source<T>(call.in[1], first, last).load(x, 0, d);
  solve_vector(l, x, d);
  Target<T>(call.out[0], first, last).store(x, 0, d);
  solve_vector_transpose(l, x, d);
  Target<T>(call.out[1], first, last).store(x, 0, d);
}

// L v, a row at a time.
template <class T>
void product(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  V *x = static_cast<V*>(scratch), *y = x + d, *line = y + d;
  Source<T> from(call.in[0], first, last);
  Source<T>(call.in[1], first, last).load(x, 0, d);
  for (int64_t i = 0; i < d; ++i) {
    from.load(line, i * d, i + 1);
    V sums[4] = {};
    int64_t j = 0;
    for (; j + 4 <= i + 1; j += 4)
      for (int r = 0; r < 4; ++r) sums[r] += line[j + r] * x[j + r];
    for (; j <= i; ++j) sums[0] += line[j] * x[j];
    y[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  Target<T>(call.out[0], first, last).store(y, 0, d);
}

// `inv_quad` of one matrix, unless it has a pivot that is not positive and finite, or the result is
// not finite: then false.
template <class T>
bool is_inv_quad_of_regular(const Call& call, int64_t index, T* w) {
  int64_t d = call.in[0].rows;
  const T* l = matrix<T>(call.in[0], index);
  memcpy(w, matrix<T>(call.in[1], index), d * sizeof(T));
  substitute(l, w, d);
  T value = dot_of_numbers(w, w, d);
  for (int64_t i = 0; i < d; ++i)
    if (!(l[i * d + i] > 0 && l[i * d + i] < T(__builtin_inf()))) return false;
  *result<T>(call.out[0], index) = value;
  return value - value == 0;
}

// ‖L⁻¹v‖², where columns of L may be zero: `small.inv_quad` has the rules.
template <class T>
void inv_quad(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  if (call.single && is_inv_quad_of_regular(call, first, static_cast<T*>(scratch))) return;
  V *w = static_cast<V*>(scratch), *pivots = w + d, *line = pivots + d, *v = line + d;
  Source<T> from(call.in[0], first, last);
  Source<T>(call.in[1], first, last).load(v, 0, d);
  V zero{}, one = zero + 1, infinity = all<T>(T(__builtin_inf())), nan = infinity - infinity;
  T near = T(1e3) * epsilon<T>;
  Mask<T> is_off = zero != zero, is_lost = is_off, is_singular = is_off;
  for (int64_t i = 0; i < d; ++i) {
    from.load(line, i * d, i + 1);
    V sums[4] = {v[i], zero, zero, zero}, sizes = zero;
    int64_t j = 0;
    for (; j + 4 <= i; j += 4)
      for (int r = 0; r < 4; ++r) sums[r] -= line[j + r] * w[j + r];
    for (; j < i; ++j) sums[0] -= line[j] * w[j];
    V rest = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (j = 0; j <= i; ++j) sizes += magnitude<T>(line[j]);
    pivots[i] = line[i];
    Mask<T> is_zero = line[i] == 0;
    is_singular |= is_zero;
    w[i] = is_zero ? zero : rest / (is_zero ? one : line[i]);
    w[i] = line[i] < 0 ? nan : w[i];  // two wrong signs must not make a right one
    is_lost |= sizes == infinity;
    is_lost |= is_zero & (rest != rest);
    if (any<T>(is_singular)) {
      is_off |= is_zero & (magnitude<T>(rest) > near * (magnitude<T>(v[i]) + sizes));
      for (j = 0; j < i; ++j) is_lost |= (pivots[j] == 0) & (line[j] != 0);
    }
  }
  V value = is_off ? infinity : sum_of_squares(w, d);
  value = is_lost ? nan : value;
  Target<T>(call.out[0], first, last).store(&value, 0, 1);
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
