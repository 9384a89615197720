"""LAPACK's factorisations, one matrix at a time on CPUs.

jaxlib up to 0.10.2 splits a batch of LAPACK calls over the thread pool that it runs on and blocks
in it, so two batched calls at once can wait for each other for ever on a machine with few cores.
A single matrix is never split. So on CPUs a batch is a loop over matrices here; other devices get
the batched kernel. From jaxlib 0.11 on the loop is no longer needed.
A batch that is sharded stays so: each device loops over its own part.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg.partition import over_batches, partitioned


def _one_at_a_time(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`function` of `(..., n, m)`, that `vmap` gives more leading axes."""
    looped = partitioned(_looped(function), "... i j -> ... k l", whole="ijkl")
    return over_batches(lambda x: lax.platform_dependent(x, cpu=looped, default=function))


def _looped(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` of `(..., n, m)` arrays, called on one matrix of each at a time."""

    def looped(*stacks: Array) -> Array:
        batch = stacks[0].shape[:-2]
        matrices = [x.reshape(math.prod(batch), *x.shape[-2:]) for x in stacks]
        out = lax.map(lambda each: function(*each), matrices)
        return out.reshape(*batch, *out.shape[1:])

    return looped


@_one_at_a_time
def cholesky(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    """Lower Cholesky factor; all NaN where it does not exist."""
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@_one_at_a_time
def eigh(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d+1"]:
    """Eigenvectors as columns, and the eigenvalues (ascending) as one more column."""
    vectors, values = lax.linalg.eigh(matrix, symmetrize_input=False)
    return jnp.concatenate([vectors, values[..., None]], axis=-1)


@_one_at_a_time
def qr_triangle(matrix: Float[Array, "... n d"]) -> Float[Array, "... m d"]:
    """The triangle R of M = QR, m = min(n, d)."""
    return jnp.linalg.qr(matrix, mode="r")


def solve(
    lower: Float[Array, "... d d"], rhs: Float[Array, "... d k"], *, transpose: bool
) -> Float[Array, "... d k"]:
    """L⁻¹ B or L⁻ᵀ B; right-hand sides mapped over one L are solved together."""
    return _looped_solve(transpose)(lower, rhs)


@functools.cache
def _looped_solve(transpose: bool) -> Callable[[Array, Array], Array]:
    def solve_each(lower: Array, rhs: Array) -> Array:
        return lax.linalg.triangular_solve(
            lower, rhs, left_side=True, lower=True, transpose_a=transpose
        )

    looped = partitioned(_looped(solve_each), "... i j, ... k n -> ... l n", whole="ijkl")

    @jax.custom_batching.custom_vmap
    def mapped(lower: Array, rhs: Array) -> Array:
        return lax.platform_dependent(lower, rhs, cpu=looped, default=solve_each)

    @mapped.def_vmap
    def _(size: int, in_batched: list[bool], lower: Array, rhs: Array) -> tuple[Array, bool]:
        lower_batched, rhs_batched = in_batched
        if not lower_batched:  # many right-hand sides: they are columns
            columns = jnp.moveaxis(rhs, 0, -2)
            out = mapped(lower, columns.reshape(*rhs.shape[1:-1], size * rhs.shape[-1]))
            return jnp.moveaxis(out.reshape(columns.shape), -2, 0), True
        if not rhs_batched:
            rhs = jnp.broadcast_to(rhs, (size, *rhs.shape))
        return mapped(lower, rhs), True

    return mapped
