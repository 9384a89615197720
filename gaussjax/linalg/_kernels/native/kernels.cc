// The kernels and their table, for one level of SIMD instructions.

#include "kernels.h"

#include "divergence.h"
#include "factor.h"
#include "moments.h"
#include "observe.h"
#include "roots.h"
#include "triangular.h"

namespace gaussjax::GAUSSJAX_LEVEL {
namespace {

#define GAUSSJAX_BOTH(function) function<float>, function<double>

constexpr Kernel kernels[kernel_count] = {
    {"cholesky", 1, 1, {2, 2}, triangles<2>, GAUSSJAX_BOTH(cholesky)},
    {"cholesky_cotangent", 2, 1, {2, 2, 2}, triangles<3>, GAUSSJAX_BOTH(cholesky_cotangent)},
    {"divergence", 3, 1, {2, 2, 1, 0}, triangles<3>, GAUSSJAX_BOTH(divergence)},
    {"divergence_gradients",
     3,
     3,
     {2, 2, 1, 2, 2, 1},
     triangles<5>,
     GAUSSJAX_BOTH(divergence_gradients)},
    {"trace", 3, 1, {2, 2, 1, 0}, triangles<3>, GAUSSJAX_BOTH(trace)},
    {"trace_gradients", 3, 3, {2, 2, 1, 2, 2, 1}, triangles<5>, GAUSSJAX_BOTH(trace_gradients)},
    {"solve_lower", 2, 1, {2, 2, 2}, triangle_and_matrix, GAUSSJAX_BOTH(solve_lower)},
    {"solve_lower_transpose",
     2,
     1,
     {2, 2, 2},
     triangle_and_matrix,
     GAUSSJAX_BOTH(solve_lower_transpose)},
    {"solutions", 2, 2, {2, 1, 1, 1}, triangles<1>, GAUSSJAX_BOTH(solutions), true},
    {"product", 2, 1, {2, 1, 1}, triangles<0>, GAUSSJAX_BOTH(product)},
    {"inv_quad", 2, 1, {2, 1, 0}, triangles<0>, GAUSSJAX_BOTH(inv_quad), true},
    {"triangular_root", 1, 1, {2, 2}, triangle_and_rows, GAUSSJAX_BOTH(triangular_root)},
    {"rank_revealing_root", 1, 1, {2, 2}, triangle_and_rows, GAUSSJAX_BOTH(rank_revealing_root)},
    {"orthonormal_rows",
     1,
     2,
     {2, 2, 2},
     orthonormal_scratch,
     GAUSSJAX_BOTH(orthonormal_rows),
     true},
    {"moments", 2, 2, {2, 1, 2, 2}, moments_scratch, GAUSSJAX_BOTH(moments), true},
    {"root_of_sum", 2, 1, {2, 2, 2}, sum_scratch, GAUSSJAX_BOTH(root_of_sum)},
    {"reordered_root", 1, 1, {2, 2}, triangle_and_rows, GAUSSJAX_BOTH(reordered_root)},
    {"root_cotangent", 3, 1, {2, 2, 2, 2}, root_cotangent_scratch, GAUSSJAX_BOTH(root_cotangent)},
    {"condition_triangle",
     2,
     4,
     {2, 1, 1, 2, 0, 0},
     condition_scratch,
     GAUSSJAX_BOTH(condition_triangle)},
    {"exchange", 3, 3, {2, 2, 1, 2, 2, 2}, exchange_scratch, GAUSSJAX_BOTH(exchange)},
    {"exchange_cotangents",
     7,
     3,
     {2, 2, 2, 2, 2, 2, 0, 2, 2, 2},
     exchange_cotangents_scratch,
     GAUSSJAX_BOTH(exchange_cotangents)},
    {"observe", 4, 4, {2, 2, 2, 1, 1, 2, 0, 0}, observe_scratch, GAUSSJAX_BOTH(observe)},
};

}  // namespace

const Kernel* table() { return kernels; }

}  // namespace gaussjax::GAUSSJAX_LEVEL
