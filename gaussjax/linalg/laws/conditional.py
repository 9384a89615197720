"""Some coordinates of a zero-mean law given the values of others, from a root of the covariance.

The lower root of the coordinates given and then kept is [[A, 0], [B, C]]: values v have the squared
length ‖A⁻¹v‖² and the log-determinant log|A Aᵀ|, the others the mean B A⁻¹v and the root C. Nothing
is subtracted. Orthogonal transformations of its columns bring a root into that order: QR, or, for
small triangles, rotations that skip existing zeros.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import rotations, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.laws.exchange import eliminate, multiplied_out, observed
from gaussjax.linalg.orthonormal import complement, orthonormal_rows
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.roots import (
    change_of_root,
    cotangent_of_root,
    triangular_root,
)
from gaussjax.linalg.semidefinite import rank_revealing_root
from gaussjax.linalg.triangular import logdet_of_triangle, solve

Positions = tuple[int, ...]
Function = Callable[..., Any]


class Conditioned(NamedTuple):
    """Mean and root of the coordinates kept; ‖A⁻¹v‖² and log|A Aᵀ| of the values given."""

    mean: Float[Array, " n"]
    root: Float[Array, "n k"]  # a lower triangle, unless a function says otherwise
    distance: Float[Array, ""]
    logdet: Float[Array, ""]


def condition_rows(rows: Float[Array, "d k"], values: Float[Array, " m"]) -> Conditioned:
    """From the rows of any root, the m given first. O(d² k)"""
    return _from_triangle(triangular_root(rows), values)


def condition_triangle(
    lower: Float[Array, "d d"], values: Float[Array, " m"], *, kept: Positions, given: Positions
) -> Conditioned:
    """From a lower triangle whose rows `given` have these values; both ascend. O(d³)"""
    if all(k > g for k in kept for g in given):
        return _from_triangle(jnp.tril(lower), values)
    return Conditioned(*_in_order(kept, given)(lower, values))


def condition_observed(
    root: Float[Array, "d k"],
    matrix: Float[Array, "m d"],
    noise: Float[Array, "m n"],
    values: Float[Array, " m"],
) -> Conditioned:
    """Of x = F z where H x + e has these values, from F, H and a root of e. O((d + m)³)"""
    if 0 not in matrix.shape:
        return Conditioned(*_observed_in_one(root, matrix, noise, values))
    return _observed(root, matrix, noise, values)


def condition_on_law(
    root: Float[Array, "d k"],
    matrix: Float[Array, "m d"],
    noise: Float[Array, "m n"],
    mean: Float[Array, " m"],
    later: Float[Array, "m l"],
) -> tuple[Float[Array, " d"], Float[Array, "d k+n+l"]]:
    """Of x = F z where y = H x + e has the law N(v, K Kᵀ) in place of a value. O((d + m)³)

    From F, H, a root of e, and K. Given y the law of x is N(B A⁻¹y, C Cᵀ) as above, and with y
    itself random it has the root [B A⁻¹K, C].
    """
    rows, moves, _ = observed(root, matrix, noise)
    m = len(mean)
    seen, gain, left = _apart(_regular(rows[:m]), rows[m:])
    law = dot(moves, jnp.concatenate([mean[:, None], later], axis=1))
    moved = dot(gain, solve(seen, law[:m])) - law[m:]
    return moved[:, 0], jnp.concatenate([moved[:, 1:], left], axis=1)


def condition_rows_apart(
    given: Float[Array, "m k"], kept: Float[Array, "n k"], values: Float[Array, " m"]
) -> Conditioned:
    """`condition_rows` where C is no triangle, but has k − m columns. O((m + n + k) m k)

    Where what is left is singular, a triangle has no derivative. NaN if the rows given depend.
    """
    seen, gain, left = _apart(given, kept)
    if left.shape[1] == 0:
        left = jnp.zeros((len(kept), 1), left.dtype)  # room for NaN
    regular = ~jnp.any(jnp.diagonal(rank_revealing_root(lax.stop_gradient(given))) == 0)
    seen, left = (jnp.where(regular, x, jnp.nan) for x in (seen, left))
    whitened = solve(seen, values)
    distance = jnp.sum(jnp.square(whitened))
    return Conditioned(dot(gain, whitened), left, distance, 2 * logdet_of_triangle(seen))


def condition_observed_apart(
    root: Float[Array, "d k"],
    matrix: Float[Array, "m d"],
    noise: Float[Array, "m n"],
    values: Float[Array, " m"],
) -> Conditioned:
    """`condition_observed` as `condition_rows_apart`; C has k or more columns. O((d + m)² (k + n))

    It has k + n − m, or k if the noise has fewer than m: no fewer than F, for carries of loops.
    """
    rows, moves, logdet = observed(root, matrix, noise)
    moved, m = dot(moves, values), len(values)
    law = condition_rows_apart(rows[:m], rows[m:], moved[:m])
    missing = max(root.shape[1] - law.root.shape[1], 0)
    left = jnp.pad(law.root, ((0, 0), (0, missing)))
    return Conditioned(law.mean - moved[m:], left, law.distance, law.logdet - 2 * logdet)


def _apart(given: Array, kept: Array) -> tuple[Array, Array, Array]:
    """A, B and C of rows [A Q; B Q + C N], the rows of Q and N orthonormal and complementary.

    `kept` may have fewer columns than `given`: the others are zero.
    """
    kept = jnp.pad(kept, ((0, 0), (0, given.shape[1] - kept.shape[1])))
    if given.size == 0:
        return jnp.zeros((len(given),) * 2, kept.dtype), dot(kept, given.T), kept
    seen, along = orthonormal_rows(given)
    rest = complement(given, seen, along)
    return seen, dot(kept, along.T), dot(kept, rest.T)


def _regular(rows: Array) -> Array:
    """Rows with a column of its own for each that depends on others, which then says nothing."""
    known = lax.stop_gradient(rows)
    depends = jnp.diagonal(rank_revealing_root(known)) == 0
    own = jnp.where(depends, small.nonzero(lengths(known)), 0.0)
    return jnp.concatenate([rows, jnp.diag(own)], axis=1)


def _observed(root: Array, matrix: Array, noise: Array, values: Array) -> Conditioned:
    """By `exchange.py`: what is left of y and x, given y', and back."""
    rows, moves, logdet = observed(root, matrix, noise)
    moved, m = dot(moves, values), len(values)
    law = condition_rows(rows, moved[:m])
    return law._replace(mean=law.mean - moved[m:], logdet=law.logdet - 2 * logdet)


