"""The trace tr(B⁻¹A) of two covariances, from their roots.

With A = L Lᵀ, B = K Kᵀ and M = K⁻¹L it is ‖M‖², a sum of squares in which L may be singular. Twice
a cross entropy is that, the squared length ‖w‖² of w = K⁻¹v for the shift v between the means, and
a log-determinant of B; the first two share a solve and a gradient, so they are one function here.

A root is an array of one Gaussian: `(d, d)` a lower triangle, `(d,)` the diagonal of one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE, WRITTEN
from gaussjax.linalg.products import product_with_transpose
from gaussjax.linalg.ranges import quotient
from gaussjax.linalg.triangular import solve, solve_triangle


def trace_of_roots(a: Array, b: Array, shift: Float[Array, " d"]) -> Float[Array, ""]:
    """tr(B⁻¹A) + ‖K⁻¹v‖² of two triangular roots. O(d) for two diagonals, else O(d³)"""
    if a.ndim == b.ndim == 1:
        b = jnp.where(b > 0, b, jnp.nan)
        return jnp.sum(jnp.square(quotient(a, b)) + jnp.square(quotient(shift, b)))
    if shift.shape[0] == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return jnp.zeros((), shift.dtype)
    a, b = (jnp.diag(x) if x.ndim == 1 else x for x in (a, b))
    return _trace(a, b, shift)


# The differential is 2⟨G_A, dL⟩ + 2⟨G_B, dK⟩ + 2⟨u, dv⟩, with H = K⁻ᵀM and u = K⁻ᵀw:
#   G_A = tril(H),   G_B = −tril(H Mᵀ + u wᵀ).
@jax.custom_jvp
def _trace(a: Array, b: Array, shift: Array) -> Array:
    return _value(a, b, shift)


@_trace.defjvp
def _(primals, tangents):
    products = [jnp.sum(g * t) for g, t in zip(_gradients(*primals), tangents, strict=True)]
    return _trace(*primals), 2 * small.total(products)


def _fused(a: Array, b: Array, shift: Array) -> Array:
    columns, w = small.quotient(a, b, shift)
    return small.total([x * x for column in (*columns, w) for x in column])


@kernel("d d, d d, d -> ()", written=_fused, tile=None, native="trace", fused=WRITTEN)
def _value(a: Array, b: Array, shift: Array) -> Array:
    b = jnp.where(jnp.all(jnp.diagonal(b) > 0), b, jnp.nan)  # two wrong signs look right
    m, w = solve_triangle(b, a), solve(b, shift)
    return jnp.sum(jnp.square(m)) + jnp.sum(jnp.square(w))


@jax.custom_jvp
def _gradients(a: Array, b: Array, shift: Array) -> tuple[Array, Array, Array]:
    return _gradients_of_batch(a, b, shift)


@_gradients.defjvp
def _(primals, tangents):
    return _gradients(*primals), jax.jvp(_gradients_by_solves, primals, tangents)[1]


def _gradients_by_solves(a: Array, b: Array, shift: Array) -> tuple[Array, Array, Array]:
    m, w = solve_triangle(b, a), solve(b, shift)
    h = solve_triangle(b, m, transpose=True)
    return _gradients_from(m, w, h, solve(b, w, transpose=True))


_gradients_of_batch = kernel(
    "d d, d d, d -> d d, d d, d",
    written=small.quotient_gradients, tile=TILE, native="trace_gradients",
)(_gradients_by_solves)  # fmt: skip


def _gradients_from(m: Array, w: Array, h: Array, u: Array) -> tuple[Array, Array, Array]:
    return h, -(product_with_transpose(h, m) + jnp.tril(jnp.outer(u, w))), u
