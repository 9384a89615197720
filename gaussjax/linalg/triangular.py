"""Solves with a lower triangle, their derivatives, and what follows from them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.linalg._kernels import lapack, limits, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.devices import with_vmap
from gaussjax.linalg.products import WHOLE, dot, from_halves
from gaussjax.linalg.vector_products import for_vectors


def solve_lower(lower: Float[Array, "... d d"], rhs: Float[Array, "..."]) -> Float[Array, "..."]:
    """L⁻¹ B by forward substitution. O(d²k)

    `lower` is `(..., d, d)`, only its lower triangle is read. `rhs` is one vector `(d,)` or
    matrices `(..., d, k)`, as in `numpy.linalg.solve`; leading axes broadcast. Derivatives of all
    orders, in both modes, are solves again.

    Raises:
        ValueError: `lower` is not square, or `rhs` has a different number of rows.

    Source: Golub & Van Loan, Matrix Computations, §3.1.

    >>> solve_lower([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0])
    Array([1., 2.], dtype=float32)
    """
    return _solve_of_any_rank(lower, rhs, transpose=False)


def solve_lower_transpose(
    lower: Float[Array, "... d d"], rhs: Float[Array, "..."]
) -> Float[Array, "..."]:
    """L⁻ᵀ B by back substitution. O(d²k)

    Shapes, errors and derivatives as in `solve_lower`.

    Source: Golub & Van Loan, Matrix Computations, §3.1.

    >>> solve_lower_transpose([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0])
    Array([-0.5,  3. ], dtype=float32)
    """
    return _solve_of_any_rank(lower, rhs, transpose=True)


@lift
def logdet_lower(lower: Float[Array, "... d d"]) -> Float[Array, "..."]:
    """log|L| = Σ log Lᵢᵢ, −∞ where a pivot is zero, NaN where one is negative. O(d)

    `lower` is `(..., d, d)`; the result is `(...)`. The log-determinant of L Lᵀ is twice this.

    Raises:
        ValueError: `lower` is not square.

    Source: Rasmussen & Williams, Gaussian Processes for Machine Learning, A.4.

    >>> logdet_lower([[1.0, 0.0], [5.0, 1.0]])
    Array(0., dtype=float32)
    """
    _errors.square("lower", lower)
    return logdet_of_triangle(lower)


def logdet_of_triangle(lower: Float[Array, "d d"]) -> Float[Array, ""]:
    """log|L| of one matrix. O(d)"""
    if lower.shape[-1] == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return jnp.zeros((), lower.dtype)
    return _logdet(lower)


@jax.custom_jvp
def _logdet(lower: Array) -> Array:
    if lower.shape[-1] <= limits.VECTOR:
        return small.logdet(lower)
    return logdet_of_diagonal(jnp.diagonal(lower))


@_logdet.defjvp
def _(primals, tangents):  # a masked sum fuses with other gradients, reading a diagonal scatters
    (lower,), (dlower,) = primals, tangents
    here = jnp.eye(lower.shape[-1], dtype=bool)
    pivots = jnp.where(here, jnp.where(lower > 0, lower, jnp.nan), 1.0)
    return _logdet(lower), jnp.sum(jnp.where(here, dlower, 0.0) / pivots)


def logdet_of_diagonal(diagonal: Float[Array, " d"]) -> Float[Array, ""]:
    """Σ log of a diagonal, −∞ where it has a zero, NaN where it is negative or infinite."""
    valid = (diagonal >= 0) & (diagonal < jnp.inf)
    return jnp.sum(jnp.log(jnp.where(valid, diagonal, jnp.nan)))


def _solve_of_any_rank(lower: Array, rhs: Array, *, transpose: bool) -> Array:
    lower, rhs = _errors.real_arrays(lower=lower, rhs=rhs)
    _errors.square("lower", lower)
    _errors.rank_at_least("rhs", rhs, 1)
    rows = rhs.shape[-min(rhs.ndim, 2)]
    if rows != lower.shape[-1]:
        raise ValueError(f"rhs must have {lower.shape[-1]} rows like lower, got shape {rhs.shape}.")
    return (_solve_vector if rhs.ndim == 1 else _solve_matrix)(lower, rhs, transpose=transpose)


@lift
def _solve_vector(
    lower: Float[Array, "... d d"], rhs: Float[Array, " d"], *, transpose: bool
) -> Float[Array, "... d"]:
    return solve(lower, rhs, transpose=transpose)


@lift
def _solve_matrix(
    lower: Float[Array, "... d d"], rhs: Float[Array, "... d k"], *, transpose: bool
) -> Float[Array, "... d k"]:
    return solve(lower, rhs, transpose=transpose)


def without_zero_pivots(lower: Float[Array, "d d"]) -> tuple[Array, Array]:
    """Which pivots are zero, and the triangle with ones in their place.

    NaN where a column with a zero pivot is not zero: substitution cannot find its part. And where
    an entry is infinite.
    """
    zero = jnp.diagonal(lower) == 0
    entries = jnp.tril(lower)
    lost = jnp.any(zero[None] & (entries != 0)) | jnp.any(jnp.isinf(entries))
    return zero, jnp.where(lost, jnp.nan, lower + jnp.diag(zero.astype(lower.dtype)))


def inv_quad_lower(lower: Float[Array, "d d"], vector: Float[Array, " d"]) -> Float[Array, ""]:
    """‖L⁻¹ v‖² for one matrix and vector. O(d²)

    Where columns of L are zero, it is ∞ off the range of L, and on it the least ‖z‖² with L z = v;
    NaN where only a pivot is.
    """
    if vector.shape[0] == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return jnp.zeros((), vector.dtype)
    return _inv_quad(lower, vector)


# Autodiff through the substitution scatters into L. With w = L⁻¹v and u = L⁻ᵀw instead
#   d‖w‖² = 2 wᵀ L⁻¹ (dv − dL w) = 2 uᵀ (dv − dL w).
@jax.custom_jvp
def _inv_quad(lower: Array, vector: Array) -> Array:
    return _length(lower, vector)


@_inv_quad.defjvp
def _(primals, tangents):
    (lower, vector), (dlower, dvector) = primals, tangents
    value, (w, u) = _inv_quad(lower, vector), _solutions(lower, vector)
    # As a product: many vectors and one L make one of matrices, and no array of d² for each.
    along = jnp.sum(u * dot(jnp.tril(dlower), w))
    # Off the support it is infinite all around, and NaN where a column is lost.
    slope = jnp.where(value == jnp.inf, 0.0, jnp.where(jnp.isnan(value), jnp.nan, 2.0))
    slope = jnp.where(small.is_regular(lower), 2.0, slope).astype(vector.dtype)
    return value, slope * (jnp.sum(u * dvector) - along)


@jax.custom_jvp
def _solutions(lower: Array, vector: Array) -> tuple[Array, Array]:
    """w = L⁻¹v and L⁻ᵀw; zero where a pivot is."""
    return _both(lower, vector)


@_solutions.defjvp
def _(primals, tangents):
    return _solutions(*primals), jax.jvp(_by_solves, primals, tangents)[1]


def _by_solves(lower: Array, vector: Array) -> tuple[Array, Array]:
    zero = jnp.diagonal(lower) == 0
    lower = lower + jnp.diag(zero.astype(lower.dtype))
    w = jnp.where(zero, 0.0, solve(lower, vector))
    return w, solve(lower, w, transpose=True)


_both = kernel(
    "d d, d -> d, d", written=_by_solves, tile=None, native="solutions", shared=True, single=True
)(_by_solves)


@kernel(
    "d d, d -> ()", written=small.inv_quad, tile=None, native="inv_quad",
    fused=limits.DISTANCE, shared=True, single=True,
)  # fmt: skip
def _length(lower: Array, vector: Array) -> Array:
    """‖w‖² where pivots are not zero, or ∞ where one is and it leaves something of the vector."""
    zero, triangle = without_zero_pivots(lower)
    whitened = lapack.solve(triangle, vector[:, None], transpose=False)[:, 0]
    sizes = jnp.abs(vector) + jnp.sum(jnp.abs(jnp.tril(lower)), axis=1)
    near = small.NEAR * float(jnp.finfo(vector.dtype).eps)
    is_off = jnp.any(zero & (jnp.abs(whitened) > near * sizes))
    is_lost = jnp.any(zero & jnp.isnan(whitened)) | jnp.any(jnp.diagonal(lower) < 0)
    value = jnp.where(is_off, jnp.inf, jnp.sum(jnp.square(jnp.where(zero, 0.0, whitened))))
    return jnp.where(is_lost, jnp.nan, value)


def solve(lower: Array, rhs: Array, *, transpose: bool = False) -> Array:
    """L⁻¹ B or L⁻ᵀ B for one matrix; `rhs` is `(d,)` or `(d, k)`."""
    triangle = jnp.tril(lower)  # for derivatives alone: substitution reads no more of it
    return lax.custom_linear_solve(
        functools.partial(dot, triangle.T if transpose else triangle),
        rhs,
        solve=lambda _, b: _substitute(lower, b, transpose=transpose),
        transpose_solve=lambda _, b: _substitute(lower, b, transpose=not transpose),
    )


def solve_triangle(
    lower: Float[Array, "d d"], triangle: Float[Array, "d d"], *, transpose: bool = False
) -> Float[Array, "d d"]:
    """The lower triangle of L⁻¹T or L⁻ᵀT for a lower triangle T. O(d³)

    By halves, which skips half of the work: neither reads nor needs what is above the diagonal.
    """
    d = lower.shape[-1]
    if d <= WHOLE:
        return jnp.tril(solve(lower, jnp.tril(triangle), transpose=transpose))
    n = d // 2
    first, side, last = triangle[:n, :n], triangle[n:, :n], triangle[n:, n:]
    beside = lower[n:, :n]
    if transpose:
        side = solve(lower[n:, n:], side, transpose=True)
        first = first - dot(beside.T, side)
    first = solve_triangle(lower[:n, :n], first, transpose=transpose)
    if not transpose:
        side = solve(lower[n:, n:], side - dot(beside, first))
    return from_halves(first, side, solve_triangle(lower[n:, n:], last, transpose=transpose))


def _substitute(lower: Array, rhs: Array, *, transpose: bool) -> Array:
    if rhs.size == 0:
        return rhs
    of_matrix, of_vector = _solvers(transpose)
    return (of_vector if rhs.ndim == 1 else of_matrix)(lower, rhs)


@functools.cache
def _solvers(transpose: bool) -> tuple[Callable[[Array, Array], Array], ...]:
    """For a matrix and for a vector; many of either that share L are solved for together."""
    written = small.solve_lower_transpose if transpose else small.solve_lower
    of_each = jnp.vectorize(_solver(transpose=transpose), signature="(d,d),(d,k)->(d,k)")
    of_rows = jnp.vectorize(jax.vmap(written, (None, 0)), signature="(d,d),(n,d)->(n,d)")

    def of_shared(lower: Array, rows: Array) -> Array:
        if rows.shape[-1] <= limits.WRITTEN:
            return of_rows(lower, rows)
        return lapack.solve_rows(lower, rows, transpose=transpose)

    of_vector = for_vectors(lambda k, v: of_each(k, v[..., None])[..., 0], of_shared)

    def by_vmap(size: int, batched: list[bool], lower: Array, rhs: Array) -> tuple[Array, bool]:
        if batched[0]:
            return of_matrix(lower, rhs if batched[1] else rhs[None]), True
        beside = jnp.moveaxis(rhs, 0, -2)
        columns = beside.reshape(*beside.shape[:-2], size * beside.shape[-1])
        return jnp.moveaxis(of_matrix(lower, columns).reshape(beside.shape), -2, 0), True

    of_matrix = with_vmap(of_each, by_vmap)
    return of_matrix, of_vector


@functools.cache
def _solver(*, transpose: bool) -> Callable[[Array, Array], Array]:
    written = small.solve_lower_transpose if transpose else small.solve_lower
    return kernel(
        "d d, d k -> d k", written=jax.vmap(written, (None, 1), 1), tile=None,
        native="solve_lower_transpose" if transpose else "solve_lower",
    )(functools.partial(lapack.solve, transpose=transpose))  # fmt: skip
