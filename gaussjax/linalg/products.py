"""Matrix products at full precision.

JAX's default product is TF32 on GPUs and bfloat16 on TPUs; a covariance needs all its digits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift

WHOLE = 128  # largest triangle that meets another as a whole: for smaller ones zeros cost less


def dot(a: Array, b: Array) -> Array:
    """Matrix product in the arguments' own precision, on every device."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def with_transpose(
    function: Callable[..., Any],
    transpose: Callable[..., Any],
    *,
    linear: int = 1,
    derivative: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """A function that is linear in its last arguments, with a transpose in those.

    `transpose` takes the other arguments and one cotangent, shaped like the result, and returns a
    tuple. Derivatives are those of `derivative`, or else of `function`. JAX attaches a custom
    transpose only to a linear solve: here that of x' = x, y − f(x') = 0.
    """
    # Traced once, not for its shapes, its equation and each of its derivatives.
    function = jax.jit(function, inline=True)
    derivative = function if derivative is None else jax.jit(derivative, inline=True)

    @jax.custom_jvp
    def transposable(*args: Any) -> Any:
        others, x = args[:-linear], args[-linear:]
        like = jax.tree.map(jnp.zeros_like, jax.eval_shape(derivative, *args))
        (flat, back), (out, unravel) = ravel_pytree(x), ravel_pytree(like)

        def smooth(x: Array) -> Array:
            return ravel_pytree(derivative(*others, *back(x)))[0]

        def solve(_: Any, b: tuple[Array, Array]) -> tuple[Array, Array]:
            return b[0], b[1] + ravel_pytree(function(*others, *back(b[0])))[0]

        def transpose_solve(_: Any, c: tuple[Array, Array]) -> tuple[Array, Array]:
            return c[0] + ravel_pytree(tuple(transpose(*others, unravel(c[1]))))[0], c[1]

        # JAX makes no transpose for constants, so the zeros and ones depend on the arguments.
        def zeros(like: Any, size: int) -> Array:
            return jnp.pad(ravel_pytree(like)[0][:0], (0, size))

        ones = 1 + zeros(others, flat.size), 1 + zeros(others, out.size)
        solution: Any = lax.custom_linear_solve(
            lambda xy: (ones[0] * xy[0], ones[1] * xy[1] - smooth(xy[0])),
            (flat, zeros(x, out.size)),
            solve,
            transpose_solve,
        )
        return unravel(solution[1] + zeros(solution[0], out.size))

    @transposable.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return transposable(*primals), jax.jvp(derivative, primals, tangents)[1]

    return transposable


@jax.custom_jvp
def with_derivative_of(value: Array, other: Array) -> Array:
    """`value` with the derivative of what it equals, which only a derivative computes."""
    return value


@with_derivative_of.defjvp
def _(primals, tangents):
    return with_derivative_of(*primals), tangents[1]


def linear(
    function: Callable[[Array], Array], transpose: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """A linear function and its transpose: JAX would scatter to transpose a read, which is slow."""
    function = jax.jit(function, inline=True)
    along = with_transpose(function, lambda c: (transpose(c),))
    mapped = jax.custom_jvp(function)
    mapped.defjvp(lambda primals, tangents: (mapped(*primals), along(*tangents)))
    return mapped


def diagonal_matrix(diagonal: Float[Array, " d"]) -> Float[Array, "d d"]:
    """The matrix with this diagonal, and zeros beside it."""
    return jnp.where(np.eye(len(diagonal), dtype=bool), diagonal[:, None], 0.0)


diagonal: Callable[[Array], Array] = linear(lambda matrix: jnp.diagonal(matrix), diagonal_matrix)
"""The diagonal of a square matrix."""


def gram(factor: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """F Fᵀ, exactly symmetric."""
    product = jnp.tril(dot(factor, factor.T))
    return product + jnp.tril(product, -1).T


@lift
def lower_product(
    a: Float[Array, "... d d"], b: Float[Array, "... d d"]
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
    _errors.square("a", a)
    _errors.square("b", b)
    _errors.same_dim("b", b.shape[-1], b.shape, a.shape[-1], "a")
    return jnp.tril(dot(jnp.tril(a), jnp.tril(b)))


def product_with_transpose(a: Float[Array, "d d"], b: Float[Array, "d d"]) -> Array:
    """Lower triangle of A Bᵀ for lower triangles that are zero above the diagonal. O(d³)

    By halves, which saves half of the work.
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
    upper = jnp.pad(first, ((0, 0), (0, last.shape[1])))  # a constant would not be batched
    return jnp.concatenate([upper, jnp.concatenate([below, last], axis=1)])
