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
from gaussjax.linalg.products import dot, with_derivative_of
from gaussjax.linalg.ranges import lengths, unit_of
from gaussjax.linalg.triangular import solve


def procrustes(f: Float[Array, "d k"], g: Float[Array, "d m"]) -> Float[Array, ""]:
    """The least ‖F − G U‖², zeros filling up the root with fewer columns. O(d k m)

    Zero where F and G are equal, and with a zero gradient there.
    """
    if 0 in f.shape or 0 in g.shape:
        return jnp.sum(jnp.square(f)) + jnp.sum(jnp.square(g))
    if f.shape[1] > g.shape[1]:
        f, g = g, f
    return _squares(f, g, _turn(f, g))


# U is where the distance is least: what it changes by counts for nothing. With m ≥ k, the part of
# G that U leaves out is G (I − U Uᵀ).
@jax.custom_jvp
def _squares(f: Array, g: Array, u: Array) -> Array:
    difference, rest = _differences(f, g, u)
    return jnp.sum(jnp.square(difference)) + jnp.sum(jnp.square(rest))


@_squares.defjvp
def _(primals, tangents):
    (_, _, u), (df, dg, _) = primals, tangents
    difference, rest = _differences(*primals)
    moved = jnp.sum(difference * (df - dot(dg, u))) + jnp.sum(rest * dg)
    return _squares(*primals), 2 * moved


def _differences(f: Array, g: Array, u: Array) -> tuple[Array, Array]:
    """F − G U and G (I − U Uᵀ)."""
    turned = dot(g, u)
    return f - turned, jnp.zeros_like(g) if f.shape == g.shape else g - dot(turned, u.T)


def _turn(f: Array, g: Array) -> Array:
    """U."""
    u = rotation(f, g)
    if f.shape != g.shape:
        return u
    # The identity is another U, and the better one where rounding is all that is left.
    plain, best = (jnp.sum(jnp.square(f - x)) for x in (g, dot(g, u)))
    # JAX cannot lower a value without a batch whose derivative has one: the choice comes first.
    chosen = jnp.where(plain <= best, jnp.eye(len(u), dtype=u.dtype), u)
    return with_derivative_of(chosen, u)


def rotation(f: Float[Array, "d k"], g: Float[Array, "d m"]) -> Float[Array, "m k"]:
    """The polar factor of GᵀF, with F and G in units of their own so that no product underflows."""
    f, g = (x / unit_of(jnp.max(jnp.abs(x), initial=0)) for x in (f, g))
    return polar(dot(g.T, f))


# F = R Qᵀ for Q of orthonormal columns. As any root of A will do, to first order it is dR = dF Q,
# which leaves Q where it is; (dR) Qᵀ + R dQᵀ = dF then gives dQᵀ = R⁻¹ dF (I − Q Qᵀ).
@jax.custom_jvp
def reduced(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """A square root of F Fᵀ for k ≥ d, with a first derivative that no zero pivot disturbs.

    Derivatives are right for functions of F Fᵀ; second ones are NaN where that is singular.
    """
    return lapack.qr_triangle(factor.T).T


@reduced.defjvp
def _(primals, tangents):
    (factor,), (dfactor,) = primals, tangents
    return reduced(factor), dot(dfactor, _basis(factor))


@jax.custom_jvp
def _basis(factor: Array) -> Array:
    return lapack.qr_basis(factor.T)


@_basis.defjvp
def _(primals, tangents):
    (factor,), (dfactor,) = primals, tangents
    basis, root = _basis(factor), reduced(factor)
    outside = dfactor - dot(dot(dfactor, basis), basis.T)
    return basis, _solved(root, outside).T


def _solved(root: Array, rows: Array) -> Array:
    """R⁻¹ B of a triangle whose pivots may be negative; NaN where one is zero, to rounding."""
    pivots = jnp.diagonal(root)
    noise = rows.shape[1] * float(jnp.finfo(root.dtype).eps) * lax.stop_gradient(lengths(root))
    signs = jnp.where(pivots < -noise, -1.0, jnp.where(pivots > noise, 1.0, jnp.nan))
    signs = signs.astype(root.dtype)
    return signs[:, None] * solve(root * signs[None], rows)


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
