// Many small matrices side by side: lane l of a vector holds a number of matrix l.
//
// A kernel takes `width` matrices at a time. Their numbers are transposed into vectors, 16 bytes of
// each matrix at once, and what follows is the textbook algorithm of one matrix with vectors in
// place of numbers. A triangle is stored by rows without gaps: row i begins at i (i + 1) / 2.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

namespace gaussjax::GAUSSJAX_LEVEL {

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(64)));
  typedef int32_t Mask __attribute__((vector_size(64)));
  typedef float Piece __attribute__((vector_size(16), aligned(4), may_alias));
};

template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(64)));
  typedef int64_t Mask __attribute__((vector_size(64)));
  typedef double Piece __attribute__((vector_size(16), aligned(8), may_alias));
};

template <class T>
using Vector = typename Lanes<T>::V;
template <class T>
using Mask = typename Lanes<T>::Mask;
template <class T>
using Piece = typename Lanes<T>::Piece;

template <class T>
constexpr int width = 64 / sizeof(T);
template <class T>
constexpr int piece = 16 / sizeof(T);

template <class T>
Vector<T> all(T x) {
  return Vector<T>{} + x;
}

// Entries of a and b side by side, by their places.
template <int... places, class P>
P shuffled(P a, P b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, places...);
#else  // GCC before 12
  return __builtin_shuffle(a, b, decltype(a < b){places...});
#endif
}

// The square of `piece` numbers of as many matrices, transposed.
inline void transpose(Piece<float>* p) {
  auto a = shuffled<0, 4, 1, 5>(p[0], p[1]), b = shuffled<0, 4, 1, 5>(p[2], p[3]);
  auto c = shuffled<2, 6, 3, 7>(p[0], p[1]), d = shuffled<2, 6, 3, 7>(p[2], p[3]);
  p[0] = shuffled<0, 1, 4, 5>(a, b);
  p[1] = shuffled<2, 3, 6, 7>(a, b);
  p[2] = shuffled<0, 1, 4, 5>(c, d);
  p[3] = shuffled<2, 3, 6, 7>(c, d);
}

inline void transpose(Piece<double>* p) {
  auto a = shuffled<0, 2>(p[0], p[1]);
  p[1] = shuffled<1, 3>(p[0], p[1]);
  p[0] = a;
}

// Where `width` matrices of an operand begin: those beyond the last one are it again.
template <class T>
struct Source {
  const T* at[width<T>];

  Source(const Operand& x, int64_t first, int64_t last) {
    for (int l = 0; l < width<T>; ++l) {
      int64_t i = first + l < last ? first + l : last - 1;
      at[l] = static_cast<const T*>(x.data) + i * x.stride;
    }
  }

  // n numbers from `offset` on.
  void load(Vector<T>* out, int64_t offset, int64_t n) const {
    constexpr int P = piece<T>;
    if (at[0] == at[width<T> - 1]) {  // one matrix, or one that the batch shares
      for (int64_t c = 0; c < n; ++c) out[c] = all<T>(at[0][offset + c]);
      return;
    }
    int64_t whole = n - n % P;
    for (int l = 0; l < width<T>; l += P) {
      for (int64_t c = 0; c < whole; c += P) {
        Piece<T> p[P];
        for (int q = 0; q < P; ++q) memcpy(&p[q], at[l + q] + offset + c, sizeof(Piece<T>));
        transpose(p);
        for (int q = 0; q < P; ++q)
          memcpy(reinterpret_cast<T*>(out + c + q) + l, &p[q], sizeof(Piece<T>));
      }
    }
    for (int64_t c = whole; c < n; ++c)
      for (int l = 0; l < width<T>; ++l) out[c][l] = at[l][offset + c];
  }
};

// Where `count` matrices of a result begin.
template <class T>
struct Target {
  T* at[width<T>];
  int count;

  Target(const Operand& x, int64_t first, int64_t last)
      : count(last - first < width<T> ? static_cast<int>(last - first) : width<T>) {
    for (int l = 0; l < count; ++l) at[l] = static_cast<T*>(x.data) + (first + l) * x.stride;
  }

  void store(const Vector<T>* in, int64_t offset, int64_t n) const {
    constexpr int P = piece<T>;
    int64_t whole = count == width<T> ? n - n % P : 0;
    for (int l = 0; l < width<T> && whole > 0; l += P) {
      for (int64_t c = 0; c < whole; c += P) {
        Piece<T> p[P];
        for (int q = 0; q < P; ++q)
          memcpy(&p[q], reinterpret_cast<const T*>(in + c + q) + l, sizeof(Piece<T>));
        transpose(p);
        for (int q = 0; q < P; ++q) memcpy(at[l + q] + offset + c, &p[q], sizeof(Piece<T>));
      }
    }
    for (int64_t c = whole; c < n; ++c)
      for (int l = 0; l < count; ++l) at[l][offset + c] = in[c][l];
  }

  void zeros(int64_t offset, int64_t n) const {
    for (int l = 0; l < count; ++l) memset(at[l] + offset, 0, n * sizeof(T));
  }
};

constexpr int64_t triangle(int64_t d) { return d * (d + 1) / 2; }

template <class V>
V* row(V* a, int64_t i) {
  return a + triangle(i);
}

template <class T>
void load_lower(Vector<T>* a, const Source<T>& from, int64_t d) {
  for (int64_t i = 0; i < d; ++i) from.load(row(a, i), i * d, i + 1);
}

template <class T>
void store_lower(const Target<T>& to, const Vector<T>* a, int64_t d) {
  for (int64_t i = 0; i < d; ++i) {
    to.store(row(a, i), i * d, i + 1);
    to.zeros(i * d + i + 1, d - i - 1);
  }
}

template <class T>
Vector<T> root(Vector<T> x) {
  for (int l = 0; l < width<T>; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

template <>
inline Vector<float> root<float>(Vector<float> x) {
  for (int l = 0; l < width<float>; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
}

template <class T>
constexpr T epsilon = sizeof(T) == 4 ? T(0x1p-23) : T(0x1p-52);

template <class T>
Vector<T> magnitude(Vector<T> x) {
  return x < 0 ? -x : x;
}

// log x; −∞ for zero, NaN where x is negative or infinite.
inline float log_of_pivot(float x) {
  return x >= 0 && x < __builtin_inff() ? logf(x) : __builtin_nanf("");
}
inline double log_of_pivot(double x) {
  return x >= 0 && x < __builtin_inf() ? log(x) : __builtin_nan("");
}

template <class T>
bool any(Mask<T> mask) {
  bool found = false;
  for (int l = 0; l < width<T>; ++l) found |= mask[l] != 0;
  return found;
}

}  // namespace gaussjax::GAUSSJAX_LEVEL
