"""Correlations, confidence regions, outliers and information criteria.

>>> from gaussjax import from_cholesky
>>> correlation(from_cholesky([0.0, 0.0], [[2.0, 0.0], [0.75, 1.0]]))
Array([[1. , 0.6],
       [0.6, 1. ]], dtype=float32)
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._dtypes import result_dtype
from gaussjax._lift import lift, lift_as_whole
from gaussjax._struct import exported
from gaussjax.covariances.base import any_root, log_density
from gaussjax.estimation import _checks, _data
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.moments import weighted_sum
from gaussjax.linalg.products import gram
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.semidefinite import principal_axes

HALVINGS = 60
"""Of an interval: all digits of float64."""


@lift
def correlation(g: Gaussian) -> Float[Array, "... d d"]:
    """Correlations Σᵢⱼ/(σᵢσⱼ), one on the diagonal; NaN where a variance is zero. O(d³)

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
    _check_level(level)
    _errors.instance("g", g, Gaussian, order="g, *, level")
    return ConfidenceRegion(*_region(g, _errors.real_array("level", level, result_dtype(g))))


@lift_as_whole
def _region(g: Gaussian, level: Float[Array, "..."]) -> tuple[Array, Array, Array]:
    root = _checks.without_derivatives("confidence_region", any_root(g.cov))
    vectors, sizes = principal_axes(root)
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


def outliers(g: Gaussian, x: ArrayLike, *, level: ArrayLike) -> Bool[Array, "..."]:
    """Whether x is outside the region that holds g with probability `level`. O(d²)

    True where the squared Mahalanobis distance exceeds the quantile of χ², as it does for about
    n (1 − level) of n samples of g. Outliers widen an ordinary estimate: find them with one that
    resists, such as `student_t.fit`. What is not known to be inside counts as outside: NaN rows,
    and all rows where an estimate, or a level in an array, is none.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or `level` is a number not between
            0 and 1.

    Source: Rousseeuw & van Zomeren, J. Am. Statist. Assoc. 85 (1990).

    >>> from gaussjax import standard
    >>> outliers(standard(2), [[0.0, 1.0], [3.0, 3.0]], level=0.99)
    Array([False,  True], dtype=bool)
    """
    _check_level(level)
    rows: Any = x
    value: Any = level
    return _outliers(g, rows, level=value)


@lift
def _outliers(
    g: Gaussian, x: Float[Array, "... d"], *, level: Float[Array, "..."]
) -> Bool[Array, "..."]:
    return ~(g.cov.inv_quad(x - g.mean) <= chi2_quantile(level, g.dim))  # NaN is not inside


def _check_level(level: Any) -> None:
    if isinstance(level, int | float) and not 0 <= level <= 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")


def aic(
    g: Gaussian,
    x: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    parameters: int | None = None,
) -> Float[Array, "..."]:
    """Akaike's criterion 2k − 2 log L of a fit to rows x; smaller is better. O(n d²)

    `x` is `(..., n, d)`, with `weights` and a `mask` as in `moments`. k is d for the mean and
    `g.cov.num_parameters` (for `Sum` and `Scaled` an upper bound), unless `parameters` is given, as
    after `fit` with `LowRank`, whose covariance has 1 + d r − r (r − 1)/2.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Akaike, IEEE Trans. Automat. Contr. 19 (1974).

    >>> from gaussjax import standard
    >>> print(f"{aic(standard(1), [[0.0], [1.0]]):.3f}")  # 2 · 2 + 2 log 2π + 1
    8.676
    """
    log_likelihood, _ = _log_likelihood(g, **_rows(x, weights, mask))
    return 2.0 * _count(g, parameters) - 2.0 * log_likelihood


def bic(
    g: Gaussian,
    x: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    parameters: int | None = None,
) -> Float[Array, "..."]:
    """Schwarz's criterion k log n − 2 log L of a fit to rows x; smaller is better. O(n d²)

    Arguments and errors as in `aic`; n is the sum of the weights.

    Source: Schwarz, Annals of Statistics 6 (1978).

    >>> from gaussjax import standard
    >>> print(f"{bic(standard(1), [[0.0], [1.0]]):.3f}")
    6.062
    """
    log_likelihood, n = _log_likelihood(g, **_rows(x, weights, mask))
    return _count(g, parameters) * jnp.log(n) - 2.0 * log_likelihood


@lift
def _log_likelihood(
    g: Gaussian,
    x: Float[Array, "... n d"],
    *,
    weights: Float[Array, "... n"] | None = None,
    mask: Bool[Array, "... n"] | None = None,
) -> tuple[Array, Array]:
    """Σ w log p(x), and Σ w."""
    each = _data.row_weights(x, weights, mask)
    rows = jnp.where((each == 0)[:, None], g.mean[None], x)  # what is not read may be NaN
    values = jax.vmap(lambda row: log_density(g.cov, row - g.mean))(rows)
    total = weighted_sum(each, values[:, None])[0]
    return total, _data.total_weight(len(x), each, weights, mask)


def _rows(x: Any, weights: Any, mask: Any) -> dict[str, Any]:
    return {"x": x, "weights": weights, "mask": mask}


def _count(g: Gaussian, parameters: int | None) -> int:
    if parameters is None:
        return g.dim + g.cov.num_parameters
    return _errors.dimension("parameters", parameters)