# The values come from one kernel, as below, and the derivatives from those of its parts.
@jax.custom_jvp
def _observed_in_one(*arrays: Array) -> tuple[Array, ...]:
    return _observed_in_tiles(*arrays)


@_observed_in_one.defjvp
def _(primals, tangents):
    return jax.jvp(lambda *arrays: tuple(_observed(*arrays)), primals, tangents)


def _written(root: Array, matrix: Array, noise: Array, values: Array) -> Any:
    rows, moves, _ = eliminate(matrix, noise, lengths(root))
    moved = small.product(moves, values[:, None])[:, 0]
    lower, m = small.triangular_root(multiplied_out(rows, root)), len(values)
    given, kept = range(m), range(m, len(rows))
    mean, *rest = rotations.condition(lower, moved[:m], kept, given)
    return mean - moved[m:], *rest


_observed_in_tiles = kernel(
    "d k, m d, m n, m -> d, d d, (), ()", written=_written, tile=TILE, native="observe"
)(_observed)


def _from_triangle(lower: Array, values: Array) -> Conditioned:
    m = values.shape[0]
    seen = lower[:m, :m]
    whitened = solve(seen, values)
    distance = jnp.sum(jnp.square(whitened))
    mean = dot(lower[m:, :m], whitened)
    return Conditioned(mean, lower[m:, m:], distance, 2 * logdet_of_triangle(seen))


# The values come from one kernel. Their derivatives are those of the root that it does not store.
@functools.cache
def _in_order(kept: Positions, given: Positions) -> Function:
    values, by_root = jax.custom_jvp(_condition(kept, given)), _by_root(kept, given)
    values.defjvp(lambda primals, tangents: jax.jvp(by_root, primals, tangents))
    return values


@functools.cache
def _condition(kept: Positions, given: Positions) -> Function:
    order, n = (*given, *kept), len(kept)
    written = functools.partial(rotations.condition, kept=kept, given=given)
    return kernel(
        f"d d, m -> {n}, {n} {n}, (), ()",
        written=written,
        tile=TILE,
        native="condition_triangle",
        order=order,
    )(lambda lower, values: condition_rows(jnp.tril(lower)[np.array(order)], values))


@functools.cache
def _reordered_root(kept: Positions, given: Positions) -> Function:
    order = (*given, *kept)
    written = functools.partial(rotations.reordered_root, kept=kept, given=given)
    n = len(order)
    return kernel(
        f"d d -> {n} {n}", written=written, tile=TILE, native="reordered_root", order=order
    )(lambda lower: triangular_root(jnp.tril(lower)[np.array(order)]))


@functools.cache
def _by_root(kept: Positions, given: Positions) -> Function:
    """The same from the root as an array, which has a derivative."""
    order = np.array([*given, *kept])
    back = np.argsort(order)
    root = jax.custom_jvp(_reordered_root(kept, given))

    @root.defjvp
    def _(primals, tangents):
        (lower,), (dlower,) = (tuple(map(jnp.tril, x)) for x in (primals, tangents))
        out = root(lower)
        # `custom_linear_solve` is used only to attach a transpose. Either triangle is the reordered
        # root of the other, so the equation is the same derivative; higher ones are derivatives of
        # it.
        return out, lax.custom_linear_solve(
            lambda x: change_of_root(lower, out[back], x[back]),
            dlower,
            solve=lambda _, b: change_of_root(out, lower[order], b[order]),
            transpose_solve=lambda _, c: cotangent_of_root(out, lower[order], c)[back],
        )

    return lambda lower, values: tuple(_from_triangle(root(lower), values))
