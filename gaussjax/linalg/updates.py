"""Cholesky factors of a matrix that changes: A ± V Vᵀ, and A with more or fewer rows and columns.

All start from the factor L of A and do not form A, whose smallest eigenvalues rounding would
destroy. So the error is of relative size ε in L and V; a downdate also has an E of size ε in L (I −
P Pᵀ + E) Lᵀ.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import solve


@lift
def update(
    lower: Float[Array, "... d d"], vectors: Float[Array, "... d k"]
) -> Float[Array, "... d d"]:
    """Lower factor of L Lᵀ + V Vᵀ, by QR of [L V]ᵀ. O(d²(d + k))

    `lower` is `(..., d, d)`, only its lower triangle is read, and `vectors` `(..., d, k)`; leading
    axes broadcast. The derivative needs the result to be invertible.

    Raises:
        ValueError: `lower` is not square, or `vectors` has a different number of rows.

    Source: Golub & Van Loan, Matrix Computations, §6.5.

    >>> update([[3.0]], [[4.0]])
    Array([[5.]], dtype=float32)
    """
    _same_rows("vectors", vectors, lower)
    return triangular_root(jnp.concatenate([jnp.tril(lower), vectors], axis=1))


@exported
class Downdate(NamedTuple):
    """Result of `downdate`, one entry of each field per matrix.

    Attributes:
        lower: the factor of L Lᵀ − V Vᵀ, `(..., d, d)`; all NaN where there is none.
        status: 0 where it is the factor, 1 where the difference is not positive definite, `(...)`.
    """

    lower: Float[Array, "... d d"]
    status: Int[Array, "..."]


def downdate(lower: Float[Array, "... d d"], vectors: Float[Array, "... d k"]) -> Downdate:
    """Lower factor of L Lᵀ − V Vᵀ, as L times that of I − P Pᵀ with P = L⁻¹V. O(d²(d + k))

    `lower` is `(..., d, d)`, only its lower triangle is read, with a positive diagonal (assumed),
    and `vectors` `(..., d, k)`; leading axes broadcast. A pivot below (d + k)·ε/2 of what it was in
    L Lᵀ is rounding noise, and the difference counts as not positive definite; where L is
    ill-conditioned the noise may be larger. Failure is reported with a status; the derivative is
    zero there, and neighbours in the batch are left alone.

    Raises:
        ValueError: `lower` is not square, or `vectors` has a different number of rows.

    Source: Golub & Van Loan, Matrix Computations, §6.5; Stewart, J. Inst. Maths Applics 23 (1979).

    >>> downdate([[5.0]], [[4.0]]).lower.round(4)
    Array([[3.]], dtype=float32)
    """
    with jax.debug_nans(False):  # a failure is reported by its status
        return _downdate(lower, vectors)


@lift
def _downdate(lower: Float[Array, "... d d"], vectors: Float[Array, "... d k"]) -> Downdate:
    _same_rows("vectors", vectors, lower)
    lower = jnp.tril(lower)
    one = jnp.eye(lower.shape[0], dtype=lower.dtype)
    root, works = _root_of_difference(one, solve(lower, vectors))
    factor = jnp.where(works, dot(lower, root), jnp.nan)
    return Downdate(factor, jnp.where(works, 0, 1).astype(jnp.int32))


@lift
def append(
    lower: Float[Array, "... d d"],
    cross: Float[Array, "... d k"],
    corner: Float[Array, "... k k"],
) -> Float[Array, "... d+k d+k"]:
    """Lower factor of [[A, B], [Bᵀ, C]] from that of A. O(k(d + k)²)

    `lower` is the factor of A, `(..., d, d)`, only its lower triangle is read; `cross` is B,
    `(..., d, k)`, and `corner` C, `(..., k, k)`, symmetrised; leading axes broadcast. The first d
    rows are those of `lower`. The others are NaN, with derivative zero, where the matrix is not
    positive definite: a pivot below (d + k)·ε/2 of its diagonal entry is rounding noise.

    Raises:
        ValueError: `lower` or `corner` is not square, or the rows of `cross` and
            `corner` do not match `lower` and the columns of `cross`.

    Source: Golub & Van Loan, Matrix Computations, §4.2.

    >>> append([[2.0]], [[2.0]], [[2.0]])
    Array([[2., 0.],
           [1., 1.]], dtype=float32)
    """
    _same_rows("cross", cross, lower)
    _errors.square("corner", corner)
    k = cross.shape[1]
    if corner.shape[0] != k:
        raise ValueError(f"corner must have {k} rows like cross columns, got shape {corner.shape}.")
    lower = jnp.tril(lower)
    below = solve(lower, cross).T
    root, works = _root_of_difference(corner, below)
    return _blocks(lower, jnp.where(works, below, jnp.nan), jnp.where(works, root, jnp.nan))


def delete(lower: ArrayLike, indices: int | Sequence[int]) -> Float[Array, "... d-k d-k"]:
    """Lower factor of A = L Lᵀ without the rows and columns `indices`. O((d − i)³) for the least i

    `lower` is `(..., d, d)`, only its lower triangle is read. `indices` is static: k different
    integers, or one; negative ones count from the end. Rows before the first deleted one are
    unchanged, and QR makes the trailing part of the others triangular again.

    Raises:
        TypeError: an index is not an integer.
        ValueError: `lower` is not square, or an index is out of range or repeated.

    Source: Golub & Van Loan, Matrix Computations, §6.5.

    >>> delete([[1.0, 0.0], [3.0, 4.0]], 0)
    Array([[5.]], dtype=float32)
    """
    lower = _errors.real_array("lower", lower)
    _errors.square("lower", lower)
    return _delete(lower, gone=tuple(_positions(indices, lower.shape[-1])))


@lift
def _delete(lower: Float[Array, "... d d"], *, gone: tuple[int, ...]) -> Array:
    d = lower.shape[0]
    first = min(gone, default=d)
    lower = jnp.tril(lower)
    below = lower[np.setdiff1d(np.arange(first, d), gone).astype(int)]
    return _blocks(lower[:first, :first], below[:, :first], triangular_root(below[:, first:]))


def _root_of_difference(
    total: Float[Array, "n n"], factor: Float[Array, "n m"]
) -> tuple[Float[Array, "n n"], Bool[Array, ""]]:
    """Cholesky factor of T − F Fᵀ, and whether there is one: it is I where there is none."""
    n, m = factor.shape
    difference = total - gram(factor)
    # NaN times zero is NaN, and would reach the derivative of whatever the batch shares. So a
    # matrix without a factor is replaced before it is factorised.
    fixed = lax.stop_gradient((difference, total))
    pivots = jnp.square(jnp.diagonal(factorise(fixed[0])))
    # The difference is rounded relative to T: pivots are compared with that, not with what is left.
    noise = 0.5 * (n + m) * jnp.finfo(total.dtype).eps
    works = jnp.all(pivots > noise * jnp.diagonal(fixed[1]))
    return factorise(jnp.where(works, difference, jnp.eye(n, dtype=total.dtype))), works


def _blocks(lower: Array, below: Array, corner: Array) -> Array:
    """[[L, 0], [B, C]]."""
    zero = jnp.zeros((lower.shape[0], corner.shape[1]), lower.dtype)
    return jnp.block([[lower, zero], [below, corner]])


def _positions(indices: int | Sequence[int], d: int) -> list[int]:
    """Static row indices, counted from the start."""
    items = tuple(indices) if isinstance(indices, Iterable) else (indices,)
    for i in items:
        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise TypeError(f"indices must be integers, got {type(i).__name__}.")
    listing = tuple(int(i) for i in items)
    if not all(-d <= i < d for i in listing):
        raise ValueError(f"indices must be from {-d} to {d - 1} for {d} rows, got {listing}.")
    positions = [i % d for i in listing]
    if len(set(positions)) < len(positions):
        raise ValueError(f"indices must differ from each other, got {listing} for {d} rows.")
    return positions


def _same_rows(name: str, matrix: Array, lower: Array) -> None:
    _errors.square("lower", lower)
    rows = lower.shape[0]
    if matrix.shape[0] != rows:
        raise ValueError(f"{name} must have {rows} rows like lower, got shape {matrix.shape}.")
