"""Maximum likelihood where there is no closed form: loops until an estimate stays as it is."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from gaussjax.covariances import Cholesky, Covariance, Kronecker
from gaussjax.estimation._rules import Scatter, regular_root
from gaussjax.linalg.triangular import solve

STEPS = 500


def kronecker(s: Scatter, sizes: tuple[int, ...]) -> Covariance:
    """Each factor in turn from rows that are whitened by the others (flip-flop).

    Source: Dutilleul, J. Stat. Comput. Simul. 64 (1999).
    """
    k, d = s.rows.shape
    table = s.rows.reshape(k, *sizes)
    count = len(sizes)
    tolerance = 4 * max(sizes) * float(jnp.finfo(table.dtype).eps)

    def update(lowers: list[Array], i: int) -> Array:
        """A root of Σᵢ given the others."""
        white = table
        for j, lower in enumerate(lowers):
            if j != i:
                white = _along(lambda m, low=lower: solve(low, m), white, j + 1)
        rows = jnp.moveaxis(white, i + 1, -1).reshape(-1, sizes[i])
        return regular_root(rows) / jnp.sqrt(s.weight * (d // sizes[i]))

    def step(state: tuple[tuple[Array, ...], Array, Array]) -> tuple[Any, ...]:
        before, _, steps = state
        lowers = list(before)
        for i in range(count):
            lowers[i] = update(lowers, i)
            if i < count - 1:  # one scale for all, that of the last
                lowers[i] = lowers[i] * math.sqrt(sizes[i]) / jnp.sqrt(jnp.sum(lowers[i] ** 2))
        pairs = zip(lowers, before, strict=True)
        change = [jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a)) for a, b in pairs]
        return tuple(lowers), jnp.max(jnp.stack(change)), steps + 1

    def goes_on(state: tuple[Any, ...]) -> Array:
        return (state[1] > tolerance) & (state[2] < STEPS)

    dtype = table.dtype
    start = tuple(jnp.eye(n, dtype=dtype) for n in sizes)
    lowers, _, _ = lax.while_loop(goes_on, step, (start, jnp.array(jnp.inf, dtype), jnp.array(0)))
    valid = jnp.all(s.varies)
    return Kronecker(tuple(Cholesky(jnp.where(valid, x, jnp.nan)) for x in lowers))


def _along(function: Callable[[Array], Array], table: Array, axis: int) -> Array:
    """`function` of the matrix whose columns run along this axis."""
    front = jnp.moveaxis(table, axis, 0)
    return jnp.moveaxis(function(front.reshape(len(front), -1)).reshape(front.shape), 0, axis)
