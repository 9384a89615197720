"""Maximum likelihood without a closed form: loops until an estimate stops changing."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from gaussjax.covariances import Cholesky, Covariance, Kronecker
from gaussjax.estimation._rules import Scatter, regular_root
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.ranges import lengths, unit_of
from gaussjax.linalg.triangular import solve

State = tuple[Any, Array, Array, Array]
"""What repeats, the least change so far, steps since that one, and all steps."""

STEPS = 5000
PATIENCE = 10
"""Steps without a smaller change than any before, after which changes are rounding noise."""


def fixed_point(
    step: Callable[[Any, Any], Any],
    change: Callable[[Any, Any], Array],
    units: Callable[[Any], list[Array]],
    args: Any,
    start: Any,
    steps: int,
) -> tuple[Any, Array]:
    """x with x = f(θ, x), and 1, or NaN where the loop does not come to rest.

    With the derivatives of that point in θ, and not those of the loop.

    `step` f and `change` depend on `args` θ alone; `units` of x has an array of scales for each of
    its leaves, in which changes of its entries are measured. NaN derivatives where a loop does not
    come to rest.
    """
    return _fixed_point(step, change, units, args, start, steps)


# dx = ∂f/∂θ dθ + J dx with J = ∂f/∂x, that is (I − J) dx = ∂f/∂θ dθ.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 5))
def _fixed_point(
    step: Callable[..., Any],
    change: Callable[..., Array],
    units: Callable[..., list[Array]],
    args: Any,
    start: Any,
    steps: int,
) -> tuple[Any, Array]:
    return until_still(functools.partial(step, args), change, start, steps)


@_fixed_point.defjvp
def _(step: Any, change: Any, units: Any, steps: int, primals: Any, tangents: Any) -> Any:
    (args, start), (dargs, _) = primals, tangents
    x, rests = _fixed_point(step, change, units, args, start, steps)
    scales = [jnp.where(u == 0, 1.0, u) for u in units(x)]
    _, rhs = jax.jvp(lambda args: step(args, x), (args,), (dargs,))
    _, along = jax.linearize(lambda x: step(args, x), x)
    dx = lax.custom_linear_solve(
        lambda v: jax.tree.map(jnp.subtract, v, along(v)),
        rhs,
        solve=functools.partial(_by_series, scales, steps),
        transpose_solve=functools.partial(_by_series, [1 / u for u in scales], steps),
    )
    return (x, rests), (jax.tree.map(lambda v: v / rests, dx), jnp.zeros_like(rests))


def _by_series(units: list[Array], steps: int, apply: Callable[[Any], Any], rhs: Any) -> Any:
    """v with (I − J) v = b, as Σ Jᵏ b: it converges as fast as steps do."""

    def step(v: Any) -> Any:
        return jax.tree.map(lambda b, v, left: b + (v - left), rhs, v, apply(v))

    def size(v: Any) -> Array:
        each = zip(jax.tree.leaves(v), units, strict=True)
        return jnp.max(jnp.stack([_largest(x / u) for x, u in each]))

    def change(old: Any, new: Any) -> Array:
        whole = size(new)
        return size(jax.tree.map(jnp.subtract, new, old)) / jnp.where(whole == 0, 1.0, whole)

    v, rests = until_still(step, change, rhs, steps)
    return jax.tree.map(lambda v: v / rests, v)


def _largest(values: Array) -> Array:
    return jnp.max(jnp.abs(values), initial=0)


def until_still(
    step: Callable[[Any], Any],
    change: Callable[[Any, Any], Array],
    start: Any,
    steps: int,
    patience: int = PATIENCE,
) -> tuple[Any, Array]:
    """Repeats a step until it changes nothing: to 16 ε, or as far as rounding lets changes fall.

    Changes above ε^¼ are none of rounding: a law that shrinks by the same share at each step has no
    point to come to.

    Also whether it came to rest within so many steps: 1, or NaN.
    """
    dtype = jnp.result_type(*jax.tree.leaves(start))
    eps = float(jnp.finfo(dtype).eps)
    tolerance, rounding = 16 * eps, eps**0.25

    def once(state: State) -> State:
        old, best, stale, count = state
        new = step(old)
        size = change(old, new)
        return new, jnp.minimum(best, size), jnp.where(size < best, 0, stale + 1), count + 1

    def moves(state: State) -> Array:
        is_stale = (state[2] >= patience) & (state[1] <= rounding)
        return (state[1] > tolerance) & ~is_stale  # NaN ends it

    zero = jnp.array(0)
    state = (start, jnp.array(jnp.inf, dtype), zero, zero)
    last = lax.while_loop(lambda s: moves(s) & (s[3] < steps), once, state)
    return last[0], jnp.where(moves(last), jnp.nan, jnp.ones((), dtype))


def units_of_law(g: Gaussian) -> list[Array]:
    """Deviations, for the mean and for the rows of the factor."""
    scale = g.cov.stddev()
    return [scale, scale[:, None]]


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

    def update(table: Array, weight: Array, lowers: list[Array], i: int) -> Array:
        """A root of Σᵢ given the others."""
        white = table
        for j, lower in enumerate(lowers):
            if j != i:
                white = _along(lambda m, low=lower: solve(low, m), white, j + 1)
        rows = jnp.moveaxis(white, i + 1, -1).reshape(-1, sizes[i])
        return regular_root(rows) / jnp.sqrt(weight * (dim // sizes[i]))

    def step(args: tuple[Array, Array], before: tuple[Array, ...]) -> tuple[Array, ...]:
        lowers = list(before)
        for i in range(count):
            lowers[i] = update(*args, lowers, i)
            if i < count - 1:  # one scale for all, that of the last
                lowers[i] = lowers[i] * math.sqrt(sizes[i]) / lengths(lowers[i].reshape(1, -1))[0]
        return tuple(lowers)

    def change(old: tuple[Array, ...], new: tuple[Array, ...]) -> Array:
        pairs = zip(old, new, strict=True)
        turned = [solve(a, b) - jnp.eye(len(a), dtype=a.dtype) for a, b in pairs]
        return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in turned]))

    def units(lowers: tuple[Array, ...]) -> list[Array]:
        return [lengths(lower)[:, None] for lower in lowers]

    count, dim = len(sizes), s.rows.shape[1]
    unit = unit_of(_largest(s.rows))
    table = (s.rows / unit).reshape(-1, *sizes)
    start = tuple(jnp.eye(n, dtype=table.dtype) for n in sizes)
    (*others, last), rests = fixed_point(step, change, units, (table, s.weight), start, STEPS)
    valid = jnp.all(s.varies) & (rests == 1)
    lowers = (*others, unit * last)
    return Kronecker(tuple(Cholesky(jnp.where(valid, x, jnp.nan)) for x in lowers))


def rows_for(sizes: tuple[int, ...]) -> int:
    """Rows from which on two factors have one estimate; of more, rows that leave none singular.

    With fewer the likelihood has no largest value, or has it at many places.

    Source: Derksen & Makam, Maximum likelihood estimation for matrix normal models via quiver
    representations, SIAM J. Appl. Algebra Geom. 5 (2021).
    """
    dim, known = math.prod(sizes), max(-(-n * n // math.prod(sizes)) for n in sizes)
    if len(sizes) == 2:
        common = math.gcd(*sizes)
        most = 1 if common == 1 else -1
        while (sizes[0] ** 2 + sizes[1] ** 2 - known * dim) // common**2 > most:
            known += 1
    return known + 1  # one is for the mean


def _along(function: Callable[[Array], Array], table: Array, axis: int) -> Array:
    """`function` of the matrix whose columns run along this axis."""
    front = jnp.moveaxis(table, axis, 0)
    return jnp.moveaxis(function(front.reshape(len(front), -1)).reshape(front.shape), 0, axis)
