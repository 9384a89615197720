// The LogDet divergence and the trace of two covariances, from their roots: `divergence.py` and
// `trace.py` have the formulas.

#pragma once

#include <math.h>

#include "triangular.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// x − log(1 + x) from x and from ratio = 1 + x, as `minus_log1p` in excess.py.
template <class T>
Vector<T> excess(Vector<T> x, Vector<T> ratio) {
  using V = Vector<T>;
  Mask<T> near = (x > T(-1.0 / 3)) & (x < T(0.5));
  V s = near ? x / (2 + x) : all<T>(0), z = s * s;
  constexpr int terms = sizeof(T) == 4 ? 6 : 12;
  V series = all<T>(T(1.0 / (2 * terms + 1)));
  for (int k = 2 * terms - 1; k >= 3; k -= 2) series = T(1.0 / k) + z * series;
  V value = x * s - 2 * s * z * series;
  for (int l = 0; l < width<T>; ++l)
    if (!near[l]) value[l] = x[l] - log(ratio[l]);
  return value;
}

// The arrays of a pair of roots L and K, and of the shift between the means.
template <class T>
struct Pair {
  using V = Vector<T>;
  int64_t d;
  V *a, *b, *e, *w, *rest;

  Pair(const Call& call, int64_t first, int64_t last, void* scratch) : d(call.in[0].rows) {
    a = static_cast<V*>(scratch);
    b = a + triangle(d);
    e = b + triangle(d);
    w = e + triangle(d);
    rest = w + d;
    load_lower(a, Source<T>(call.in[0], first, last), d);
    load_lower(b, Source<T>(call.in[1], first, last), d);
    Source<T>(call.in[2], first, last).load(w, 0, d);
  }

  // E = K⁻¹(L − K) and w = K⁻¹v.
  void relative() {
    for (int64_t i = 0; i < triangle(d); ++i) e[i] = a[i] - b[i];
    solve_triangle(b, e, d);
    solve_vector(b, w, d);
  }

  // M = K⁻¹L and w = K⁻¹v.
  void quotient() {
    for (int64_t i = 0; i < triangle(d); ++i) e[i] = a[i];
    solve_triangle(b, e, d);
    solve_vector(b, w, d);
  }

  V squares_of_w() const { return sum_of_squares(w, d); }

  // Whether all pivots are positive: two wrong signs must not make a right one.
  Mask<T> is_positive(const V* x) const {
    Mask<T> mask = all<T>(0) == all<T>(0);
    for (int64_t i = 0; i < d; ++i) mask &= row(x, i)[i] > 0;
    return mask;
  }

  Mask<T> is_regular(const V* x) const {
    Mask<T> mask = all<T>(0) == all<T>(0);
    for (int64_t i = 0; i < d; ++i) mask &= row(x, i)[i] != 0;
    return mask;
  }
};

template <class T>
void divergence(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  Pair<T> p(call, first, last, scratch);
  p.relative();
  V total = p.squares_of_w(), lost{};
  for (int64_t i = 0; i < p.d; ++i) {
    const V* own = row(p.e, i);
    V term = sum_of_squares(own, i + 1) + 2 * excess<T>(own[i], row(p.a, i)[i] / row(p.b, i)[i]);
    add(total, lost, term);
  }
  V nan = all<T>(T(__builtin_nan(""))), infinity = all<T>(T(__builtin_inf()));
  total = p.is_positive(p.b) ? total : nan;
  total = p.is_regular(p.b) ? total : p.is_regular(p.a) ? infinity : nan;
  Target<T>(call.out[0], first, last).store(&total, 0, 1);
}

template <class T>
void trace(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  Pair<T> p(call, first, last, scratch);
  p.quotient();
  V total = p.squares_of_w(), lost{};
  for (int64_t i = 0; i < p.d; ++i) add(total, lost, sum_of_squares(row(p.e, i), i + 1));
  total = p.is_positive(p.b) ? total : all<T>(T(__builtin_nan("")));
  Target<T>(call.out[0], first, last).store(&total, 0, 1);
}

// With X for E or M, as it is in `p`: H = K⁻ᵀX, u = K⁻ᵀw and G = −tril(H Xᵀ + u wᵀ).
template <class T>
struct Gradients {
  using V = Vector<T>;
  V *u, *h, *g;

  explicit Gradients(const Pair<T>& p) : u(p.rest), h(u + p.d), g(h + triangle(p.d)) {
    memcpy(h, p.e, triangle(p.d) * sizeof(V));
    memcpy(u, p.w, p.d * sizeof(V));
    solve_triangle_transpose(p.b, h, p.d);
    solve_vector_transpose(p.b, u, p.d);
    for (int64_t i = 0; i < p.d; ++i) {
      V* left = row(h, i);
      for (int64_t k = 0; k <= i; ++k) {
        V s = -u[i] * p.w[k];
        minus_products<1>(&s, &left, row(p.e, k), k + 1);
        row(g, i)[k] = s;
      }
    }
  }

  void store(const Call& call, int64_t first, int64_t last, int64_t d) const {
    store_lower(Target<T>(call.out[0], first, last), h, d);
    store_lower(Target<T>(call.out[1], first, last), g, d);
    Target<T>(call.out[2], first, last).store(u, 0, d);
  }
};

// With r the diagonal of E: G_A = tril(H) + diag(r / L), G_B = G − tril(H) − diag(r / K).
template <class T>
void divergence_gradients(const Call& call, int64_t first, int64_t last, void* scratch) {
  Pair<T> p(call, first, last, scratch);
  p.relative();
  Gradients<T> x(p);
  for (int64_t i = 0; i < triangle(p.d); ++i) x.g[i] -= x.h[i];
  for (int64_t i = 0; i < p.d; ++i) {
    Vector<T> r = row(p.e, i)[i];
    row(x.g, i)[i] -= r / row(p.b, i)[i];
    row(x.h, i)[i] += r / row(p.a, i)[i];
  }
  x.store(call, first, last, p.d);
}

// G_A = tril(H), G_B = G.
template <class T>
void trace_gradients(const Call& call, int64_t first, int64_t last, void* scratch) {
  Pair<T> p(call, first, last, scratch);
  p.quotient();
  Gradients<T>(p).store(call, first, last, p.d);
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
