// Substitution with one matrix: its rows go through the lanes, and none is transposed.

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

// L⁻¹v in place.
template <class T>
void substitute(const T* l, T* v, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    const T* own = l + i * d;
    v[i] = (v[i] - dot_of_numbers(own, v, i)) / own[i];
  }
}

// L⁻ᵀv in place.
template <class T>
void substitute_transpose(const T* l, T* v, int64_t d) {
  constexpr int W = width<T>;
  for (int64_t i = d; i-- > 0;) {
    const T* own = l + i * d;
    T x = v[i] = v[i] / own[i];
    int64_t j = 0;
    for (; j + W <= i; j += W) {
      Vector<T> rest = load(v + j) - load(own + j) * x;
      memcpy(v + j, &rest, sizeof(rest));
    }
    for (; j < i; ++j) v[j] -= own[j] * x;
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
