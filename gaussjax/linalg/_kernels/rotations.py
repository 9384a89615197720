"""Unrolled kernels for small lower roots whose rows change order, by Givens rotations.

The conventions are those of `small.py`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import small


def reordered_root(
    lower: Float[Array, "d d"], kept: Sequence[int], given: Sequence[int]
) -> Float[Array, "d d"]:
    """The lower root of the rows of L given and then kept, by Givens rotations of its columns."""
    columns, order = _rotated_columns(lower, kept, given), [*given, *kept]
    return jnp.tril(jnp.stack([_at(columns[j], order) for j in order], axis=1))


def condition(
    lower: Float[Array, "d d"],
    values: Float[Array, " m"],
    kept: Sequence[int],
    given: Sequence[int],
) -> tuple[Float[Array, " n"], Float[Array, "n n"], Float[Array, ""], Float[Array, ""]]:
    """What `conditional.py` makes of that root, which is not stored."""
    columns = _rotated_columns(lower, kept, given)
    rows = [[columns[g][i] for g in given[: n + 1]] for n, i in enumerate(given)]
    whitened = small.forward(rows, small.scalars(values))
    mean = small.total([_at(columns[g], kept) * w for g, w in zip(given, whitened, strict=True)])
    root = jnp.stack([_at(columns[j], kept) for j in kept], axis=1)
    logdet = 2 * small.logdet_of_pivots([row[-1] for row in rows])
    return mean, root, small.total([w * w for w in whitened]), logdet


def _rotated_columns(lower: Array, kept: Sequence[int], given: Sequence[int]) -> list[Array]:
    """L Q for the rotations Q that clear each row given left of its diagonal, in columns kept.

    Those stay zero above their diagonals, when the rotations go from right to left.
    """
    d = lower.shape[-1]
    columns = [lower[j:, j] for j in range(d)]  # from some row on; all is zero above
    for g in given:
        pivot = columns[g]
        for i in reversed([k for k in kept if k < g]):
            pivot = jnp.pad(pivot, (d - i - pivot.shape[0], 0))
            pivot, columns[i] = _rotated(pivot, columns[i], g - i)
        columns[g] = pivot
    return [jnp.pad(column, (d - column.shape[0], 0)) for column in columns]


def _rotated(pivot: Array, other: Array, row: int) -> tuple[Array, Array]:
    """Two columns after the rotation that makes this row of `other` zero."""
    a, b = pivot[row], other[row]
    unit = small.nonzero(jnp.maximum(jnp.abs(a), jnp.abs(b)))  # in which squares are in range
    a, b = a / unit, b / unit
    length = jnp.sqrt(a * a + b * b)
    cosine = jnp.where(length == 0, 1.0, a) / small.nonzero(length)  # where both are zero, none
    sine = b / small.nonzero(length)
    return cosine * pivot + sine * other, cosine * other - sine * pivot


def _at(column: Array, positions: Sequence[int]) -> Array:
    return jnp.stack([column[i] for i in positions])
