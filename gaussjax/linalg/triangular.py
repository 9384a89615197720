"""Solves with a lower triangle, their derivatives, and what follows from them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax import _checks
from gaussjax._lift import lift
from gaussjax.linalg import lapack, small
from gaussjax.linalg.looped import looped
from gaussjax.linalg.products import WHOLE, dot, from_halves
from gaussjax.linalg.sharded_batch import split_over_devices
from gaussjax.linalg.vector_products import for_vectors, stored

# Largest triangle of a batch for which L⁻ᵀv goes by strips: it comes in gradients, which have more
# to compile already.
TRANSPOSE_LIMIT = small.VECTOR_LIMIT

FUSED_LIMIT = 6  # largest triangle whose quadratic form fuses with what uses it


def solve_lower(lower: Float[Array, "... d d"], rhs: Float[Array, "..."]) -> Float[Array, "..."]:
    """L⁻¹ B by forward substitution. O(d²k)

    `lower` is `(..., d, d)`, only its lower triangle is read. `rhs` is one vector `(d,)` or
    matrices `(..., d, k)`, as in `numpy.linalg.solve`; leading axes broadcast. Derivatives of all
    orders, in both modes, are solves again.

    Raises:
        ValueError: `lower` is not square, or `rhs` has other rows.

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
    _checks.square("lower", lower)
    return logdet_of_triangle(lower)


def logdet_of_triangle(lower: Float[Array, "d d"]) -> Float[Array, ""]:
    """log|L| of one matrix. O(d)"""
    if lower.shape[-1] == 0:  # whose derivatives JAX gives the wrong rank in a batch
        return jnp.zeros((), lower.dtype)
    return _logdet(lower)


@jax.custom_jvp
def _logdet(lower: Array) -> Array:
    if lower.shape[-1] <= small.VECTOR_LIMIT:
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
    lower, rhs = _checks.real_arrays(lower=lower, rhs=rhs)
    _checks.square("lower", lower)
    _checks.rank_at_least("rhs", rhs, 1)
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
    if vector.shape[0] == 0:  # whose derivatives JAX gives the wrong rank in a batch
        return jnp.zeros((), vector.dtype)
    return _inv_quad(lower, vector)


# Autodiff through the substitution scatters into L. With w = L⁻¹v and u = L⁻ᵀw instead
#   d‖w‖² = 2 wᵀ L⁻¹ (dv − dL w) = 2 uᵀ (dv − dL w).
@jax.custom_jvp
def _inv_quad(lower: Array, vector: Array) -> Array:
    fused = lower.shape[-1] <= FUSED_LIMIT
    return (small.inv_quad if fused else _inv_quad_of_many)(lower, vector)


@_inv_quad.defjvp
def _(primals, tangents):
    (lower, vector), (dlower, dvector) = primals, tangents
    w, u = _solutions(lower, vector)
    # As a product: many vectors and one L make one of matrices, and no array of d² for each.
    along = jnp.sum(u * dot(jnp.tril(dlower), w))
    return _inv_quad(lower, vector), 2 * (jnp.sum(u * dvector) - along)


@jax.custom_jvp
def _solutions(lower: Array, vector: Array) -> tuple[Array, Array]:
    """L⁻¹v and L⁻ᵀL⁻¹v."""
    by_strips = lower.shape[-1] <= TRANSPOSE_LIMIT
    return (_by_solves if by_strips else _by_solves_looped)(lower, vector)


@_solutions.defjvp
def _(primals, tangents):
    return _solutions(*primals), jax.jvp(_by_solves, primals, tangents)[1]


def _with_care(lower: Array, vector: Array) -> Array:
    zero, triangle = without_zero_pivots(lower)
    whitened = lax.linalg.triangular_solve(triangle, vector[:, None], left_side=True, lower=True)
    return _length_in_range(lower, zero, whitened[:, 0], vector)


@functools.partial(jnp.vectorize, signature="(d,d),(n,d)->(n)")
def _inv_quad_of_rows(lower: Array, rows: Array) -> Array:
    if rows.shape[-1] <= small.LIMIT:
        return jax.vmap(functools.partial(small.inv_quad, lower))(rows)
    zero, triangle = without_zero_pivots(lower)
    whitened = lapack.solve_rows(triangle, rows, transpose=False)
    return jax.vmap(functools.partial(_length_in_range, lower, zero))(whitened, rows)


def _length_in_range(lower: Array, zero: Array, whitened: Array, vector: Array) -> Array:
    """‖w‖² where pivots are not zero, or ∞ where one is and it leaves something of the vector."""
    sizes = jnp.abs(vector) + jnp.sum(jnp.abs(jnp.tril(lower)), axis=1)
    near = small.NEAR * float(jnp.finfo(vector.dtype).eps)
    is_off = jnp.any(zero & (jnp.abs(whitened) > near * sizes))
    return jnp.where(is_off, jnp.inf, jnp.sum(jnp.square(jnp.where(zero, 0.0, whitened))))


