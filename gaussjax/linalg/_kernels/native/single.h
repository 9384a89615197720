// What goes by one matrix: its rows go through the lanes, and none is transposed.

#pragma once

#include "lanes.h"

namespace gaussjax::GAUSSJAX_LEVEL {

template <class T>
Vector<T> load(const T* from) {
  Vector<T> out;
  memcpy(&out, from, sizeof(out));
  return out;
}

template <class T>
T dot_of_numbers(const T* x, const T* y, int64_t n) {
  constexpr int W = width<T>;
  Vector<T> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int r = 0; r < 4; ++r) sums[r] += load(x + i + r * W) * load(y + i + r * W);
  for (; i + W <= n; i += W) sums[0] += load(x + i) * load(y + i);
  Vector<T> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  T total = 0;
  for (int lane = 0; lane < W; ++lane) total += sum[lane];
  for (; i < n; ++i) total += x[i] * y[i];
  return total;
}

// ‖x‖², where a sum of all its squares would lose digits of the last ones.
template <class T>
double square_of_numbers(const T* x, int64_t n) {
  constexpr int64_t kPart = 1024;
  double total = 0;
  for (int64_t i = 0; i < n; i += kPart) {
    int64_t part = n - i < kPart ? n - i : kPart;
    total += double(dot_of_numbers(x + i, x + i, part));
  }
  return total;
}

// v − a x in place.
template <class T>
void subtract_numbers(T* v, T a, const T* x, int64_t n) {
  constexpr int W = width<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    Vector<T> rest = load(v + i) - load(x + i) * a;
    memcpy(v + i, &rest, sizeof(rest));
  }
  for (; i < n; ++i) v[i] -= x[i] * a;
}

template <class T>
void scale_numbers(T* v, T a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) v[i] *= a;
}

// The largest magnitude, or NaN.
template <class T>
T largest_of_numbers(const T* x, int64_t n) {
  T largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    T size = fabs(x[i]);
    largest = size <= largest ? largest : size;
    if (largest != largest) return largest;
  }
  return largest;
}

// L⁻¹v in place, zero where a pivot is: as if that were infinite.
template <class T>
void substitute(const T* l, T* v, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    const T* own = l + i * d;
    v[i] = (v[i] - dot_of_numbers(own, v, i)) / (own[i] == 0 ? T(__builtin_inf()) : own[i]);
  }
}

// L⁻ᵀv in place, the same where a pivot is zero.
template <class T>
void substitute_transpose(const T* l, T* v, int64_t d) {
  for (int64_t i = d; i-- > 0;) {
    const T* own = l + i * d;
    v[i] /= own[i] == 0 ? T(__builtin_inf()) : own[i];
    subtract_numbers(v, v[i], own, i);
  }
}

template <class T>
const T* matrix(const Operand& x, int64_t index) {
  return static_cast<const T*>(x.data) + index * x.stride;
}

template <class T>
T* result(const Operand& x, int64_t index) {
  return static_cast<T*>(x.data) + index * x.stride;
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
