// Cholesky factors and their cotangents.

#pragma once

#include "triangular.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// L of A = L Lᵀ in place, column by column. Golub & Van Loan, §4.2.
template <class V, class Root>
void factorise(V* a, int64_t d, Root root) {
  for (int64_t j = 0; j < d; ++j) {
    V* pivots = row(a, j);
    minus_products<1>(&pivots[j], &pivots, pivots, j);
    V pivot = pivots[j] = root(pivots[j]);
    int64_t i = j + 1;
    for (; i + 4 <= d; i += 4) {
      V* rows[4] = {row(a, i), row(a, i + 1), row(a, i + 2), row(a, i + 3)};
      V s[4] = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
      minus_products<4>(s, rows, pivots, j);
      for (int r = 0; r < 4; ++r) rows[r][j] = s[r] / pivot;
    }
    for (; i < d; ++i) {
      V* own = row(a, i);
      minus_products<1>(&own[j], &own, pivots, j);
      own[j] /= pivot;
    }
  }
}

// L of ½ (A + Aᵀ); NaN where a pivot is not above the rounding of its diagonal entry.
template <class T>
void cholesky(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  V *a = static_cast<V*>(scratch), *line = a + triangle(d), *diagonal = line + d;
  Source<T> from(call.in[0], first, last);
  for (int64_t i = 0; i < d;
       ++i) {  // what is right of row i's diagonal meets its mirror image later
    from.load(line, i * d, i + 1);
    for (int64_t j = 0; j < i; ++j) row(a, i)[j] = line[j];
    diagonal[i] = row(a, i)[i] = line[i];
  }
  for (int64_t i = 0; i < d; ++i) {
    from.load(line, i * d + i + 1, d - i - 1);
    for (int64_t k = i + 1; k < d; ++k) {
      V& below = row(a, k)[i];
      below = T(0.5) * (below + line[k - i - 1]);
    }
  }
  factorise(a, d, root<T>);
  T noise = T(0.5) * T(d) * epsilon<T>;
  Mask<T> works = all<T>(0) == all<T>(0);
  for (int64_t i = 0; i < d; ++i) {
    V pivot = row(a, i)[i];
    works &= pivot * pivot > noise * diagonal[i];
  }
  Target<T> to(call.out[0], first, last);
  store_lower(to, a, d);
  for (int l = 0; l < to.count; ++l)
    if (!works[l])
      for (int64_t i = 0; i < d * d; ++i) to.at[l][i] = T(__builtin_nan(""));
}

// Σ̄, symmetric, from L and L̄: the columns of the factorisation in reverse. Murray, §4.2.
template <class T>
void cholesky_cotangent(const Call& call, int64_t first, int64_t last, void* scratch) {
  using V = Vector<T>;
  int64_t d = call.in[0].rows;
  V *lower = static_cast<V*>(scratch), *bar = lower + triangle(d), *line = bar + triangle(d);
  load_lower(lower, Source<T>(call.in[0], first, last), d);
  load_lower(bar, Source<T>(call.in[1], first, last), d);
  for (int64_t j = d; j-- > 0;) {
    V *own = row(bar, j), *factor = row(lower, j), pivot = factor[j];
    for (int64_t i = j + 1; i < d; ++i) {
      V *rest = row(bar, i), c = rest[j] = rest[j] / pivot, *below = row(lower, i);
      own[j] -= c * below[j];
      for (int64_t k = 0; k < j; ++k) {
        own[k] -= c * below[k];
        rest[k] -= c * factor[k];
      }
    }
    V c = own[j] = own[j] / pivot;
    for (int64_t k = 0; k < j; ++k) own[k] -= c * factor[k];
  }
  Target<T> to(call.out[0], first, last);
  for (int64_t i = 0; i < d; ++i) {  // an entry below the diagonal stands for two of Σ
    for (int64_t k = 0; k < d; ++k) line[k] = T(0.5) * (k < i ? row(bar, i)[k] : row(bar, k)[i]);
    to.store(line, i * d, d);
  }
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