def _inv_quad_of_each(lower: Array, vector: Array) -> Array:
    """For any leading axes; once more with care, one by one, if a result is not finite."""
    signature = "(d,d),(d)->()"
    if lower.ndim == 2:
        return _with_care(lower, vector)
    if vector.shape[-1] > small.STRIPS_LIMIT:
        return jnp.vectorize(_inv_quad_looped, signature=signature)(lower, vector)

    def one_by_one(lower: Array, vector: Array, value: Array) -> Array:
        d = vector.shape[-1]
        pairs = lower.reshape(-1, d, d), vector.reshape(-1, d)
        return lax.map(lambda pair: _with_care(*pair), pairs).reshape(value.shape)

    def repaired(lower: Array, vector: Array, value: Array) -> Array:
        is_finite = jnp.all(jnp.isfinite(value))
        return lax.cond(is_finite, lambda *x: x[2], one_by_one, lower, vector, value)

    def at_once(lower: Array, vector: Array, value: Array) -> Array:
        return jnp.vectorize(_with_care, signature=signature)(lower, vector)

    rule = "... i j, ... i, ... -> ..."
    repair = split_over_devices(repaired, rule, whole="ij", elsewhere=at_once)
    fast = jnp.vectorize(_length_of_solution, signature=signature)
    return repair(lower, vector, fast(lower, vector))


def _length_of_solution(lower: Array, vector: Array) -> Array:
    return jnp.sum(jnp.square(solve(lower, vector)))


@looped(2, 1, to=(0,))
def _inv_quad_looped(lower: Array, vector: Array) -> Array:
    value = _length_of_solution(lower, vector)
    return lax.cond(jnp.isfinite(value), lambda: value, lambda: _with_care(lower, vector))


_inv_quad_of_many = for_vectors(_inv_quad_of_each, _inv_quad_of_rows, to=0)


def _by_solves(lower: Array, vector: Array) -> tuple[Array, Array]:
    w = solve(lower, vector)
    return w, solve(lower, w, transpose=True)


_by_solves_looped = looped(2, 1, to=(1, 1))(_by_solves)


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
    d = lower.shape[-1]
    if small.LIMIT < d <= (TRANSPOSE_LIMIT if transpose else small.STRIPS_LIMIT) and rhs.size == d:
        return _vector_solver(transpose)(lower, rhs.reshape(d)).reshape(rhs.shape)
    if d > small.LIMIT:
        return _alone(lower, rhs, transpose=transpose)
    return _small_solver(transpose, rhs.ndim)(lower, rhs)


def _alone(lower: Array, rhs: Array, *, transpose: bool) -> Array:
    columns = rhs if rhs.ndim == 2 else rhs[:, None]
    return lapack.solve(lower, columns, transpose=transpose).reshape(rhs.shape)


@functools.cache
def _small_solver(transpose: bool, rank: int) -> Callable[[Array, Array], Array]:
    unrolled = functools.partial(_unrolled, transpose=transpose)
    function = unrolled if rank == 1 else jax.vmap(unrolled, (None, 1), 1)
    alone = functools.partial(_alone, transpose=transpose)
    return looped(2, rank, to=(rank,), tile=None, alone=alone)(function)


@functools.cache
def _vector_solver(transpose: bool) -> Callable[[Array, Array], Array]:
    """By strips where each vector has its own matrix; by the LAPACK where many share one."""
    by_strips = jnp.vectorize(
        functools.partial(_solve_by_strips, transpose=transpose), signature="(d,d),(d)->(d)"
    )

    def own(lower: Array, vector: Array) -> Array:
        if lower.ndim == 2:
            return lapack.solve(lower, vector[:, None], transpose=transpose)[:, 0]
        return by_strips(lower, vector)

    return for_vectors(own, functools.partial(lapack.solve_rows, transpose=transpose))


@functools.partial(jax.jit, static_argnames="transpose")  # traced once for each size
def _unrolled(lower: Array, vector: Array, *, transpose: bool) -> Array:
    return (small.solve_lower_transpose if transpose else small.solve_lower)(lower, vector)


@functools.partial(jax.jit, static_argnames="transpose")
def _solve_by_strips(lower: Array, vector: Array, *, transpose: bool) -> Array:
    """A few rows at a time by the unrolled kernel, when what is known is subtracted."""
    d = vector.shape[0]
    starts = range(0, d, small.STRIP)
    x = vector[:0]
    for i in reversed(starts) if transpose else starts:
        own = slice(i, min(i + small.STRIP, d))
        if transpose:
            columns = [lower[j, own] for j in range(own.stop, d)]
        else:
            columns = [lower[own, j] for j in range(i)]
        rest = vector[own]
        if columns:
            rest = rest - small.total_of_columns(columns, small.scalars(x))
        part = _unrolled(lower[own, own], stored(rest), transpose=transpose)
        x = jnp.concatenate([part, x] if transpose else [x, part])
    return x
