"""LAPACK's factorisations, one matrix at a time on CPUs: `_kernels/batch.py` says why.

From jaxlib 0.11 on, two batched calls at once are safe there too.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.devices import split_over_devices, with_vmap
from gaussjax.linalg._kernels.platforms import by_platform


@kernel("d d -> d d")
def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Lower Cholesky factor; all NaN where it does not exist."""
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@kernel("d d -> d d+1")
def eigh(matrix: Float[Array, "d d"]) -> Float[Array, "d d+1"]:
    """Eigenvectors as columns, and the eigenvalues (ascending) as one more column."""
    vectors, values = lax.linalg.eigh(matrix, symmetrize_input=False)
    return jnp.concatenate([vectors, values[:, None]], axis=1)


@kernel("n k -> n min(n,k), min(n,k)")
def left_singular(matrix: Float[Array, "n k"]) -> tuple[Float[Array, "n m"], Float[Array, " m"]]:
    """Left singular vectors as columns, m = min(n, k), and the values (descending).

    NaN where an entry is not finite.
    """
    if 0 in matrix.shape:
        return matrix[:, :0], jnp.zeros((0,), matrix.dtype)
    finite = jnp.all(jnp.isfinite(matrix))  # LAPACK may not terminate on others
    vectors, values, _ = lax.linalg.svd(jnp.where(finite, matrix, 0.0), full_matrices=False)
    return vectors, jnp.where(finite, values, jnp.nan)


@kernel("n k -> n min(n,k), min(n,k), min(n,k) k")
def singular(matrix: Float[Array, "n k"]) -> tuple[Array, Array, Array]:
    """U, σ and Vᵀ with U diag(σ) Vᵀ = A, m = min(n, k) columns; σ is NaN if A is not finite."""
    n, k = matrix.shape
    if 0 in matrix.shape:
        m = min(n, k)
        return matrix[:, :m], jnp.zeros((m,), matrix.dtype), matrix[:m]
    finite = jnp.all(jnp.isfinite(matrix))
    left, values, right = lax.linalg.svd(jnp.where(finite, matrix, 0.0), full_matrices=False)
    return left, jnp.where(finite, values, jnp.nan), right


@kernel("n d -> min(n,d) d")
def qr_triangle(matrix: Float[Array, "n d"]) -> Float[Array, "m d"]:
    """The triangle R of M = QR, m = min(n, d)."""
    return jnp.linalg.qr(matrix, mode="r")


@kernel("n d -> n min(n,d)")
def qr_basis(matrix: Float[Array, "n d"]) -> Float[Array, "n m"]:
    """The orthonormal columns Q of M = QR, m = min(n, d)."""
    return jnp.linalg.qr(matrix)[0]


def solve(
    lower: Float[Array, "... d d"], rhs: Float[Array, "... d k"], *, transpose: bool
) -> Float[Array, "... d k"]:
    """L⁻¹ B or L⁻ᵀ B; right-hand sides mapped over one L are solved together."""
    return _solver(transpose, rows=False)(lower, rhs)


def solve_rows(
    lower: Float[Array, "... d d"], vectors: Float[Array, "... n d"], *, transpose: bool
) -> Float[Array, "... n d"]:
    """L⁻¹ v or L⁻ᵀ v for each row v; devices may share the rows."""
    return _solver(transpose, rows=True)(lower, vectors)


@functools.cache
def _solver(transpose: bool, *, rows: bool) -> Callable[[Array, Array], Array]:
    def solve_each(lower: Array, rhs: Array) -> Array:
        # LAPACK is column-major, these arrays are row-major. Asked for the transpose it works in
        # place; otherwise a copy is made that costs more than the solve.
        solution = lax.linalg.triangular_solve(
            lower.mT, rhs.mT, left_side=rows, lower=False, transpose_a=transpose != rows
        )
        return solution.mT

    def on_cpu(lower: Array, rhs: Array) -> list[Array]:
        if lower.ndim == 2:
            return [solve_each(lower, rhs)]
        batch = lower.shape[:-2]
        pairs = [x.reshape(math.prod(batch), *x.shape[-2:]) for x in (lower, rhs)]
        out = lax.map(lambda pair: solve_each(*pair), pairs)
        return [out.reshape(*batch, *out.shape[1:])]

    def shapes(_: Array, rhs: Array) -> list[Any]:
        return [jax.ShapeDtypeStruct(rhs.shape, rhs.dtype)]

    rule = "... i j, ... n k -> ... n l" if rows else "... i j, ... k n -> ... l n"
    own = by_platform(cpu=on_cpu, elsewhere=lambda *x: [solve_each(*x)], shapes=shapes)
    split = split_over_devices(own, rule, whole="ijkl")

    def call(lower: Array, rhs: Array) -> Array:
        if lower.ndim == 2 and not rows:
            return solve_each(lower, rhs)
        return split(lower, rhs)[0]

    def by_vmap(size: int, in_batched: list[bool], lower: Array, rhs: Array) -> tuple[Array, bool]:
        lower_batched, rhs_batched = in_batched
        if lower_batched:
            wide = rhs if rhs_batched else jnp.broadcast_to(rhs, (size, *rhs.shape))
            return mapped(lower, wide), True
        many = jnp.moveaxis(rhs if rows else rhs.mT, 0, -3)  # the new axis beside that of the rows
        together = many.reshape(*many.shape[:-3], size * many.shape[-2], many.shape[-1])
        out = solve_rows(lower, together, transpose=transpose).reshape(many.shape)
        out = jnp.moveaxis(out, -3, 0)
        return out if rows else out.mT, True

    mapped = with_vmap(call, by_vmap)
    return mapped
