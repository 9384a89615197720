// What `call.cc` and the kernels know of each other: plain data, so that the kernels can be
// compiled once for each level of SIMD instructions.

#pragma once

#include <stdint.h>

namespace gaussjax {

// A batch of matrices or vectors, in one array.
struct Operand {
  void* data;
  int64_t stride;   // from one to the next, in numbers; 0 where the batch shares one
  int64_t rows;     // of a matrix, or the entries of a vector
  int64_t columns;  // 1 for a vector
};

// A larger matrix, or fewer of them, goes by itself where a kernel has a way for it.
constexpr int64_t kLarge = 256, kFew = 8;

inline bool is_large(const Operand& x) { return x.rows > kLarge || x.columns > kLarge; }

struct Call {
  const Operand* in;
  const Operand* out;
  const int64_t* order;  // of rows, for kernels that take one
  bool single;           // one matrix at a time, for kernels that have a way of their own for it
};

// Of matrices `first` to `last` − 1, as many as there are lanes.
using Function = void (*)(const Call&, int64_t first, int64_t last, void* scratch);

struct Kernel {
  const char* name;
  int inputs, outputs;
  int ranks[10];                          // of one input, then of one output
  int64_t (*scratch)(const Operand* in);  // vectors that it works in
  Function float32, float64;
  bool single = false;  // whether it has a way of its own for one matrix
};

constexpr int kernel_count = 22;

}  // namespace gaussjax
