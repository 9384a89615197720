"""Observations y = H x + e that are far more precise than what was known of x, solved for x.

A root of the law of (y, x) has the rows H F of y and F of x, and an orthogonal transformation keeps
each to its own rounding. If a precise observation depends on a badly known coordinate, that
rounding is larger than the noise, and so larger than what is left of the coordinate. So before the
rows are multiplied out, such an observation changes places with the coordinate that it fixes, by
Gauss-Jordan elimination with complete pivoting: hⱼxⱼ = y − (the rest of h) x − e.

With T (m × m, of determinant one) and S (d × m) for what it does to y = H x + e and x,

    y' = T y,   x' = x + S y,   [y'; x'] = Z [x; u],

where Z ((m + d) × (d + n)) has exact zeros for what was eliminated, and u are the n parts of
e = R u. The law of x given y is that of x' − S y given y'.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import limits, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.products import dot, with_transpose
from gaussjax.linalg.ranges import lengths

BAR = (
    8  # times m + d: standard deviations of a coordinate in units of the noise, from which it pays
)


class Observed(NamedTuple):
    """Rows of a root of (y', x'), [T; S], and log|T|, which is zero and has a derivative."""

    rows: Float[Array, "m+d k+n"]
    moves: Float[Array, "m+d m"]
    logdet: Float[Array, ""]


class Exchange(NamedTuple):
    """Z, [T; S], and which observation changes places with which coordinate."""

    rows: Float[Array, "m+d d+n"]
    moves: Float[Array, "m+d m"]
    pairs: Float[Array, "m d"]


@jax.custom_jvp
def observed(
    root: Float[Array, "d k"], matrix: Float[Array, "m d"], noise: Float[Array, "m n"]
) -> Observed:
    """From roots F of x = F z and R of e = R u. O((m + d)² (k + n))"""
    z = _exchange(root, matrix, noise)
    return Observed(multiplied_out(z.rows, root), z.moves, jnp.zeros((), root.dtype))


@observed.defjvp
def _(primals, tangents):
    change = _change_with_transpose
    return observed(*primals), change(*_tangible(*primals), primals[0], *tangents)


def multiplied_out(rows: Float[Array, "l d+n"], root: Float[Array, "d k"]) -> Array:
    """Z diag(F, I)."""
    d = root.shape[0]
    along = _product(rows)(rows[:, :d], root)
    return jnp.concatenate([along, rows[:, d:]], axis=1)


# T and S may change with H and R as they like. They do so that Z stays where it has eliminated: its
# entries there would meet the largest of F. With A = [T; S] [dH, dR], and G = A / h the columns of
# A that belong to pivots h, in the places of their observations,
#   dZ = A − G Z_y,   d[T; S] = −G T,   d log|T| = −tr G_y.
@jax.custom_jvp
def _tangible(root: Array, matrix: Array, noise: Array) -> Exchange:
    return _exchange(root, matrix, noise)


@_tangible.defjvp
def _(primals, tangents):
    z = _tangible(*primals)
    rows, moves, _ = _moved(z, *tangents[1:])
    return z, Exchange(rows, moves, jnp.zeros_like(z.pairs))


def _moved(z: Exchange, dmatrix: Array, dnoise: Array) -> tuple[Array, Array, Array]:
    product, (m, d) = _product(z.rows), z.pairs.shape
    a = product(z.moves, jnp.concatenate([dmatrix, dnoise], axis=1))
    pivots = small.nonzero(jnp.sum(z.pairs * z.rows[:m, :d], axis=0))
    g = product(a[:, :d] / pivots[None], z.pairs.T)
    kept = jnp.pad(1 - jnp.sum(z.pairs, axis=0), (0, a.shape[1] - d), constant_values=1)
    drows = (a - product(g, z.rows[:m])) * kept[None]
    return drows, -product(g, z.moves[:m]), -jnp.trace(g[:m])


def _change(
    rows: Array,
    moves: Array,
    pairs: Array,
    root: Array,
    droot: Array,
    dmatrix: Array,
    dnoise: Array,
) -> Observed:
    drows, dmoves, dlogdet = _moved(Exchange(rows, moves, pairs), dmatrix, dnoise)
    along = _product(rows)(rows[:, : len(root)], droot)
    fixed = jnp.pad(along, ((0, 0), (0, dnoise.shape[1])))
    return Observed(multiplied_out(drows, root) + fixed, dmoves, dlogdet)


@kernel(
    "e f, e m, m d, d k, e g, e m, () -> d k, m d, m f-d",
    tile=TILE, native="exchange_cotangents",
)  # fmt: skip
def _cotangents(rows: Array, moves: Array, pairs: Array, root: Array, *c: Array) -> Any:
    m, d = pairs.shape
    n = rows.shape[1] - d
    tangents = root, jnp.zeros((m, d), root.dtype), jnp.zeros((m, n), root.dtype)
    change = functools.partial(_change, rows, moves, pairs, root)
    return jax.linear_transpose(change, *tangents)(Observed(*c))


_change_with_transpose = with_transpose(
    _change, lambda *args: _cotangents(*args[:-1], *args[-1]), linear=3
)


def _product(rows: Array) -> Any:
    return small.product if len(rows) <= limits.PRODUCT else dot


def _exchange(root: Array, matrix: Array, noise: Array) -> Exchange:
    return Exchange(*_exchange_of(matrix, noise, lengths(root)))


def eliminate(matrix: Array, noise: Array, sizes: Float[Array, " d"]) -> Exchange:
    """Z from H and R of one observation, and standard deviations of x. O(m (m + d)²)

    Without precise observations T is the identity and S zero.
    """
    m, d = matrix.shape
    if 0 in (m, d):
        rows = jnp.concatenate([matrix, noise], axis=1), jnp.eye(d, d + noise.shape[1])
        moves = jnp.eye(m + d, m, dtype=matrix.dtype)
        return Exchange(jnp.concatenate(rows).astype(matrix.dtype), moves, matrix)
    eye, eps = jnp.eye(m + d, dtype=matrix.dtype), float(jnp.finfo(matrix.dtype).eps)
    limit = BAR * (m + d)
    known = jnp.concatenate([jnp.concatenate([matrix, noise], axis=1), eye[:m, :m]], axis=1)
    unknown = jnp.pad(eye[m:, m:], ((0, 0), (0, known.shape[1] - d)))
    # What elimination leaves of a row is rounding, and no better known than that.
    least = eps * jnp.max(jnp.abs(matrix) * sizes[None], axis=1, initial=0)

    def gain(rows: Array, pairs: Array) -> Array:
        """Sizes of coordinates in each observation, in units of its noise."""
        scale = small.nonzero(jnp.maximum(lengths(rows[:m, d:-m]), least))
        is_taken = jnp.any(pairs, axis=1)[:, None] | jnp.any(pairs, axis=0)[None]
        own = jnp.abs(rows[:m, :d]) * sizes[None] / scale[:, None]
        return jnp.where(is_taken, 0.0, own)

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        return jnp.max(state[2], initial=0) > limit

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, pairs, gains = state
        at = jnp.argmax(gains)
        row, column = jnp.arange(m + d) == at // d, jnp.arange(rows.shape[1]) == at % d
        own = jnp.sum(jnp.where(row[:, None], rows, 0.0), axis=0)
        entries = jnp.sum(jnp.where(column[None], rows, 0.0), axis=1)
        pivot = jnp.sum(jnp.where(column, own, 0.0))
        others = jnp.where(row, 0.0, entries / pivot)
        rows = rows - others[:, None] * own[None]
        rows = jnp.where(~row[:, None] & column[None], 0.0, rows)
        pairs = pairs | (row[:m, None] & column[None, :d])
        return rows, pairs, gain(rows, pairs)

    rows, pairs = jnp.concatenate([known, unknown]), jnp.zeros((m, d), bool)
    rows, pairs, _ = lax.while_loop(goes_on, step, (rows, pairs, gain(rows, pairs)))
    return Exchange(rows[:, :-m], rows[:, -m:], pairs.astype(rows.dtype))


_exchange_of = kernel(
    "m d, m n, d -> m+d d+n, m+d m, m d", written=eliminate, tile=TILE, native="exchange"
)(eliminate)
