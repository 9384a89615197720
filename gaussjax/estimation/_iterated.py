"""Maximum likelihood without a closed form: loops until an estimate stops changing."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from gaussjax.covariances import Cholesky, Covariance, Kronecker
from gaussjax.estimation._rules import Scatter, regular_root
from gaussjax.linalg.triangular import solve

STEPS = 500
PATIENCE = 10
"""Steps without a smaller change than any before, after which changes are rounding noise."""


def until_still(
    step: Callable[[Any], Any], change: Callable[[Any, Any], Array], start: Any, steps: int
) -> Any:
    """Repeats a step until it changes nothing: to 16 ε, or as far as rounding lets changes fall."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    tolerance = 16 * float(jnp.finfo(dtype).eps)

    def once(state: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
        old, best, stale, count = state
        new = step(old)
        size = change(old, new)
        return new, jnp.minimum(best, size), jnp.where(size < best, 0, stale + 1), count + 1

    def goes_on(state: tuple[Any, Array, Array, Array]) -> Array:
        _, best, stale, count = state
        return (best > tolerance) & (stale < PATIENCE) & (count < steps)  # NaN ends it

    zero = jnp.array(0)
    return lax.while_loop(goes_on, once, (start, jnp.array(jnp.inf, dtype), zero, zero))[0]


def change_of_law(shift: Array, old: Covariance, new: Covariance) -> Array:
    """The largest entry of L⁻¹ (μ' − μ) and of L⁻¹ L' − I: in units that do not depend on any."""
    lower = old.dense_factor()
    turned = solve(lower, new.dense_factor()) - jnp.eye(old.dim, dtype=lower.dtype)
    moved = jnp.max(jnp.abs(old.whiten(shift)), initial=0)
    return jnp.maximum(moved, jnp.max(jnp.abs(turned), initial=0))


def kronecker(s: Scatter, sizes: tuple[int, ...]) -> Covariance:
    """Each factor in turn from rows that are whitened by the others (flip-flop).

    Source: Dutilleul, J. Stat. Comput. Simul. 64 (1999).
    """
    k, d = s.rows.shape
    table = s.rows.reshape(k, *sizes)
    count = len(sizes)

    def update(lowers: list[Array], i: int) -> Array:
        """A root of Σᵢ given the others."""
        white = table
        for j, lower in enumerate(lowers):
            if j != i:
                white = _along(lambda m, low=lower: solve(low, m), white, j + 1)
        rows = jnp.moveaxis(white, i + 1, -1).reshape(-1, sizes[i])
        return regular_root(rows) / jnp.sqrt(s.weight * (d // sizes[i]))

    def step(before: tuple[Array, ...]) -> tuple[Array, ...]:
        lowers = list(before)
        for i in range(count):
            lowers[i] = update(lowers, i)
            if i < count - 1:  # one scale for all, that of the last
                lowers[i] = lowers[i] * math.sqrt(sizes[i]) / jnp.sqrt(jnp.sum(lowers[i] ** 2))
        return tuple(lowers)

    def change(old: tuple[Array, ...], new: tuple[Array, ...]) -> Array:
        pairs = zip(old, new, strict=True)
        turned = [solve(a, b) - jnp.eye(len(a), dtype=a.dtype) for a, b in pairs]
        return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in turned]))

    start = tuple(jnp.eye(n, dtype=table.dtype) for n in sizes)
    lowers = until_still(step, change, start, STEPS)
    valid = jnp.all(s.varies)
    return Kronecker(tuple(Cholesky(jnp.where(valid, x, jnp.nan)) for x in lowers))


def _along(function: Callable[[Array], Array], table: Array, axis: int) -> Array:
    """`function` of the matrix whose columns run along this axis."""
    front = jnp.moveaxis(table, axis, 0)
    return jnp.moveaxis(function(front.reshape(len(front), -1)).reshape(front.shape), 0, axis)
