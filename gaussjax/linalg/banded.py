"""Lower triangles with b subdiagonals, stored as `(b + 1, d)`: row k holds Lᵢ₊ₖ,ᵢ at i.

That is the lower form of `scipy.linalg.solveh_banded`; entries past the end (i + k ≥ d) are not
read. Substitutions are recurrences along d. They run on chunks of about √d side by side, twice:
first to find how each chunk maps the b values before it to its last b values, then, once those are
known for every chunk, for the values themselves. That is 2√d steps instead of d, for twice the
work.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import logdet_of_diagonal


def cleaned(lower: Float[Array, "w d"]) -> Float[Array, "w d"]:
    """The triangle with zeros past the end."""
    width, d = lower.shape
    inside = jnp.arange(width)[:, None] + jnp.arange(d)[None] < d
    return jnp.where(inside, lower, 0.0)


def logdet(lower: Float[Array, "w d"]) -> Float[Array, ""]:
    """log|L|. O(d)"""
    return logdet_of_diagonal(lower[0])


def times(lower: Float[Array, "w d"], vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """L v. O(db)"""
    rows = enumerate(cleaned(lower))
    return sum((_later(row * vector, k) for k, row in rows), jnp.zeros_like(vector))


def times_transpose(lower: Float[Array, "w d"], vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """Lᵀ v. O(db)"""
    rows = enumerate(cleaned(lower))
    return sum((row * earlier(vector, k) for k, row in rows), jnp.zeros_like(vector))


def solve(lower: Float[Array, "w d"], rhs: Float[Array, " d"]) -> Float[Array, " d"]:
    """L⁻¹ v. O(db²)"""
    return _linear_solve(lower, rhs, transpose=False)


def solve_transpose(lower: Float[Array, "w d"], rhs: Float[Array, " d"]) -> Float[Array, " d"]:
    """L⁻ᵀ v. O(db²)"""
    return _linear_solve(lower, rhs, transpose=True)


def gram(lower: Float[Array, "w d"]) -> Float[Array, "w d"]:
    """Diagonals of L Lᵀ: row k holds its entry (i, i + k) at i. O(db²)"""
    lower = cleaned(lower)
    width = lower.shape[0]
    rows = [
        sum(
            (_later(lower[j] * lower[j + k], j) for j in range(width - k)), jnp.zeros_like(lower[0])
        )
        for k in range(width)
    ]
    return jnp.stack(rows)


def symmetric_times(
    diagonals: Float[Array, "w d"], vector: Float[Array, " d"]
) -> Float[Array, " d"]:
    """A v for the symmetric A with these diagonals. O(db)"""
    both = times(diagonals, vector) + times_transpose(diagonals, vector)
    return both - diagonals[0] * vector


def cholesky(diagonals: Float[Array, "w d"]) -> Float[Array, "w d"]:
    """Lower factor of the symmetric matrix with these diagonals; all NaN if it has none. O(db²)

    `diagonals[k, i]` is the entry (i + k, i).
    """
    width = diagonals.shape[0]

    def step(before: Array, column: Array) -> tuple[Array, Array]:
        # before[j − 1] is column i − j of L; its entries from row i on are shifted by j
        for j in range(1, width):
            done = before[j - 1, j] * before[j - 1, j:]
            column = column.at[: width - j].add(-done)
        pivot = jnp.where(column[0] > 0, column[0], jnp.nan)
        column = column / jnp.sqrt(pivot)
        return jnp.concatenate([column[None], before])[: width - 1], column

    start = jnp.zeros((width - 1, width), diagonals.dtype)
    lower = lax.scan(step, start, cleaned(diagonals).T)[1].T
    return jnp.where(jnp.all(jnp.isfinite(lower)), lower, jnp.nan)


def selected_inverse(lower: Float[Array, "w d"]) -> Float[Array, "w d"]:
    """The diagonals 0 … b of (L Lᵀ)⁻¹: row k holds its entry (i, i + k) at i. O(db²)

    Source: Takahashi, Fagan & Chen (1973). With Lᵀx = ε the process runs backwards,
    xᵢ = (εᵢ − Σ Lᵢ₊ₖ,ᵢ xᵢ₊ₖ)/Lᵢᵢ, and so do the covariances of b neighbours.
    """
    b = lower.shape[0] - 1
    lower = cleaned(lower)
    weights, noise = lower[1:] / lower[:1], 1 / jnp.square(lower[0])

    def step(window: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, q = x  # window: covariance of x_{i+1} … x_{i+b}
        cross = -dot(window, weight)
        row = jnp.concatenate([(q - dot(weight, cross))[None], cross])
        inner = jnp.concatenate([row[1:b, None], window[: b - 1, : b - 1]], axis=1)
        return jnp.concatenate([row[None, :b], inner]), row

    def through(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        """How a chunk turns the window S that enters it into F S Fᵀ + Q: (Q, F)."""
        added, _ = lax.scan(step, jnp.zeros((b, b), lower.dtype), chunk)
        units = jnp.eye(b, dtype=lower.dtype)
        moved = jax.vmap(lambda s: lax.scan(_recur, s, (chunk[0], jnp.zeros_like(chunk[1])))[0])
        return added, moved(units).T

    def enter(window: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        added, moved = chunk
        return dot(dot(moved, window), moved.T) + added, window

    if b == 0:
        return noise[None]
    data = weights[:, ::-1].T, noise[::-1]
    return _in_chunks(step, through, enter, jnp.zeros((b, b), lower.dtype), data)[::-1].T


def _linear_solve(lower: Array, rhs: Array, *, transpose: bool) -> Array:
    lower = cleaned(lower)
    forward, backward = times, times_transpose
    product, solver = (backward, _substitute_back) if transpose else (forward, _substitute)
    other = _substitute if transpose else _substitute_back
    return lax.custom_linear_solve(
        lambda x: product(lower, x),
        rhs,
        solve=lambda _, v: solver(lower, v),
        transpose_solve=lambda _, v: other(lower, v),
    )


def _substitute(lower: Array, rhs: Array) -> Array:
    weights = jnp.stack([_later(row, k) for k, row in enumerate(lower)])  # Lᵢ,ᵢ₋ₖ at i
    return _recurrence(weights[1:] / weights[:1], rhs / weights[0])


def _substitute_back(lower: Array, rhs: Array) -> Array:
    weights = lower[1:] / lower[:1]
    return _recurrence(weights[:, ::-1], (rhs / lower[0])[::-1])[::-1]


def _recurrence(weights: Float[Array, "b d"], driving: Float[Array, " d"]) -> Array:
    """The y with yᵢ = cᵢ − Σₖ wₖᵢ yᵢ₋ₖ, zero before the start."""
    b = weights.shape[0]
    if b == 0:
        return driving
    units = jnp.eye(b, dtype=driving.dtype)

    def through(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        added, _ = lax.scan(_recur, jnp.zeros(b, driving.dtype), chunk)
        still = chunk[0], jnp.zeros_like(chunk[1])
        return added, jax.vmap(lambda s: lax.scan(_recur, s, still)[0])(units).T

    def enter(state: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        added, moved = chunk
        return dot(moved, state) + added, state

    return _in_chunks(_recur, through, enter, jnp.zeros(b, driving.dtype), (weights.T, driving))


def _recur(state: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
    weight, driving = x
    value = driving - jnp.sum(weight * state)
    return jnp.concatenate([value[None], state[:-1]]), value


def _in_chunks(
    step: Callable[..., tuple[Array, Array]],
    through: Callable[..., tuple[Array, Array]],
    enter: Callable[..., tuple[Array, Array]],
    start: Array,
    data: tuple[Array, Array],
) -> Array:
    """`lax.scan(step, start, data)[1]` for a step that is affine in its state, √d at a time."""
    d = data[1].shape[0]
    length = math.isqrt(d)
    if length < 8:
        return lax.scan(step, start, data)[1]
    count = -(-d // length)
    pad = count * length - d
    chunks = jax.tree.map(
        lambda x: jnp.pad(x, ((0, pad), *[(0, 0)] * (x.ndim - 1))).reshape(
            count, length, *x.shape[1:]
        ),
        data,
    )
    _, starts = lax.scan(enter, start, jax.vmap(through)(chunks))
    outputs = jax.vmap(lambda s, chunk: lax.scan(step, s, chunk)[1])(starts, chunks)
    return outputs.reshape(count * length, *outputs.shape[2:])[:d]


def _later(row: Array, k: int) -> Array:
    """Entry i is row[i − k], zero before the start."""
    return row if k == 0 else jnp.pad(row, (k, 0))[: row.shape[0]]


def earlier(row: Array, k: int) -> Array:
    """Entry i is row[i + k], zero past the end."""
    return row if k == 0 else jnp.pad(row[k:], (0, min(k, row.shape[0])))
