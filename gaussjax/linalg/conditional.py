"""Some coordinates of a zero-mean law given the values of others, from a root of the covariance.

The lower root of the coordinates given and then kept is [[A, 0], [B, C]]: values v have the squared
length ‖A⁻¹v‖² and the log-determinant log|A Aᵀ|, the others the mean B A⁻¹v and the root C. Nothing
is subtracted. A root in another order is brought there by orthogonal transformations of its
columns: by QR, or, for small triangles, by rotations that leave alone what is zero already.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax.linalg import small
from gaussjax.linalg.looped import TILE, looped
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import logdet_of_triangle, solve

Positions = tuple[int, ...]
Function = Callable[..., Any]

ROTATIONS = 36  # most that are worth their time to compile, two seconds


class Conditioned(NamedTuple):
    """Mean and lower root of the coordinates kept; ‖A⁻¹v‖² and log|A Aᵀ| of the values given."""

    mean: Float[Array, " n"]
    root: Float[Array, "n n"]
    distance: Float[Array, ""]
    logdet: Float[Array, ""]


def condition_rows(rows: Float[Array, "d k"], values: Float[Array, " m"]) -> Conditioned:
    """From the rows of any root, the m given first. O(d² k)"""
    return _from_triangle(triangular_root(rows), values)


def condition_triangle(
    lower: Float[Array, "d d"], values: Float[Array, " m"], *, kept: Positions, given: Positions
) -> Conditioned:
    """From a lower triangle whose rows `given` have these values; both in order. O(d³)"""
    rotations = _rotations(kept, given)
    if 0 < rotations <= ROTATIONS:
        return Conditioned(*_by_rotations(kept, given)(lower, values))
    lower = jnp.tril(lower)
    if rotations == 0:
        return _from_triangle(lower, values)
    return condition_rows(lower[np.array([*given, *kept])], values)


def condition_observed(
    root: Float[Array, "d k"],
    seen: Float[Array, "m k"],
    noise: Float[Array, "m n"],
    values: Float[Array, " m"],
    *,
    triangles: bool,
) -> Conditioned:
    """Of F z where G z + N e has these values. O((d + m)³)

    `triangles` says that F and N are lower ones.
    """
    if triangles and 0 < _rotations(*_parts_of(root, noise)) <= ROTATIONS:
        return Conditioned(*_observed_by_rotations(root, seen, noise, values))
    return _observed_by_qr(root, seen, noise, values)


def _from_triangle(lower: Array, values: Array) -> Conditioned:
    m = values.shape[0]
    seen = lower[:m, :m]
    whitened = solve(seen, values)
    distance = jnp.sum(jnp.square(whitened))
    mean = dot(lower[m:, :m], whitened)
    return Conditioned(mean, lower[m:, m:], distance, 2 * logdet_of_triangle(seen))


def _rotations(kept: Positions, given: Positions) -> int:
    return sum(k < g for g in given for k in kept)


@functools.cache
def _by_rotations(kept: Positions, given: Positions) -> Function:
    def by_qr(lower: Array, values: Array) -> Conditioned:
        return condition_rows(jnp.tril(lower)[np.array([*given, *kept])], values)

    @_tiled_with_derivative_of(by_qr, 2, 1)
    def by_rotations(lower: Array, values: Array) -> tuple[Array, ...]:
        return small.condition(lower, values, kept, given)

    return by_rotations


def _tiled_with_derivative_of(plain: Function, *ranks: int) -> Callable[[Function], Function]:
    """Decorator: for tiles of a batch, with the derivative of another function of the same."""

    def decorate(function: Function) -> Function:
        rule = jax.custom_jvp(looped(*ranks, to=(1, 2, 0, 0), tile=TILE)(function))
        rule.defjvp(lambda x, dx: jax.jvp(lambda *x: tuple(plain(*x)), x, dx))
        return rule

    return decorate


def _observed_by_qr(root: Array, seen: Array, noise: Array, values: Array) -> Conditioned:
    zero = jnp.zeros((root.shape[0], noise.shape[1]), root.dtype)
    return condition_rows(jnp.block([[seen, noise], [root, zero]]), values)


@_tiled_with_derivative_of(_observed_by_qr, 2, 2, 2, 1)
def _observed_by_rotations(
    root: Array, seen: Array, noise: Array, values: Array
) -> tuple[Array, ...]:
    zero = jnp.zeros((root.shape[0], noise.shape[1]), root.dtype)
    lower = jnp.block([[root, zero], [seen, noise]])
    return small.condition(lower, values, *_parts_of(root, noise))


def _parts_of(root: Array, noise: Array) -> tuple[Positions, Positions]:
    """Positions of x and of y in the joint law of both."""
    d, m = root.shape[0], noise.shape[0]
    return tuple(range(d)), tuple(range(d, d + m))
