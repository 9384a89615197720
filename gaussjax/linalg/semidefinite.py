"""Σ = F Fᵀ of a root F with any columns, and its support, the subspace that it reaches.

Rows are scaled to length one before anything counts as zero, so units do not matter: a singular
value up to max(d, k) ε of the largest is rounding noise, and a vector within 10³ ε of the support
(of its own length and of a standard deviation) is on it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from gaussjax.linalg._kernels import lapack, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.roots import tangent_of_root, triangular_root
from gaussjax.linalg.triangular import (
    inv_quad_lower,
    logdet_of_triangle,
    solve,
    without_zero_pivots,
)


class OnSupport(NamedTuple):
    """Squared distance ‖F⁺v‖² (∞ off the support), log of the product of eigenvalues, dimension."""

    distance: Float[Array, ""]
    logdet: Float[Array, ""]
    dim: Float[Array, ""]


def rank(factor: Float[Array, "d k"]) -> Int[Array, ""]:
    """Number of independent rows of F, zero where an entry is not finite. O(d² k)"""
    rows, _ = _unit_rows(lax.stop_gradient(factor))
    return jnp.sum(_is_kept(lapack.left_singular(rows)[1], factor))


def principal_axes(
    factor: Float[Array, "d k"],
) -> tuple[Float[Array, "d m"], Float[Array, " m"]]:
    """U and σ of F Fᵀ = U diag(σ²) Uᵀ, m = min(d, k), σ descending: deviations along axes.

    σ is NaN where an entry is not finite. O(d k m)
    """
    return lapack.left_singular(factor)


@jax.custom_jvp
def rank_revealing_root(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Lower L with L Lᵀ = F Fᵀ, a column exactly zero where a row depends on others. O(d² (d + k))

    With rows of length one, a row depends on those before it if what is left of it is no more than
    what rounding of all of them leaves: max(d, k) ε (1 + |x|) for the coefficients x that give it.
    """
    return _by_rows(factor)


@rank_revealing_root.defjvp
def _(primals, tangents):
    lower = rank_revealing_root(*primals)
    return lower, tangent_of_root(lower, *primals, *tangents)


