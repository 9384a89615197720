"""Analytical nonlinear shrinkage: every eigenvalue drawn towards the others near it."""

import functools
import math
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift, lift_as_whole
from gaussjax.covariances import Cholesky
from gaussjax.estimation import _checks, _data, _sentences
from gaussjax.estimation.streams import Moments, as_moments
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.ranges import unit_of
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.semidefinite import principal_axes

ROOT = math.sqrt(5.0)
LEAST = 13  # rows: for fewer the bandwidth is as wide as the eigenvalues


def nonlinear_shrinkage(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Gaussian:
    """Σ = U diag(λ̃) Uᵀ: the sample's eigenvectors with the eigenvalues that fit them best. O(n d²)

    λ̃ is `shrunk_eigenvalues`: large ones are lowered and small ones raised, more so where the
    density of eigenvalues is large, and not all alike as in `ledoit_wolf`. Best where d and n are
    large and no structure is known. `data` is rows `(..., n, d)`, with `weights` and a `mask` as in
    `moments`, or `Moments`. No derivatives.

    Raises:
        ValueError: there are fewer than 13 rows, or (where the values are known) a value is not
            finite, or data vary in fewer directions than rows and columns allow. Under `jit` such
            an element of a batch is NaN.

    Source: Ledoit & Wolf, Annals of Statistics 48 (2020), eqs. 4.1-4.9, appendix D.

    >>> import jax
    >>> from gaussjax import variance
    >>> x = jax.random.normal(jax.random.key(0), (40, 3))
    >>> variance(nonlinear_shrinkage(x)).shape
    (3,)
    """
    g = _shrunk(_moments(data, weights, mask))
    _checks.values(g, data, weights, mask, "nonlinear_shrinkage")
    return g


def shrunk_eigenvalues(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Float[Array, "... d"]:
    """The eigenvalues of `nonlinear_shrinkage`, in the order of the sample's, descending.

    Arguments and errors as there.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (40, 3))
    >>> shrunk_eigenvalues(x).shape
    (3,)
    """
    return _values(_moments(data, weights, mask))


def _moments(data: Any, weights: Any, mask: Any) -> Moments:
    if not isinstance(data, Moments):
        data = _errors.real_array("data", data)
        _errors.rank_at_least("data", data, 2)
        _sentences.enough_rows("nonlinear shrinkage", data.shape, LEAST)
    return as_moments(data, weights, mask)


@lift_as_whole
def _shrunk(m: Moments) -> Gaussian:
    unit, vectors, values = _spectrum(m)
    lower = unit * triangular_root(vectors * jnp.sqrt(values)[None])
    return Gaussian(_data.located(m.weight, m.mean), Cholesky(lower))


@lift
def _values(m: Moments) -> Float[Array, "... d"]:
    unit, _, values = _spectrum(m)
    return jnp.square(unit) * values


def _spectrum(m: Moments) -> tuple[Array, Array, Array]:
    """A unit, eigenvectors as columns, and shrunk eigenvalues in that unit."""
    m = _checks.without_derivatives("nonlinear_shrinkage", m)
    n = m.weight - 1
    root = m.root / jnp.sqrt(n)
    unit = unit_of(jnp.max(jnp.abs(root), initial=0))
    vectors, sizes = principal_axes(root / unit)
    return unit, vectors, _shrink(jnp.square(sizes), n)


def _shrink(values: Float[Array, " d"], n: Array) -> Float[Array, " d"]:
    """λ̃ from the sample's eigenvalues, descending, of n degrees of freedom."""
    d, dtype = len(values), values.dtype
    kept = jnp.arange(d, dtype=dtype) < n  # the others are zero
    tiny = (d * float(jnp.finfo(dtype).eps)) ** 2 * jnp.max(values, initial=0)
    valid = jnp.all((values > tiny) | ~kept) & (n >= LEAST - 1)
    # more directions than so few rows can have: weights of another kind than a number of rows
    few = jnp.all(kept | (values <= float(jnp.finfo(dtype).eps) * jnp.max(values, initial=0)))
    valid = valid & few
    count, width = jnp.minimum(n, d), n ** (-1 / 3)
    safe = jnp.where(kept, values, 1.0)
    bands = jnp.where(kept, 1 / (width * safe), 0.0) / count
    x = (safe[:, None] - safe[None]) / (width * safe)[None]
    density = 3 / (4 * ROOT) * jnp.sum(jnp.maximum(1 - x**2 / 5, 0.0) * bands[None], axis=1)
    hilbert = -1.5 / (ROOT * math.pi) * jnp.sum(_tail(x) * bands[None], axis=1)
    ratio = d / n
    first, second = math.pi * safe * density, math.pi * safe * hilbert
    tall = safe / ((ratio * first) ** 2 + (1 - ratio - ratio * second) ** 2)
    mean_inverse = jnp.sum(jnp.where(kept, 1 / safe, 0.0)) / count
    null = 1.5 / (ROOT * math.pi * width) * _tail(1 / width) * mean_inverse
    wide = jnp.where(kept, safe / (first**2 + second**2), 1 / (math.pi * (ratio - 1) * null))
    return jnp.where(valid, jnp.where(d <= n, tall, wide), jnp.nan)


def _tail(x: Array) -> Array:
    """1/t − (1/t² − 1) artanh t for t = √5/x: the Hilbert transform of Epanechnikov's kernel.

    Far from zero it is Σ 2 t²ᵏ⁺¹/((2k + 1)(2k + 3)), where the two terms would cancel.
    """
    is_far = jnp.abs(x) > 2 * ROOT
    near, far = jnp.where(is_far, 1.0, x), jnp.where(is_far, x, 4 * ROOT)
    t, s = ROOT / far, near / ROOT
    bits = -math.log2(float(jnp.finfo(x.dtype).eps))
    terms = [2 / ((2 * k + 1) * (2 * k + 3)) for k in range(math.ceil(bits / 2) + 1)]
    series = t * functools.reduce(lambda a, c: a * t * t + c, reversed(terms), jnp.zeros_like(t))
    is_edge = jnp.abs(s) == 1
    ratio = jnp.abs((1 + s) / jnp.where(is_edge, 2.0, 1 - s))
    ratio = jnp.where(is_edge | (ratio == 0), 1.0, ratio)
    direct = s - (s**2 - 1) * 0.5 * jnp.log(ratio)
    return jnp.where(is_far, series, direct)
