"""Correlations, confidence regions, outliers and information criteria.

>>> from gaussjax import from_cholesky
>>> correlation(from_cholesky([0.0, 0.0], [[2.0, 0.0], [0.75, 1.0]]))
Array([[1. , 0.6],
       [0.6, 1. ]], dtype=float32)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._dtypes import result_dtype
from gaussjax._lift import lift, lift_as_whole
from gaussjax._struct import exported
from gaussjax.covariances.base import any_root
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.products import gram
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.semidefinite import principal_axes

HALVINGS = 60
"""Of an interval: all digits of float64."""


@lift
def correlation(g: Gaussian) -> Float[Array, "... d d"]:
    """Correlations Σᵢⱼ/(σᵢσⱼ), one on the diagonal; NaN beside a coordinate without width. O(d³)

    >>> from gaussjax import from_cholesky
    >>> print(f"{correlation(from_cholesky([0.0, 0.0], [[1.0, 0.0], [3.0, 4.0]]))[0, 1]:.4f}")
    0.6000
    """
    return _unit_gram(any_root(g.cov))


@lift
def partial_correlation(g: Gaussian) -> Float[Array, "... d d"]:
    """Correlations of pairs of coordinates given all others, −Λᵢⱼ/√(Λᵢᵢ Λⱼⱼ). O(d³)

    Λ = Σ⁻¹; one on the diagonal. Zero where two are independent given the rest.

    Source: Lauritzen, Graphical Models, §5.1.3.

    >>> from gaussjax import from_precision
    >>> g = from_precision([0.0, 0.0], [[1.0, -0.5], [-0.5, 1.0]])
    >>> print(f"{partial_correlation(g)[0, 1]:.4f}")
    0.5000
    """
    whitener = jax.vmap(g.cov.whiten, 1, 1)(jnp.eye(g.dim, dtype=result_dtype(g)))
    found = _unit_gram(whitener.T)
    return jnp.where(jnp.eye(g.dim, dtype=bool), found, -found)


def _unit_gram(root: Float[Array, "d k"]) -> Float[Array, "d d"]:
    """Cosines of the angles between rows."""
    size = lengths(root)
    cosines = gram(root / jnp.where(size > 0, size, jnp.nan)[:, None])
    return jnp.where(jnp.eye(len(size), dtype=bool), jnp.where(size > 0, 1.0, jnp.nan), cosines)


@exported
class ConfidenceRegion(NamedTuple):
    """The ellipsoid (x − μ)ᵀΣ⁻¹(x − μ) ≤ r² of some probability.

    Attributes:
        center: μ, `(..., d)`.
        axes: its half axes as columns, the longest first, `(..., d, d)`.
        radius: r, in standard deviations, `(...)`.
    """

    center: Float[Array, "... d"]
    axes: Float[Array, "... d d"]
    radius: Float[Array, "..."]


def confidence_region(g: Gaussian, *, level: ArrayLike = 0.95) -> ConfidenceRegion:
    """The smallest region that holds x ~ g with probability `level`: an ellipsoid. O(d³)

    r² is the quantile of χ² with d degrees of freedom, and the half axes are r √λ u for the
    eigenvalues λ and eigenvectors u of Σ. `level` is between 0 and 1, a number or `(...)`. The axes
    have no derivatives. `mahalanobis(g, x) <= radius**2` says what is inside.

    Raises:
        ValueError: `level` is a number not between 0 and 1; in an array such a level gives NaN.

    Source: Anderson, An Introduction to Multivariate Statistical Analysis, §3.3.

    >>> from gaussjax import standard
    >>> print(f"{confidence_region(standard(2), level=0.95).radius:.4f}")
    2.4477
    """
    if isinstance(level, int | float) and not 0 <= level <= 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    _errors.instance("g", g, Gaussian, order="g, *, level")
    return ConfidenceRegion(*_region(g, _errors.real_array("level", level, result_dtype(g))))


@lift_as_whole
def _region(g: Gaussian, level: Float[Array, "..."]) -> tuple[Array, Array, Array]:
    vectors, sizes = principal_axes(any_root(g.cov))
    wide = g.dim - len(sizes)
    vectors, sizes = jnp.pad(vectors, ((0, 0), (0, wide))), jnp.pad(sizes, (0, wide))
    radius = jnp.sqrt(chi2_quantile(level, g.dim))
    return g.mean, radius * vectors * sizes[None], radius


def chi2_quantile(level: Float[Array, ""], degrees: int) -> Float[Array, ""]:
    """The x with P(χ²_k ≤ x) = level, by bisection of the incomplete gamma function.

    Its derivative is that of the inverse function.
    """
    if degrees == 0:
        return jnp.where((level >= 0) & (level <= 1), 0.0 * level, jnp.nan)
    half = 0.5 * degrees
    fixed = jax.lax.stop_gradient(level)

    def halved(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_below = _tail_is_above(half, middle, fixed)
        return (jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)), None

    largest = math.log(float(jnp.finfo(level.dtype).max)) + 4.0 * degrees
    ends = jnp.zeros_like(fixed), jnp.full_like(fixed, 2.0 * largest)
    (low, high), _ = jax.lax.scan(halved, ends, length=HALVINGS)
    x = 0.5 * (low + high)
    log_density = (half - 1) * jnp.log(x / 2) - x / 2 - jax.scipy.special.gammaln(half)
    x = x + (level - fixed) * 2 * jnp.exp(-log_density)  # its derivative; the value is zero
    x = jnp.where(fixed == 1, jnp.inf, jnp.where(fixed == 0, 0.0, x))
    return jnp.where((fixed >= 0) & (fixed <= 1), x, jnp.nan)


def _tail_is_above(half: float, x: Array, level: Array) -> Array:
    """Whether x is below the quantile; by the smaller of both tails, which has the digits."""
    a = jnp.full_like(x, half)
    below = jax.scipy.special.gammainc(a, x / 2) < level
    above = jax.scipy.special.gammaincc(a, x / 2) > 1 - level
    return jnp.where(level < 0.5, below, above)


@lift
def outliers(
    g: Gaussian, x: Float[Array, "... d"], *, level: Float[Array, "..."]
) -> Bool[Array, "..."]:
    """Whether x is outside the region that holds g with probability `level`. O(d²)

    By squared Mahalanobis distances beyond the quantile of χ². Of n rows of g itself about
    n (1 − level) are; those of an estimate that outliers have not widened (`student_t.fit`) tell.
    A NaN is no outlier.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Rousseeuw & van Zomeren, J. Am. Statist. Assoc. 85 (1990).

    >>> from gaussjax import standard
    >>> outliers(standard(2), [[0.0, 1.0], [3.0, 3.0]], level=0.99)
    Array([False,  True], dtype=bool)
    """
    return g.cov.inv_quad(x - g.mean) > chi2_quantile(level, g.dim)


def aic(log_likelihood: ArrayLike, parameters: int) -> Float[Array, "..."]:
    """Akaike's criterion 2k − 2 log L of a fit; smaller is better. O(1)

    `log_likelihood` is `log_prob(g, x).sum()`, `parameters` k the free numbers of g: d
    of the mean, and of the covariance one (`Isotropic`), d (`Diagonal`), d(d + 1)/2 (`Cholesky`).

    Source: Akaike, IEEE Trans. Automat. Contr. 19 (1974).

    >>> aic(-10.0, 2)
    Array(24., dtype=float32)
    """
    k = _errors.dimension("parameters", parameters)
    return 2.0 * k - 2.0 * _errors.real_array("log_likelihood", log_likelihood)


def bic(log_likelihood: ArrayLike, parameters: int, rows: ArrayLike) -> Float[Array, "..."]:
    """Schwarz's criterion k log n − 2 log L of a fit to n rows; smaller is better. O(1)

    Arguments as in `aic`; `rows` n may be a weight, `Moments.weight`.

    Source: Schwarz, Annals of Statistics 6 (1978).

    >>> bic(-10.0, 2, 1.0)
    Array(20., dtype=float32)
    """
    k = _errors.dimension("parameters", parameters)
    value, n = _errors.real_arrays(log_likelihood=log_likelihood, rows=rows)
    return k * jnp.log(n) - 2.0 * value