@jax.custom_jvp
def square_root(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """L as `rank_revealing_root` has it, as a matrix that need not stay a triangle. O(d² (d + k))

    First derivatives are right for functions of L Lᵀ even where F is singular, and all where it is
    not.
    """
    return _by_rows(factor)


# A triangle cannot express how a dependent row comes to share noise with later ones. But with the
# orthonormal columns V = (L⁺F)ᵀ that span the rows of F, Fᵀ = V Lᵀ, dF V is a derivative:
#   (dF V) Lᵀ + L (dF V)ᵀ = dF Fᵀ + F dFᵀ.
# Where F is regular that of the triangle is taken, which has derivatives of its own.
@square_root.defjvp
def _(primals, tangents):
    (factor,), (dfactor,) = primals, tangents
    lower = square_root(factor)
    zero, regular = without_zero_pivots(lower)
    columns = jnp.where(zero[:, None], 0.0, solve(regular, factor)).T
    triangle = tangent_of_root(lower, factor, dfactor)
    return lower, jnp.where(jnp.any(zero), dot(dfactor, columns), triangle)


@kernel("d k -> d d", tile=TILE, native="rank_revealing_root")
def _by_rows(factor: Array) -> Array:
    """Modified Gram-Schmidt on the rows: LAPACK's QR would not skip a dependent one."""
    rows, sizes = _unit_rows(factor)
    if 0 in factor.shape:
        return jnp.zeros((len(rows), len(rows)), factor.dtype)
    positions = jnp.arange(len(rows))

    def step(state: tuple[Array, Array, Array], j: Array) -> tuple[Any, None]:
        rows, lower, inverse = state  # inverse: unit vectors as combinations of the rows
        norm, x = jnp.sqrt(jnp.sum(jnp.square(rows[j]))), dot(lower[j], inverse)
        depends = norm <= _noise(factor) * (1 + jnp.sqrt(jnp.sum(jnp.square(x))))
        shrink = jnp.where(depends, 0.0, 1 / jnp.where(depends, 1.0, norm))
        unit, is_own = rows[j] * shrink, positions == j
        own = is_own.astype(x.dtype)
        column = jnp.where(positions > j, dot(rows, unit), 0.0)
        column = jnp.where(is_own, jnp.where(depends, 0.0, norm), column)
        lower = jnp.where(is_own[None], column[:, None], lower)
        inverse = jnp.where(is_own[:, None], (own - x)[None] * shrink, inverse)
        return (rows - column[:, None] * unit[None], lower, inverse), None

    zero = jnp.zeros((len(rows), len(rows)), rows.dtype)
    (_, lower, _), _ = lax.scan(step, (rows, zero, zero), positions)
    return lower * sizes[:, None]


class Support(NamedTuple):
    """The range of a root F = diag(sizes) U T: orthonormal columns U, of which some are kept."""

    sizes: Float[Array, " d"]  # lengths of the rows of F, 1 of those that are zero
    basis: Float[Array, "d m"]  # U
    kept: Bool[Array, " m"]


def support_of(factor: Float[Array, "d k"]) -> Support:
    """The range of F, a constant to derivatives. O(d k min(d, k))"""
    factor = lax.stop_gradient(factor)
    rows, sizes = _unit_rows(factor)
    basis, values = lapack.left_singular(rows)
    return Support(sizes, basis, _is_kept(values, factor))


def coordinates(support: Support, array: Float[Array, "d ..."]) -> Float[Array, "m ..."]:
    """Uᵀ diag(1/sizes) times a vector or a matrix, zero in what is not kept."""
    inside = dot(support.basis.T, array / _column(support.sizes, array))
    return jnp.where(_column(support.kept, inside), inside, 0.0)


def root_within(support: Support, factor: Float[Array, "d k"]) -> Float[Array, "m m"]:
    """Lower L with L Lᵀ = T Tᵀ in what is kept, and the identity in the rest."""
    rest = jnp.diag((~support.kept).astype(factor.dtype))
    return triangular_root(jnp.concatenate([coordinates(support, factor), rest], axis=1))


def volume(support: Support) -> Float[Array, ""]:
    """log|Uᵀ diag(sizes²) U| of the columns kept: the product of eigenvalues depends on units."""
    columns = jnp.where(support.kept[None], support.sizes[:, None] * support.basis, 0.0)
    rest = jnp.diag((~support.kept).astype(columns.dtype))
    return 2 * logdet_of_triangle(triangular_root(jnp.concatenate([columns.T, rest], axis=1)))


def is_outside(scaled: Float[Array, " d"], inside: Float[Array, " d"]) -> Bool[Array, ""]:
    """Whether a vector, in units of standard deviations, has more than its part in the support."""
    rest, size = (jnp.max(jnp.abs(x), initial=0) for x in (scaled - inside, scaled))
    return rest > small.NEAR * _eps(scaled) * (1 + size)


def on_support(factor: Float[Array, "d k"], vector: Float[Array, " d"]) -> OnSupport:
    """What the density on the support is made of. O(d k min(d, k))

    Σ is diag(sizes) U T Tᵀ Uᵀ diag(sizes), and T Tᵀ is regular. The derivatives hold for changes
    that leave the support where it is.
    """
    support = support_of(factor)
    inside, lower = coordinates(support, vector), root_within(support, factor)
    is_off = is_outside(vector / support.sizes, dot(support.basis, inside))
    distance = jnp.where(is_off, jnp.inf, inv_quad_lower(lower, inside))
    logdet = 2 * logdet_of_triangle(lower) + volume(support)
    return valid_if(jnp.all(jnp.isfinite(factor)), distance, logdet, jnp.sum(support.kept))


def valid_if(valid: Array, distance: Array, logdet: Array, dim: Array) -> OnSupport:
    """These three, the distance NaN unless Σ is valid."""
    distance = jnp.where(valid, distance, jnp.nan)
    return OnSupport(distance, logdet, dim.astype(distance.dtype))


def semidefinite_root(
    matrix: Float[Array, "d d"], tolerance: float, rank: int
) -> Float[Array, "d k"]:
    """F = U Λ^{½} of a symmetric A; eigenvalues up to `tolerance` of the largest count as zero.

    The `rank` columns with the largest eigenvalues. NaN where an eigenvalue is negative
    beyond the tolerance. Its derivatives are right for functions of F Fᵀ. O(d³)
    """
    dropped = len(matrix) - rank
    limits = jnp.array(tolerance, matrix.dtype), jnp.array(dropped)
    return _kept_columns(matrix, *limits)[:, dropped:]


# With X = dA F (FᵀF)⁺ and the projection P on the range of F, dF = X − ½ P X gives
#   dF Fᵀ + F dFᵀ = P dA + dA P − P dA P,
# which is dA but for what would leave the range. No difference of eigenvalues occurs.
@jax.custom_jvp
def _kept_columns(matrix: Array, tolerance: Array, dropped: Array) -> Float[Array, "d d"]:
    """U Λ^{½}, zero in what the tolerance takes for zero and in the columns dropped."""
    packed = lapack.eigh(matrix)
    vectors, values = packed[:, :-1], packed[:, -1]
    limit = tolerance * jnp.max(jnp.abs(values), initial=0)
    values = jnp.where(jnp.all(values >= -limit), values, jnp.nan)
    kept = ~(values <= limit) & (jnp.arange(len(values)) >= dropped)
    return vectors * jnp.where(kept, jnp.sqrt(jnp.maximum(values, 0.0)), 0.0)[None]


@_kept_columns.defjvp
def _(primals, tangents):
    factor, dmatrix = _kept_columns(*primals), tangents[0]
    gram = dot(factor.T, factor)  # diagonal, but its derivatives are not
    values = lax.stop_gradient(jnp.diagonal(gram))
    inverse = jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1.0), 0.0)
    inverse = jnp.where(jnp.isnan(values), jnp.nan, inverse)

    def by_gram(columns):  # (FᵀF)⁺ C
        return lax.custom_linear_solve(
            lambda x: dot(gram, x),
            columns,
            lambda _, c: inverse[:, None] * c,
            symmetric=True,
        )

    x = by_gram(dot(factor.T, dmatrix)).T  # dA is symmetric
    return factor, x - 0.5 * dot(factor, by_gram(dot(factor.T, x)))


def _column(x: Array, like: Array) -> Array:
    return x.reshape(*x.shape, *[1] * (like.ndim - 1))


def _unit_rows(factor: Array) -> tuple[Array, Array]:
    """F with rows of length one, or zero, and their lengths: 1 of those that are zero."""
    sizes = small.nonzero(lengths(factor))
    return factor / sizes[:, None], sizes


def _is_kept(values: Array, factor: Array) -> Array:
    return values > _noise(factor) * jnp.max(values, initial=0)


def _noise(factor: Array) -> float:
    return max(factor.shape) * _eps(factor)


def _eps(array: Array) -> float:
    return float(jnp.finfo(array.dtype).eps)
