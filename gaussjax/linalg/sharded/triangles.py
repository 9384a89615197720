"""Triangles too large for one device: Cholesky, solves and products over the rows of a mesh.

Every device of a mesh axis holds one run of m = d / devices rows of a (d, k) array. All work is by
panels of b rows or columns: a step sums one panel of at most b × d numbers over the devices, of
which all but its owner add zero, and the rest is local. So a device holds O(d²/devices + bd)
numbers, receives O(d²), and the program has one collective in each loop whatever d is.

The mesh is that of `jax.set_mesh`; its axes may be automatic or explicit. `axis` is the name of one
of its axes, or a tuple of names.

>>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
...     print(cholesky(jnp.array([[4.0, 2.0], [2.0, 2.0]]), axis="rows"))
[[2. 0.]
 [1. 1.]]
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.linalg.products import dot
from gaussjax.linalg.sharded.rows import (
    Axis,
    Layout,
    backward,
    diagonal_of_rows,
    factor_rows,
    forward,
    multiply,
    on_mesh,
    on_rows,
    placed,
    rows_spec,
)


@lift
def cholesky(matrix: Float[Array, "... d d"], *, axis: Axis) -> Float[Array, "... d d"]:
    """Lower L with L Lᵀ = ½(A + Aᵀ), rows over `axis`; all NaN where A is not positive definite.

    `matrix` is `(..., d, d)`. O(d³ / devices): each does d³ / devices operations, three times those
    of an even distribution, since the last rows need that many and the first take part in every
    step. Derivatives in both modes are solves and products of the same kind.

    Raises:
        ValueError: the matrix is not square, there is no such axis in the mesh, or its devices
            cannot share the rows evenly.

    Source: Golub & Van Loan, Matrix Computations, §4.2 and §6.3; derivative: Murray,
    arXiv:1602.07527.
    """
    _errors.square("matrix", matrix)
    return factorise(matrix, axis)


def solve_lower(
    lower: Float[Array, "... d d"], rhs: Float[Array, "..."], *, axis: Axis
) -> Float[Array, "..."]:
    """L⁻¹ B by forward substitution, rows over `axis`. O(d²k / devices)

    `lower` is `(..., d, d)`, only its lower triangle is read. `rhs` is one vector `(d,)` or
    matrices `(..., d, k)`; leading axes broadcast. Derivatives in both modes are solves again.

    Raises:
        ValueError: as `cholesky`, or `rhs` has a different number of rows.

    Source: Golub & Van Loan, Matrix Computations, §3.1 and §6.2.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(solve_lower([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0], axis="rows"))
    [1. 2.]
    """
    return _solve_of_any_rank(lower, rhs, axis=axis, transpose=False)


def solve_lower_transpose(
    lower: Float[Array, "... d d"], rhs: Float[Array, "..."], *, axis: Axis
) -> Float[Array, "..."]:
    """L⁻ᵀ B by back substitution, rows over `axis`. O(d²k / devices)

    Shapes, errors and derivatives as in `solve_lower`.

    Source: Golub & Van Loan, Matrix Computations, §3.1 and §6.2.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(solve_lower_transpose([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0], axis="rows"))
    [-0.5  3. ]
    """
    return _solve_of_any_rank(lower, rhs, axis=axis, transpose=True)


@lift
def is_symmetric(matrix: Float[Array, "... d d"], *, axis: Axis) -> Bool[Array, "..."]:
    """|Aᵢⱼ − Aⱼᵢ| ≤ √ε √(Aᵢᵢ Aⱼⱼ), without a matrix on one device."""
    scale = float(jnp.finfo(matrix.dtype).eps) ** 0.25 * jnp.sqrt(jnp.abs(diagonal(matrix, axis)))
    difference = jnp.abs(matrix - transposed(matrix, axis))
    return jnp.all(difference <= scale[:, None] * scale[None])


def _solve_of_any_rank(lower: Any, rhs: Any, *, axis: Axis, transpose: bool) -> Array:
    lower, rhs = _errors.real_arrays(lower=lower, rhs=rhs)
    _errors.square("lower", lower)
    _errors.rank_at_least("rhs", rhs, 1)
    as_matrix = rhs.shape if rhs.ndim > 1 else (*rhs.shape, 1)
    _errors.same_rows("rhs", as_matrix, lower.shape[-1], "lower")
    solver = _solve_vector if rhs.ndim == 1 else _solve_matrix
    return solver(lower, rhs, axis=axis, transpose=transpose)


@lift
def _solve_vector(
    lower: Float[Array, "... d d"], rhs: Float[Array, " d"], *, axis: Axis, transpose: bool
) -> Float[Array, "... d"]:
    return (solve_transpose if transpose else solve)(lower, rhs, axis)


@lift
def _solve_matrix(
    lower: Float[Array, "... d d"], rhs: Float[Array, "... d k"], *, axis: Axis, transpose: bool
) -> Float[Array, "... d k"]:
    return (solve_transpose if transpose else solve)(lower, rhs, axis)


# One matrix ---------------------------------------------------------------------------------------


def factorise(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """`cholesky` of one matrix."""
    return _factor_symmetric(0.5 * (matrix + transposed(matrix, axis)), axis)


# dL = L Φ(L⁻¹ dΣ L⁻ᵀ), as for a matrix on one device. dΣ is symmetric: dΣ L⁻ᵀ = (L⁻¹ dΣ)ᵀ.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _factor_symmetric(matrix: Array, axis: Axis) -> Array:
    return on_rows(factor_rows, axis, matrix)


@_factor_symmetric.defjvp
def _(axis, primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    lower = _factor_symmetric(matrix, axis)
    relative = solve(lower, transposed(solve(lower, dmatrix, axis), axis), axis)
    return lower, product(lower, triangle(relative, axis, diagonal=0.5), axis)


def solve(lower: Float[Array, "d d"], rhs: Array, axis: Axis) -> Array:
    """L⁻¹ B for one matrix; `rhs` is `(d,)` or `(d, k)`."""
    solution = lax.custom_linear_solve(
        lambda x: _product(triangle(lower, axis), x, axis),
        placed(rhs, rows_spec(axis), axis),
        solve=lambda _, b: on_rows(forward, axis, lower, b),
        transpose_solve=lambda _, b: on_rows(backward, axis, lower, b),
    )
    return _result(solution, axis)


def solve_transpose(lower: Float[Array, "d d"], rhs: Array, axis: Axis) -> Array:
    """L⁻ᵀ B for one matrix; `rhs` is `(d,)` or `(d, k)`."""
    like = placed(rhs, rows_spec(axis) if rhs.ndim == 2 else PartitionSpec(), axis)
    return jax.linear_transpose(lambda b: solve(lower, b, axis), like)(like)[0]


def product(a: Float[Array, "d d"], b: Array, axis: Axis) -> Array:
    """A B of one matrix with `b` `(d,)` or `(d, k)`."""
    return _result(_product(a, b, axis), axis)


def _product(a: Array, b: Array, axis: Axis) -> Array:
    if b.ndim == 1:
        return on_mesh(dot, axis, (rows_spec(axis), PartitionSpec()), a, b)
    return on_rows(multiply, axis, a, b)


def gram(factor: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """F Fᵀ, exactly symmetric."""
    whole = product(factor, transposed(factor, axis), axis)
    return triangle(whole, axis) + transposed(triangle(whole, axis, diagonal=0.0), axis)


def transposed(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, "d d"]:
    """Aᵀ, rows over the axis again."""

    def exchange(layout: Layout, local: Array) -> Array:
        return lax.all_to_all(local, layout.axis, 1, 0, tiled=True).T

    return on_rows(exchange, axis, matrix)


def triangle(
    matrix: Float[Array, "d d"], axis: Axis, *, diagonal: float = 1.0
) -> Float[Array, "d d"]:
    """The lower triangle, its diagonal times a number."""

    def weigh(layout: Layout, local: Array) -> Array:
        below = layout.positions()[:, None] - jnp.arange(local.shape[1])[None]
        return jnp.where(below > 0, local, jnp.where(below == 0, diagonal * local, 0.0))

    return on_rows(weigh, axis, matrix)


def whole(matrix: Array, axis: Axis) -> Array:
    """All rows on every device, for what has no rule of its own."""
    return placed(matrix, PartitionSpec(), axis)


def diagonal(matrix: Float[Array, "d d"], axis: Axis) -> Float[Array, " d"]:
    """The diagonal."""
    return _result(on_rows(diagonal_of_rows, axis, matrix), axis)


def diagonal_matrix(entries: Float[Array, " d"], axis: Axis) -> Float[Array, "d d"]:
    """diag(v), rows over the axis."""

    def spread(layout: Layout, local: Array) -> Array:
        on = layout.positions()[:, None] == jnp.arange(layout.dim)[None]
        return jnp.where(on, local[:, None], 0.0)

    return on_rows(spread, axis, entries)


def _result(x: Array, axis: Axis) -> Array:
    """Where axes are explicit a matrix stays in rows, and a vector is whole on every device.

    So generic code can use the vector freely.
    """
    return whole(x, axis) if x.ndim == 1 else x
