// Mean and scatter of many rows: read once, about the mean of a part of them that stays in the
// cache.

#pragma once

#include "single.h"

namespace gaussjax::GAUSSJAX_LEVEL {

// Rows of a part, whose columns lie one after the other, and d + 1 of them in about 64 KiB.
inline int64_t rows_of_part(int64_t d) {
  int64_t rows = (1 << 14) / (d + 1) & ~int64_t(15);
  return rows < 128 ? 128 : rows > 1024 ? 1024 : rows;
}

// One vector more than the rows, so that columns do not share the lines of a cache.
inline int64_t column_of_part(int64_t d) { return rows_of_part(d) + 16; }

inline int64_t moments_scratch(const Operand* in) {
  int64_t d = in[0].columns, numbers = (d + 3) * column_of_part(d) + d;  // at most of 8 bytes
  return (8 * (numbers + d * d + 3 * d)) / 64 + 8;
}

template <class T>
double sum_of_lanes(Vector<T> v) {
  T x[width<T>];
  memcpy(x, &v, sizeof(v));
  for (int half = width<T> / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) x[l] += x[l + half];
  return double(x[0]);
}

// The columns of √w (x − c), and then that of √w; zeros up to a whole vector, and in one more.
template <class T>
void store_columns(T* columns, const T* x, const T* w, const T* centre, int64_t n, int64_t d) {
  constexpr int P = piece<T>;
  int64_t stride = column_of_part(d), whole = d - d % P, i = 0;
  T* roots = columns + d * stride;
  for (int64_t k = 0; k < n; ++k) roots[k] = T(__builtin_sqrt(w[k]));
  for (; i + P <= n; i += P) {
    for (int64_t j = 0; j < whole; j += P) {
      Piece<T> p[P], c;
      memcpy(&c, centre + j, sizeof(c));
      for (int q = 0; q < P; ++q) {
        memcpy(&p[q], x + (i + q) * d + j, sizeof(c));
        p[q] = (p[q] - c) * roots[i + q];
      }
      transpose(p);
      for (int q = 0; q < P; ++q) memcpy(columns + (j + q) * stride + i, &p[q], sizeof(c));
    }
    for (int64_t j = whole; j < d; ++j)
      for (int q = 0; q < P; ++q)
        columns[j * stride + i + q] = (x[(i + q) * d + j] - centre[j]) * roots[i + q];
  }
  for (; i < n; ++i)
    for (int64_t j = 0; j < d; ++j) columns[j * stride + i] = (x[i * d + j] - centre[j]) * roots[i];
  for (int64_t j = 0; j < d + 1; ++j) memset(columns + j * stride + n, 0, 16 * sizeof(T));
  memset(columns + (d + 1) * stride, 0, stride * sizeof(T));
}

// Of one matrix of rows that count w each: the mean in two words, and the scatter. Sums within a
// part are of the numbers' own type, and those of parts double: with m the mean so far and δ that
// of the part from it,
//   S' = S + Σ w (x − c)(x − c)ᵀ − s sᵀ/w + δδᵀ W w/(W + w),   s = Σ w (x − c).
template <class T>
void moments_of_rows(const T* x, const T* w, int64_t n, int64_t d, T* words, T* scatter,
                     void* scratch) {
  constexpr int W = width<T>;
  int64_t stride = column_of_part(d), most = rows_of_part(d);
  double *total = static_cast<double*>(scratch), *middle = total + d * d, *sums = middle + d;
  double *apart = sums + d, weight = 0;
  T* centre = reinterpret_cast<T*>(apart + d);
  T* columns = centre + d;
  memset(total, 0, (d * d + d) * sizeof(double));
  for (int64_t start = 0; start < n; start += most) {
    int64_t count = n - start < most ? n - start : most, padded = (count + W - 1) / W * W;
    const T *rows = x + start * d, *each = w + start;
    double own = 0;
    memset(centre, 0, d * sizeof(T));
    for (int64_t i = 0; i < count; ++i) {
      own += double(each[i]);
      for (int64_t j = 0; j < d; ++j) centre[j] += each[i] * rows[i * d + j];
    }
    double unit = own == 0 ? 1 : own;
    for (int64_t j = 0; j < d; ++j) centre[j] /= T(unit);
    store_columns(columns, rows, each, centre, count, d);
    double both = weight + own, share = own / (both == 0 ? 1 : both), strength = weight * share;
    for (int64_t j = 0; j < d; ++j) {
      sums[j] = double(dot_of_numbers(columns + j * stride, columns + d * stride, padded));
      apart[j] = double(centre[j]) + sums[j] / unit - middle[j];
    }
    for (int64_t i = 0; i < d; i += 2) {
      const T *a = columns + i * stride, *b = a + stride;
      for (int64_t j = 0; j <= i; j += 2) {
        const T *e = columns + j * stride, *f = e + stride;
        Vector<T> found[4] = {};
        for (int64_t k = 0; k < padded; k += W) {
          Vector<T> first = load(a + k), second = load(b + k), left = load(e + k);
          Vector<T> right = load(f + k);
          found[0] += first * left;
          found[1] += first * right;
          found[2] += second * left;
          found[3] += second * right;
        }
        for (int q = 0; q < 4; ++q) {
          int64_t r = i + q / 2, c = j + q % 2;
          if (r < d && c <= r)
            total[r * d + c] += (sum_of_lanes<T>(found[q]) - sums[r] * sums[c] / unit) +
                                strength * apart[r] * apart[c];
        }
      }
    }
    for (int64_t j = 0; j < d; ++j) middle[j] += share * apart[j];
    weight = both;
  }
  for (int64_t j = 0; j < d; ++j) {
    words[j] = T(middle[j]);
    words[d + j] = T(middle[j] - double(words[j]));
    for (int64_t k = 0; k <= j; ++k) scatter[j * d + k] = scatter[k * d + j] = T(total[j * d + k]);
  }
}

template <class T>
void moments(const Call& call, int64_t first, int64_t last, void* scratch) {
  int64_t n = call.in[0].rows, d = call.in[0].columns;
  for (int64_t i = first; i < last; ++i)
    moments_of_rows(matrix<T>(call.in[0], i), matrix<T>(call.in[1], i), n, d,
                    result<T>(call.out[0], i), result<T>(call.out[1], i), scratch);
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
