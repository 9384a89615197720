"""Cholesky factors: of a matrix, and of one that may need jitter."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.linalg._kernels import lapack, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import solve


@lift
def cholesky(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    """Lower L with L Lᵀ = ½(A + Aᵀ); all NaN where A is not positive definite. O(d³)

    `matrix` is `(..., d, d)`. A pivot below d·ε/2 of its diagonal entry is rounding noise, and the
    matrix counts as singular. It has derivatives of all orders, in both modes; a NaN element does
    not affect its neighbours in the batch.

    Raises:
        ValueError: the matrix is not square.

    Source: Golub & Van Loan, Matrix Computations, §4.2; derivative: Murray, arXiv:1602.07527.

    >>> cholesky([[4.0, 2.0], [2.0, 2.0]])
    Array([[2., 0.],
           [1., 1.]], dtype=float32)
    """
    _errors.square("matrix", matrix)
    return factorise(matrix)


@exported
class SafeCholesky(NamedTuple):
    """Result of `safe_cholesky`, one entry of each field per matrix.

    Attributes:
        lower: the factor of A + jitter · diag(A), `(..., d, d)`.
        jitter: the relative jitter that was used, `(...)`; 0 where none was needed.
        status: 0 as it was, 1 with jitter, 2 failed (and `lower` is NaN), `(...)`.
    """

    lower: Float[Array, "... d d"]
    jitter: Float[Array, "..."]
    status: Int[Array, "..."]


def safe_cholesky(
    matrix: Float[Array, "... d d"], *, jitter: float | Sequence[float]
) -> SafeCholesky:
    """Factor of A + jitter · diag(A) with the smallest jitter that works. O(kd³) for k levels

    `matrix` is `(..., d, d)`. It tries no jitter first, then each level of `jitter` in turn: one
    number, or an increasing sequence. The level is relative to the diagonal (so it does not depend
    on units), chosen for each matrix separately, and reported with a status. The derivative is that
    of the factor at the chosen level.

    Raises:
        ValueError: the matrix is not square, or a level is not positive.

    Source: Gill, Murray & Wright, Practical Optimization, §4.4.2.

    >>> safe_cholesky([[1.0, 1.0], [1.0, 1.0]], jitter=(1e-6, 1e-2)).status
    Array(1, dtype=int32)
    """
    levels = tuple(np.atleast_1d(_errors.numbers("jitter", jitter)).tolist())
    if not all(level > 0 for level in levels):
        raise ValueError(f"jitter must be positive, got {levels}.")
    with jax.debug_nans(False):  # a failure is reported by its status
        return SafeCholesky(*_safe(matrix, levels=levels))


@lift
def _safe(
    matrix: Float[Array, "... d d"], *, levels: tuple[float, ...]
) -> tuple[Array, Array, Array]:
    _errors.square("matrix", matrix)
    diagonal = jnp.diag(jnp.diagonal(matrix))
    fixed = jax.lax.stop_gradient(matrix)
    used = jnp.zeros((), matrix.dtype)
    works = _is_factor(factorise(fixed))
    status = jnp.where(works, 0, 1)
    for level in levels:
        used = jnp.where(works, used, level)
        works = works | _is_factor(factorise(fixed + level * jax.lax.stop_gradient(diagonal)))
    lower = factorise(matrix + used * diagonal)
    return lower, jnp.where(works, used, 0.0), jnp.where(works, status, 2).astype(jnp.int32)


# With Φ(X) the lower triangle of X, its diagonal halved, differentiating Σ = L Lᵀ gives
#   dL = L Φ(L⁻¹ dΣ L⁻ᵀ),
# two solves and a product; autodiff of the recursion would scatter. Its transpose is
#   Σ̄ = ½ L⁻ᵀ (P + Pᵀ) L⁻¹ with P = Φ(LᵀL̄),
# which is a kernel of its own.
@jax.custom_jvp
def factorise(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """`cholesky` of one matrix."""
    return _factor(matrix)


@factorise.defjvp
def _(primals, tangents):
    lower = factorise(*primals)
    return lower, change_of_factor(lower, *tangents)


def change_of_factor(lower: Float[Array, "d d"], dmatrix: Float[Array, "d d"]) -> Array:
    """Derivative of the lower L with L Lᵀ = Σ. O(d³)"""
    dmatrix = 0.5 * (dmatrix + dmatrix.T)
    if lower.shape[-1] == 0:
        return dmatrix
    return lax.custom_linear_solve(  # dΣ = dL Lᵀ + L dLᵀ
        lambda x: dot(x, lower.T) + dot(lower, x.T),
        dmatrix,
        solve=lambda _, b: _change(lower, b),
        transpose_solve=lambda _, c: _cotangent(lower, c),
    )


def _change(lower: Array, dmatrix: Array) -> Array:
    return dot(lower, half_triangle(solve(lower, solve(lower, dmatrix).T)))


@kernel("d d, d d -> d d", written=small.cholesky_cotangent, tile=TILE, native="cholesky_cotangent")
def _cotangent(lower: Array, cotangent: Array) -> Array:
    p = half_triangle(dot(lower.T, jnp.tril(cotangent)))
    half = solve(lower, p + p.T, transpose=True)
    return 0.5 * solve(lower, half.T, transpose=True)


def _checked(factorisation: Callable[[Array], Array], matrix: Array) -> Array:
    d = matrix.shape[-1]
    matrix = 0.5 * (matrix + matrix.T)
    lower = factorisation(matrix)
    pivots, diagonal = jnp.square(jnp.diagonal(lower)), jnp.diagonal(matrix)
    noise = 0.5 * d * jnp.finfo(matrix.dtype).eps
    works = jnp.all(pivots > noise * diagonal)  # what is not finite in a row is so in its pivot
    return jnp.where(works, lower, jnp.nan)


_factor = kernel(
    "d d -> d d", written=functools.partial(_checked, small.cholesky), tile=None, native="cholesky"
)(functools.partial(_checked, lapack.cholesky))


def half_triangle(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Φ: the lower triangle with its diagonal halved."""
    return jnp.tril(matrix) - 0.5 * jnp.diag(jnp.diagonal(matrix))


def _is_factor(lower: Array) -> Array:
    return ~jnp.any(jnp.isnan(lower))
