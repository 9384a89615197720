"""LAPACK's factorisations, one matrix at a time on CPUs: `looped.py` says why.

From jaxlib 0.11 on, two batched calls at once are safe there too.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg.looped import looped
from gaussjax.linalg.sharded_batch import split_over_devices


@looped(2, to=(2,))
def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Lower Cholesky factor; all NaN where it does not exist."""
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@looped(2, to=(2,))
def eigh(matrix: Float[Array, "d d"]) -> Float[Array, "d d+1"]:
    """Eigenvectors as columns, and the eigenvalues (ascending) as one more column."""
    vectors, values = lax.linalg.eigh(matrix, symmetrize_input=False)
    return jnp.concatenate([vectors, values[:, None]], axis=1)


@looped(2, to=(2,))
def qr_triangle(matrix: Float[Array, "n d"]) -> Float[Array, "m d"]:
    """The triangle R of M = QR, m = min(n, d)."""
    return jnp.linalg.qr(matrix, mode="r")


def solve(
    lower: Float[Array, "... d d"], rhs: Float[Array, "... d k"], *, transpose: bool
) -> Float[Array, "... d k"]:
    """L⁻¹ B or L⁻ᵀ B; right-hand sides mapped over one L are solved together."""
    return _solve(transpose, many=False)(lower, rhs)


@functools.cache
def _solve(transpose: bool, *, many: bool) -> Callable[[Array, Array], Array]:
    """The solve; with `many` its columns come from a batch, which devices may share."""

    def solve_each(lower: Array, rhs: Array) -> Array:
        # The LAPACK reads columns where arrays here are rows. Asked for the transpose, it finds
        # what it needs in place; asked for L⁻¹ B, both are copied, at more than the solve's cost.
        solution = lax.linalg.triangular_solve(
            lower.mT, rhs.mT, left_side=False, lower=False, transpose_a=transpose
        )
        return solution.mT

    def on_cpu(lower: Array, rhs: Array) -> Array:
        if lower.ndim == 2:
            return solve_each(lower, rhs)
        batch = lower.shape[:-2]
        pairs = [x.reshape(math.prod(batch), *x.shape[-2:]) for x in (lower, rhs)]
        out = lax.map(lambda pair: solve_each(*pair), pairs)
        return out.reshape(*batch, *out.shape[1:])

    rule = "... i j, ... k n -> ... l n"
    split = split_over_devices(on_cpu, rule, whole="ijkl", elsewhere=solve_each)

    @jax.custom_batching.custom_vmap
    def mapped(lower: Array, rhs: Array) -> Array:
        if lower.ndim == 2 and not many:
            return solve_each(lower, rhs)
        return split(lower, rhs)

    @mapped.def_vmap
    def _(size: int, in_batched: list[bool], lower: Array, rhs: Array) -> tuple[Array, bool]:
        lower_batched, rhs_batched = in_batched
        if not lower_batched:  # many right-hand sides: they are columns
            columns = jnp.moveaxis(rhs, 0, -2)
            out = _solve(transpose, many=True)(
                lower, columns.reshape(*rhs.shape[1:-1], size * rhs.shape[-1])
            )
            return jnp.moveaxis(out.reshape(columns.shape), -2, 0), True
        if not rhs_batched:
            rhs = jnp.broadcast_to(rhs, (size, *rhs.shape))
        return mapped(lower, rhs), True

    return mapped
