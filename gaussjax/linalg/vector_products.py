"""Products of a lower triangle and a vector: d² operations on d² numbers, read once.

So nothing else may be read or written: no copy of the triangle with zeros above its diagonal, no
matrix for each of many vectors, no noise recomputed for every row.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import limits, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.devices import with_vmap
from gaussjax.linalg.products import dot, with_transpose

LANES = 16  # columns of what is too large for strips that are multiplied at once
ONE_PASS = 1024  # largest triangle that is not multiplied by halves


def lower_times_vector(lower: Float[Array, "d d"], vector: Float[Array, " d"]) -> Array:
    """L v of one lower triangle. O(d²)"""
    if lower.shape[-1] == 0:  # whose transpose JAX gives the wrong rank inside `jit` and `vmap`
        return vector
    return _product(lower, vector)


def for_vectors(
    own: Callable[[Array, Array], Array], shared: Callable[[Array, Array], Array], *, to: int = 1
) -> Callable[[Array, Array], Array]:
    """`own(matrix, vector)` under `vmap`, or `shared(matrix, rows)` for many rows and one matrix.

    Both are written for any leading axes; what they give for each vector has `to` axes.
    """

    def by_vmap(size: int, batched: list[bool], matrix: Array, vector: Array) -> tuple[Array, bool]:
        if not batched[0]:
            rows = jnp.moveaxis(vector, 0, -2)
            return jnp.moveaxis(shared(matrix, rows), -1 - to, 0), True
        if not batched[1]:  # of the batch, and sharded like it
            vector = jnp.zeros_like(matrix[..., 0]) + vector[None]
        return mapped(matrix, vector), True

    mapped = with_vmap(own, by_vmap)
    return mapped


def _times(lower: Array, vector: Array) -> Array:
    return (_times_one_by_one if vector.size <= limits.NATIVE else _larger_times)(lower, vector)


def _of_one(lower: Array, vector: Array) -> Array:
    return dot(jnp.tril(lower), vector)


def _written(lower: Array, vector: Array) -> Array:
    # Many rows would recompute the noise, and in float64 each row would.
    is_costly = vector.dtype.itemsize > 4 or vector.size == limits.PRODUCT
    return small.lower_times_vector(lower, stored(vector) if is_costly else vector)


_times_one_by_one = kernel(
    "d d, d -> d", written=_written, tile=None, native="product", fused=limits.PRODUCT
)(_of_one)


def _in_one_pass(lower: Array, vector: Array) -> Array:
    """L v, without a copy of L that is cleared above the diagonal."""

    def on_cpu(lower: Array, vector: Array) -> Array:
        return _by_blocks(lower, stored(vector))

    def at_once(lower: Array, vector: Array) -> Array:
        return jnp.sum(jnp.tril(lower) * vector[..., None, :], axis=-1)

    return lax.platform_dependent(lower, vector, cpu=on_cpu, default=at_once)


# The derivative is that of a product, whose transpose neither scatters nor needs a d² array for
# each of many vectors.
_product = with_transpose(
    _times,
    lambda lower, c: (dot(jnp.tril(lower).T, c),),
    derivative=_of_one,
)

_larger_times = for_vectors(_in_one_pass, lambda lower, rows: dot(rows, jnp.tril(lower).mT))


def stored(vector: Array) -> Array:
    """The same numbers, materialised by XLA before they are used.

    Otherwise it would recompute them, such as noise, for every row. XLA does not recompute a
    division in each consumer, and cannot see that this divisor is 1 (a test counts the operations).
    """
    one = (vector == vector).astype(vector.dtype) + (vector != vector).astype(vector.dtype)
    return vector / one


def _by_blocks(lower: Array, vector: Array) -> Array:
    """L v by blocks of rows, reading only the columns that have entries."""
    d = vector.shape[-1]
    if d > ONE_PASS:
        n = d // 2
        first = _by_blocks(lower[..., :n, :n], vector[..., :n])
        side = dot(lower[..., n:, :n], vector[..., :n, None])[..., 0]
        return jnp.concatenate([first, side + _by_blocks(lower[..., n:, n:], vector[..., n:])], -1)
    size = LANES * -(-d // (4 * LANES))
    starts = range(0, d, size)
    parts = [_rows_times_vector(lower[..., i : i + size, :], vector, i) for i in starts]
    return jnp.concatenate(parts, axis=-1)


def _rows_times_vector(rows: Array, vector: Array, start: int) -> Array:
    """Rows of L from `start` on times v, in operations of whole registers.

    A reduction over the columns would process them one by one.
    """
    terms = []
    for first in range(0, start + rows.shape[-2], LANES):
        columns = rows[..., first : first + LANES]
        columns = jnp.tril(columns, start - first) if first >= start else columns
        terms.append(columns * vector[..., None, first : first + LANES])
    missing = LANES - terms[-1].shape[-1]
    if missing:
        terms[-1] = jnp.pad(terms[-1], [*[(0, 0)] * (terms[-1].ndim - 1), (0, missing)])
    total, n = functools.reduce(jnp.add, terms), LANES
    while n > 1:
        n //= 2
        total = total[..., :n] + total[..., n:]
    return total[..., 0]
