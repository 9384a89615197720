"""LAPACK's factorisations, one matrix at a time on CPUs.

jaxlib up to 0.10.2 splits a batch of LAPACK calls over the thread pool that it runs on and blocks
in it, so two batched calls at once can wait for each other for ever on a machine with few cores.
A single matrix is never split. So on CPUs a batch is a loop over matrices here; other devices get
the batched kernel. From jaxlib 0.11 on the loop is no longer needed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def _one_at_a_time(function: Callable[..., Array]) -> Callable[..., Array]:
    looped = jax.custom_batching.sequential_vmap(function)

    def on_this_device(*args: Array) -> Array:
        return lax.platform_dependent(*args, cpu=looped, default=function)

    return on_this_device


@_one_at_a_time
def cholesky(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Lower Cholesky factor; all NaN where it does not exist."""
    return lax.linalg.cholesky(matrix, symmetrize_input=False)


@_one_at_a_time
def eigh(matrix: Float[Array, "d d"]) -> Float[Array, "d d+1"]:
    """Eigenvectors as columns, and the eigenvalues (ascending) as one more column."""
    vectors, values = lax.linalg.eigh(matrix, symmetrize_input=False)
    return jnp.concatenate([vectors, values[:, None]], axis=1)


@_one_at_a_time
def qr_triangle(matrix: Float[Array, "n d"]) -> Float[Array, "m d"]:
    """The triangle R of M = QR, m = min(n, d)."""
    return jnp.linalg.qr(matrix, mode="r")


def solve(lower: Array, rhs: Float[Array, "d k"], *, transpose: bool) -> Array:
    """L⁻¹ B or L⁻ᵀ B; right-hand sides mapped over one L are solved together."""
    return lax.platform_dependent(
        lower,
        rhs,
        cpu=_looped_solve(transpose),
        default=functools.partial(_solve, transpose=transpose),
    )


def _solve(lower: Array, rhs: Array, *, transpose: bool) -> Array:
    return lax.linalg.triangular_solve(
        lower, rhs, left_side=True, lower=True, transpose_a=transpose
    )


@functools.cache
def _looped_solve(transpose: bool) -> Callable[[Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def solve_one(lower: Array, rhs: Array) -> Array:
        return _solve(lower, rhs, transpose=transpose)

    @solve_one.def_vmap
    def _(axis_size: int, in_batched: list[bool], lower: Array, rhs: Array) -> tuple[Array, bool]:
        lower_batched, rhs_batched = in_batched
        if not lower_batched:  # one L, many right-hand sides: they are columns
            columns = jnp.moveaxis(rhs, 0, 1).reshape(rhs.shape[1], -1)
            out = solve_one(lower, columns)
            return jnp.moveaxis(out.reshape(rhs.shape[1], axis_size, rhs.shape[2]), 1, 0), True
        if not rhs_batched:
            return lax.map(lambda matrix: solve_one(matrix, rhs), lower), True
        return lax.map(lambda pair: solve_one(*pair), (lower, rhs)), True

    return solve_one
