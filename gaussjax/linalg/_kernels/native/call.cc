// How XLA calls the kernels: its buffers become operands, and its threads share the batch.

#include <atomic>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "kernels.h"
#include "vendor/xla_ffi_c_api.h"

namespace gaussjax {

namespace baseline {
const Kernel* table();
}
#ifdef GAUSSJAX_X86
namespace v3 {
const Kernel* table();
}
namespace v4 {
const Kernel* table();
}
#endif

namespace {

constexpr int64_t kVector = 64;             // bytes, as in lanes.h
constexpr int64_t kWorthSharing = 1 << 18;  // numbers times steps, about 100 µs of work
constexpr int kChunksPerThread = 8;
constexpr int kOperands = 8;

#ifdef GAUSSJAX_X86
// What kernels use of a level: GCC 11 and Clang 14 do not know the levels' names here.
bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

// The best level that this machine has.
const Kernel* best() {
#ifdef GAUSSJAX_X86
  if (has_v4()) return v4::table();
  if (has_v3()) return v3::table();
#endif
  return baseline::table();
}

const Kernel* table() {
  static const Kernel* found = best();
  return found;
}

struct Scratch {
  Scratch() = default;
  ~Scratch() { ::operator delete(data, std::align_val_t(kVector)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* of(int64_t wanted) {
    if (wanted > vectors) {
      ::operator delete(data, std::align_val_t(kVector));
      data = ::operator new(wanted * kVector, std::align_val_t(kVector));
      vectors = wanted;
    }
    return data;
  }

  void* data = nullptr;
  int64_t vectors = 0;
};

// A thread keeps what small matrices need: memory that is new to it costs more than they do.
constexpr int64_t kKept = 1 << 14;
thread_local Scratch kept;

// A batch in chunks that whoever is free takes. The caller takes part and waits only for chunks
// that another thread has begun: a thread that comes late finds none left. So two calls at once
// cannot wait for each other, however few threads there are.
struct Batch {
  Operand in[kOperands], out[kOperands];
  const int64_t* order;  // of the program, which outlives the call
  bool single;
  Function function;
  int64_t size, lanes, chunk, vectors, chunks;
  std::atomic<int64_t> next{0}, done{0};

  void work() {
    if (next.load(std::memory_order_relaxed) >= chunks) return;
    Scratch own;
    void* scratch = (vectors <= kKept ? kept : own).of(vectors);
    Call call{in, out, order, single};
    for (int64_t c; (c = next.fetch_add(1)) < chunks; done.fetch_add(1)) {
      int64_t end = (c + 1) * chunk < size ? (c + 1) * chunk : size;
      for (int64_t i = c * chunk; i < end; i += lanes)
        function(call, i, i + lanes < end ? i + lanes : end, scratch);
    }
  }
};

XLA_FFI_Error* error(const XLA_FFI_Api* api, const char* message) {
  XLA_FFI_Error_Create_Args args{XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message,
                                 XLA_FFI_Error_Code_INVALID_ARGUMENT};
  return api->XLA_FFI_Error_Create(&args);
}

// One more axis than `rank` is that of the batch.
Operand operand(const XLA_FFI_Buffer& buffer, int rank) {
  const int64_t* dims = buffer.dims + (buffer.rank - rank);
  int64_t rows = rank > 0 ? dims[0] : 1, columns = rank > 1 ? dims[1] : 1;
  return {buffer.data, buffer.rank > rank ? rows * columns : 0, rows, columns};
}

// The one attribute that a kernel may have.
const int64_t* order(const XLA_FFI_Attrs& attrs) {
  for (int64_t i = 0; i < attrs.size; ++i)
    if (attrs.types[i] == XLA_FFI_AttrType_ARRAY)
      return static_cast<const int64_t*>(static_cast<XLA_FFI_Array*>(attrs.attrs[i])->data);
  return nullptr;
}

int64_t threads(const XLA_FFI_CallFrame* frame) {
  int64_t count = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args{XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr,
                                          frame->ctx, &count};
  if (XLA_FFI_Error* failed = frame->api->XLA_FFI_ThreadPool_NumThreads(&args)) {
    XLA_FFI_Error_Destroy_Args destroy{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, failed};
    frame->api->XLA_FFI_Error_Destroy(&destroy);
    return 1;
  }
  return count;
}

void help(void* data) {
  auto* batch = static_cast<std::shared_ptr<Batch>*>(data);
  (*batch)->work();
  delete batch;
}

void share(const XLA_FFI_CallFrame* frame, const std::shared_ptr<Batch>& batch, int64_t helpers) {
  for (int64_t i = 0; i < helpers; ++i) {
    auto* data = new std::shared_ptr<Batch>(batch);
    XLA_FFI_ThreadPool_Schedule_Args args{XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr,
                                          frame->ctx, help, data};
    if (XLA_FFI_Error* failed = frame->api->XLA_FFI_ThreadPool_Schedule(&args)) {
      XLA_FFI_Error_Destroy_Args destroy{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, failed};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      delete data;
      return;
    }
  }
}

XLA_FFI_Error* run(const Kernel& kernel, XLA_FFI_CallFrame* frame) {
  if (frame->args.size != kernel.inputs || frame->rets.size != kernel.outputs)
    return error(frame->api, "gaussjax: a kernel was called with other operands than it has");
  auto batch = std::make_shared<Batch>();
  auto buffer = [](void* x) -> const XLA_FFI_Buffer& { return *static_cast<XLA_FFI_Buffer*>(x); };
  for (int i = 0; i < kernel.inputs; ++i)
    batch->in[i] = operand(buffer(frame->args.args[i]), kernel.ranks[i]);
  for (int i = 0; i < kernel.outputs; ++i)
    batch->out[i] = operand(buffer(frame->rets.rets[i]), kernel.ranks[kernel.inputs + i]);
  const XLA_FFI_Buffer& result = buffer(frame->rets.rets[0]);
  bool batched = result.rank > kernel.ranks[kernel.inputs];
  batch->size = batched ? result.dims[0] : 1;
  bool is_double = result.dtype == XLA_FFI_DataType_F64;
  if (!is_double && result.dtype != XLA_FFI_DataType_F32)
    return error(frame->api, "gaussjax: kernels are for float32 and float64");
  batch->function = is_double ? kernel.float64 : kernel.float32;
  int64_t d = batch->in[0].rows, n = batch->size;
  if (n == 0) return nullptr;
  batch->vectors = kernel.scratch(batch->in);
  batch->order = order(frame->attrs);
  batch->single = kernel.single && (is_large(batch->in[0]) || n < kFew);
  batch->lanes = batch->single ? 1 : kVector / (is_double ? 8 : 4);
  int64_t groups = (n + batch->lanes - 1) / batch->lanes;
  double work = double(n) * double(d) * double(d) * double(8 + d) / 8;  // d may be many rows
  int64_t helpers = work < double(kWorthSharing) ? 0 : threads(frame) - 1;
  if (helpers >= groups) helpers = groups - 1;
  int64_t parts = helpers > 0 ? (helpers + 1) * kChunksPerThread : 1;
  batch->chunk = batch->lanes * ((groups + parts - 1) / parts);
  batch->chunks = (n + batch->chunk - 1) / batch->chunk;
  if (helpers > 0) share(frame, batch, helpers);
  batch->work();
  while (batch->done.load(std::memory_order_acquire) < batch->chunks) std::this_thread::yield();
  return nullptr;
}

// XLA asks once which version of its interface a handler was compiled for.
bool is_question(XLA_FFI_CallFrame* frame) {
  auto* extension = frame->extension_start;
  if (extension == nullptr || extension->type != XLA_FFI_Extension_Metadata) return false;
  auto* metadata = reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return true;
}

template <int index>
XLA_FFI_Error* handler(XLA_FFI_CallFrame* frame) {
  return is_question(frame) ? nullptr : run(table()[index], frame);
}

template <int... indices>
XLA_FFI_Handler* handler_of(int index, std::integer_sequence<int, indices...>) {
  XLA_FFI_Handler* handlers[] = {handler<indices>...};
  return handlers[index];
}

}  // namespace
}  // namespace gaussjax

#define GAUSSJAX_VISIBLE extern "C" __attribute__((visibility("default")))

GAUSSJAX_VISIBLE int gaussjax_kernel_count() { return gaussjax::kernel_count; }

// Of which files it was built: `build.py` says how.
GAUSSJAX_VISIBLE const char* gaussjax_sources() { return GAUSSJAX_SOURCES; }

GAUSSJAX_VISIBLE const char* gaussjax_name(int index) { return gaussjax::table()[index].name; }

GAUSSJAX_VISIBLE void* gaussjax_handler(int index) {
  using Indices = std::make_integer_sequence<int, gaussjax::kernel_count>;
  return reinterpret_cast<void*>(gaussjax::handler_of(index, Indices{}));
}
