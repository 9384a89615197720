"""Roots of two covariances, rotated to be as close as possible.

With A = F Fᵀ and B = G Gᵀ, the least ‖F − G U‖ over orthogonal U is the 2-Wasserstein distance of
N(0, A) and N(0, B), and found by the polar factor U of GᵀF. As a length it has an error of rounding
times ‖F‖, where the difference tr A + tr B − 2 tr(B^½A B^½)^½ has the root of that.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import lapack
from gaussjax.linalg.products import dot


def procrustes(f: Float[Array, "d k"], g: Float[Array, "d m"]) -> Float[Array, ""]:
    """The least ‖F − G U‖², zeros filling up the root with fewer columns. O(d k m)

    Zero where F and G are equal, and with a zero gradient there.
    """
    if 0 in f.shape or 0 in g.shape:
        return jnp.sum(jnp.square(f)) + jnp.sum(jnp.square(g))
    return _procrustes(f, g) if f.shape[1] <= g.shape[1] else _procrustes(g, f)


# U is where the distance is least: what it changes by counts for nothing. With m ≥ k, the part of
# G that U leaves out is G (I − U Uᵀ).
@jax.custom_jvp
def _procrustes(f: Array, g: Array) -> Array:
    _, difference, rest = _aligned(f, g)
    return jnp.sum(jnp.square(difference)) + jnp.sum(jnp.square(rest))


@_procrustes.defjvp
def _(primals, tangents):
    df, dg = tangents
    u, difference, rest = _aligned(*primals)
    moved = jnp.sum(difference * (df - dot(dg, u))) + jnp.sum(rest * dg)
    return _procrustes(*primals), 2 * moved


def _aligned(f: Array, g: Array) -> tuple[Array, Array, Array]:
    """U, F − G U and G (I − U Uᵀ)."""
    u = polar(dot(g.T, f))
    if f.shape != g.shape:
        turned = dot(g, u)
        return u, f - turned, g - dot(turned, u.T)
    # The identity is another U, and the better one where rounding is all that is left.
    difference = f - g
    plain, best = (jnp.sum(jnp.square(x)) for x in (difference, f - dot(g, u)))
    one = jnp.eye(len(u), dtype=u.dtype)
    u = jnp.where(plain <= best, u + lax.stop_gradient(one - u), u)
    u = jnp.where(plain <= best, _exactly(one, u), u)
    return u, f - dot(g, u), jnp.zeros_like(g)


@jax.custom_jvp
def _exactly(value: Array, like: Array) -> Array:
    """A value with the derivative of another."""
    return value


@_exactly.defjvp
def _(primals, tangents):
    return _exactly(*primals), tangents[1]


# F = L Q for Q of orthonormal rows, and as any root of A will do, dL = dF Qᵀ to first order.
@jax.custom_jvp
def reduced(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """A square root of F Fᵀ for k ≥ d, with a first derivative that no zero pivot disturbs."""
    return dot(factor, _basis(factor))


@reduced.defjvp
def _(primals, tangents):
    (factor,), (dfactor,) = primals, tangents
    return reduced(factor), dot(dfactor, _basis(factor))


@jax.custom_jvp
def _basis(factor: Array) -> Array:
    return lapack.qr_basis(factor.T)


@_basis.defjvp
def _(primals, tangents):  # a second derivative would need it, and there is none
    return _basis(*primals), jnp.full_like(primals[0].T, jnp.nan) * jnp.sum(tangents[0])


# With N = U H, UᵀU = I and H = Hᵀ, it is dU = U Ω + (I − U Uᵀ) dN H⁻¹ for the skew Ω with
#   Ω H + H Ω = UᵀdN − dNᵀU.
@jax.custom_jvp
def polar(matrix: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """U with orthonormal columns (rows if m < k) and the largest tr(UᵀN). O(m k min(m, k))

    Its derivative is the least one where N is singular, and it is not unique.
    """
    if 0 in matrix.shape:
        return matrix
    left, values, right = lapack.singular(matrix)
    return dot(left, right) + 0 * values[0]  # NaN where N is not finite


@polar.defjvp
def _(primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    if 0 in matrix.shape:
        return matrix, dmatrix
    if matrix.shape[0] < matrix.shape[1]:
        u, du = jax.jvp(polar, (matrix.T,), (dmatrix.T,))
        return u.T, du.T
    u = polar(matrix)
    h = dot(u.T, matrix)
    h = 0.5 * (h + h.T)
    _, values, right = lapack.singular(lax.stop_gradient(matrix))
    sums = values[:, None] + values[None]
    least = len(values) * float(jnp.finfo(values.dtype).eps) * values[0]

    def inverse(x: Array) -> Array:
        return jnp.where(x <= least, 0.0, 1 / jnp.where(x <= least, 1.0, x))

    def by_sums(_, rhs):
        inner = dot(right, dot(rhs, right.T)) * inverse(sums)
        return dot(right.T, dot(inner, right))

    skew = dot(u.T, dmatrix)
    omega = lax.custom_linear_solve(
        lambda x: dot(x, h) + dot(h, x), skew - skew.T, by_sums, symmetric=True
    )
    du = dot(u, omega)
    if matrix.shape[0] > matrix.shape[1]:
        outside = dmatrix - dot(u, skew)
        du = du + lax.custom_linear_solve(
            lambda x: dot(x, h),
            outside,
            lambda _, c: dot(dot(c, right.T) * inverse(values)[None], right),
            symmetric=True,
        )
    return u, du
