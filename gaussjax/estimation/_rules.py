"""Maximum likelihood in closed form: from centred rows to the covariance of one structure.

A rule takes rows F with FᵀF the scatter and their weight: data, or the root of moments. What has no
estimate is NaN: too few rows, constant or dependent columns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gaussjax.covariances import (
    BandedPrecision,
    BlockDiagonal,
    Cholesky,
    Circulant,
    Covariance,
    Diagonal,
    Isotropic,
    LowRank,
)
from gaussjax.estimation import _checks
from gaussjax.linalg import fourier
from gaussjax.linalg.moments import root_of_rows, scatter
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.semidefinite import principal_axes
from gaussjax.linalg.triangular import solve

WINDOWS = 64
"""Neighbourhoods of a chain whose rows are copied at a time."""


class Scatter(NamedTuple):
    """Σ w, rows F `(k, d)` with FᵀF = Σ w (x − μ)(x − μ)ᵀ, and which columns vary."""

    weight: Float[Array, ""]
    rows: Float[Array, "k d"]
    varies: Bool[Array, " d"]


def isotropic(s: Scatter) -> Covariance:
    """σ² = ‖F‖²/(d Σ w)."""
    d = s.rows.shape[1]
    size = lengths(s.rows.reshape(1, -1))[0]
    return Isotropic(_or_nan(jnp.any(s.varies), size / jnp.sqrt(d * s.weight)), d)


def diagonal(s: Scatter) -> Covariance:
    """σᵢ = ‖Fᵢ‖/√Σ w."""
    return Diagonal(_or_nan(s.varies, lengths(s.rows.T) / jnp.sqrt(s.weight)))


def full(s: Scatter) -> Covariance:
    """L = R/√Σ w with R Rᵀ = FᵀF."""
    return Cholesky(_or_nan(jnp.all(s.varies), regular_root(s.rows) / jnp.sqrt(s.weight)))


def blocks(s: Scatter, sizes: tuple[int, ...]) -> Covariance:
    """Each from its own columns."""
    ends = np.cumsum(sizes)[:-1]
    rows, varies = jnp.split(s.rows, ends, axis=1), jnp.split(s.varies, ends)
    each = zip(rows, varies, strict=True)
    return BlockDiagonal(tuple(full(s._replace(rows=r, varies=v)) for r, v in each))


def low_rank(s: Scatter, rank: int) -> Covariance:
    """σ² the mean of the d − r smallest eigenvalues λ, W = U (Λ − σ² I)^{½} of the others.

    Source: Tipping & Bishop, J. R. Statist. Soc. B 61 (1999), eqs. 7-8.
    """
    d = s.rows.shape[1]
    s = _checks.without_derivatives("fit of LowRank", s)
    vectors, values = principal_axes(s.rows.T / jnp.sqrt(s.weight))
    pad = max(rank - len(values), 0)
    vectors, values = jnp.pad(vectors, ((0, 0), (0, pad))), jnp.pad(values, (0, pad))
    noise = lengths(values[None, rank:])[0] / (d - rank) ** 0.5
    floor = _eps(values) * max(s.rows.shape) * jnp.max(values, initial=0)
    noise = _or_nan(noise > floor / d**0.5, noise)
    # (λ − σ²) as (√λ − σ)(√λ + σ): it is exact where it is small
    apart = jnp.sqrt(jnp.maximum(values[:rank] - noise, 0.0))
    kept = apart * jnp.sqrt(values[:rank] + noise)
    return LowRank(jnp.broadcast_to(noise, (d,)), vectors[:, :rank] * kept[None])


def banded_precision(s: Scatter, bandwidth: int) -> Covariance:
    """Each coordinate regressed on the b after it: its column of L is [1, −β]/σ.

    Source: Dempster, Biometrics 28 (1972); Lauritzen, Graphical Models, §5.3 (decomposable graphs).
    """
    d, count = s.rows.shape[1], bandwidth + 1
    rows = jnp.pad(s.rows, ((0, 0), (0, bandwidth)))
    places = jnp.arange(count)

    def column(i: Array) -> Array:
        window = jax.lax.dynamic_slice_in_dim(rows, i, count, axis=1)[:, ::-1]
        outside = jnp.diag((i + places[::-1] >= d).astype(rows.dtype))  # of unit variance
        lower = regular(triangular_root(jnp.concatenate([window, outside]).T), len(rows))
        last = (places == bandwidth).astype(rows.dtype)
        return solve(lower, last, transpose=True)[::-1]

    lower = jax.lax.map(column, jnp.arange(d), batch_size=WINDOWS).T * jnp.sqrt(s.weight)
    return BandedPrecision(_or_nan(jnp.all(s.varies), lower))


def circulant(s: Scatter) -> Covariance:
    """The mean periodogram, of both frequencies that share an eigenvalue.

    Source: Gray, Toeplitz and Circulant Matrices: A Review (2006), §3.
    """
    d = s.rows.shape[1]
    waves = jax.vmap(fourier.hartley)(s.rows) / jnp.sqrt(d * s.weight)
    power = jnp.sum(jnp.square(waves), axis=0)
    spectrum = 0.5 * (power + jnp.roll(power[::-1], 1))
    floor = (8 * _eps(power)) ** 2 * jnp.max(power, initial=0)
    return Circulant(_or_nan(jnp.all(spectrum > floor) & jnp.any(s.varies), spectrum))


def count(rows: Float[Array, "k d"], *, of_root: bool) -> Int[Array, ""]:
    """Rows that are not zero; of the root of a singular scatter but for rounding."""
    sizes = lengths(rows / lengths(rows.T)[None])
    noise = 8 * rows.shape[1] * _eps(rows) if of_root else 0.0
    return jnp.sum(sizes > noise * jnp.max(sizes, initial=0))


def regular_root(rows: Float[Array, "k d"]) -> Float[Array, "d d"]:
    """Lower R with R Rᵀ = FᵀF; NaN where columns depend on each other, to rounding."""
    if 0 in rows.shape:
        return jnp.full((rows.shape[1],) * 2, jnp.nan, rows.dtype)
    return regular(root_of_rows(scatter(rows), rows), len(rows))


def regular(lower: Float[Array, "d d"], count: int) -> Float[Array, "d d"]:
    """A root from so many rows, or NaN where a pivot is their rounding."""
    pivots = jnp.abs(jnp.diagonal(lower))
    noise = 4 * (len(lower) + count**0.5) * _eps(lower)
    return _or_nan(jnp.all(pivots > noise * lengths(lower)), lower)


def _or_nan(valid: Array, value: Array) -> Array:
    return jnp.where(valid, value, jnp.nan)


def _eps(array: Array) -> float:
    return float(jnp.finfo(array.dtype).eps)
