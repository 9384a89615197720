"""Matrix products at full precision.

JAX's default product is TF32 on GPUs and bfloat16 on TPUs; a covariance needs all its digits.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax import _checks
from gaussjax._batching import lift
from gaussjax.linalg import small

WHOLE = 128  # largest triangle that meets another as a whole: for smaller ones zeros cost less
LANES = 16  # columns that are multiplied at once
ONE_PASS = 1024  # largest triangle whose product with a vector is not taken by halves


def dot(a: Array, b: Array, /) -> Array:
    """Matrix product in the arguments' own precision, on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def gram(factor: Float[Array, "d k"], /) -> Float[Array, "d d"]:
    """F Fᵀ, symmetric to the bit."""
    product = jnp.tril(dot(factor, factor.T))
    return product + jnp.tril(product, -1).T


@lift(2, 2)
def lower_product(
    a: Float[Array, "... d d"], b: Float[Array, "... d d"], /
) -> Float[Array, "... d d"]:
    """Product A B of two lower triangles, a lower triangle. O(d³)

    `a` and `b` are `(..., d, d)`; what stands above their diagonals is ignored.

    Raises:
        ValueError: a matrix is not square, or the sizes differ.

    Source: Golub & Van Loan, Matrix Computations, §1.2.

    >>> lower_product([[2.0, 0.0], [1.0, 1.0]], [[1.0, 9.0], [1.0, 3.0]])
    Array([[2., 0.],
           [2., 3.]], dtype=float32)
    """
    _checks.square("a", a)
    _checks.square("b", b)
    _checks.same_dim("b", b.shape[-1], b.shape, a.shape[-1], "a")
    return jnp.tril(dot(jnp.tril(a), jnp.tril(b)))


def product_with_transpose(a: Float[Array, "d d"], b: Float[Array, "d d"]) -> Array:
    """Lower triangle of A Bᵀ for lower triangles that are zero above the diagonal. O(d³)

    By halves, which skips half of the work.
    """
    d = a.shape[-1]
    if d <= WHOLE:
        return jnp.tril(dot(a, b.T))
    n = d // 2
    first = product_with_transpose(a[:n, :n], b[:n, :n])
    last = product_with_transpose(a[n:, n:], b[n:, n:]) + jnp.tril(dot(a[n:, :n], b[n:, :n].T))
    return from_halves(first, dot(a[n:, :n], b[:n, :n].T), last)


def from_halves(first: Array, below: Array, last: Array) -> Array:
    """The lower triangle with these blocks."""
    upper = jnp.pad(first, ((0, 0), (0, last.shape[1])))  # a constant would be no part of a batch
    return jnp.concatenate([upper, jnp.concatenate([below, last], axis=1)])


def lower_times_vector(lower: Float[Array, "d d"], vector: Float[Array, " d"]) -> Array:
    """L v of one lower triangle. O(d²)"""
    if lower.shape[-1] == 0:  # whose transpose JAX gives the wrong rank inside `jit` and `vmap`
        return vector
    return _product(lower, vector)


# The derivative is that of a product, whose transpose does not scatter, nor need an array of d² for
# each of many vectors.
@jax.custom_jvp
def _product(lower: Array, vector: Array) -> Array:
    if vector.size <= small.VECTOR_LIMIT:
        return small.lower_times_vector(lower, vector)
    return _times_vector(lower, vector)


@_product.defjvp
def _(primals, tangents):
    (lower, vector), (dlower, dvector) = primals, tangents
    change = dot(jnp.tril(dlower), vector) + dot(jnp.tril(lower), dvector)
    return _product(lower, vector), change


def for_vectors(
    own: Callable[[Array, Array], Array], shared: Callable[[Array, Array], Array]
) -> Callable[[Array, Array], Array]:
    """`own(matrix, vector)` under `vmap`, or `shared(matrix, rows)` for many rows and one matrix.

    Both are written for any leading axes.
    """

    @jax.custom_batching.custom_vmap
    def mapped(matrix: Array, vector: Array) -> Array:
        return own(matrix, vector)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], matrix: Array, vector: Array) -> tuple[Array, bool]:
        if not batched[0]:
            rows = jnp.moveaxis(vector, 0, -2)
            return jnp.moveaxis(shared(matrix, rows), -2, 0), True
        if not batched[1]:  # of the batch, and sharded like it
            vector = jnp.zeros_like(matrix[..., 0]) + vector[None]
        return mapped(matrix, vector), True

    return mapped


def _times_vector(lower: Array, vector: Array) -> Array:
    """L v and, for what transposes it, Lᵀ c.

    JAX lets a linear function have a transpose of its own only as a solve. Of which equation is
    asked for derivatives in L alone, and those are `_product`'s.
    """
    return lax.custom_linear_solve(
        lambda x: x,
        vector,
        solve=lambda _, v: _times(lower, v),
        transpose_solve=lambda _, c: dot(jnp.tril(lower).T, c),
    )


def _in_one_pass(lower: Array, vector: Array) -> Array:
    """L v, without a copy of L that is cleared above the diagonal."""

    def by_blocks(lower: Array, vector: Array) -> Array:
        return _by_blocks(lower, _stored(vector))

    def at_once(lower: Array, vector: Array) -> Array:
        return jnp.sum(jnp.tril(lower) * vector[..., None, :], axis=-1)

    return lax.platform_dependent(lower, vector, cpu=by_blocks, default=at_once)


_times = for_vectors(_in_one_pass, lambda lower, rows: dot(rows, jnp.tril(lower).mT))


def _stored(vector: Array) -> Array:
    """The same numbers, of which XLA makes an array before they are used.

    It would compute what they are products of, such as noise, again for every row. Divisions it
    does not repeat, nor does it know that these are by one (a test counts the operations).
    """
    one = (vector == vector).astype(vector.dtype) + (vector != vector).astype(vector.dtype)
    return vector / one


def _by_blocks(lower: Array, vector: Array) -> Array:
    """L v by blocks of rows, of which only columns with entries are read."""
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

    A reduction over the columns would take them one by one.
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
