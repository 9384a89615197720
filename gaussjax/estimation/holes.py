"""A Gaussian from rows with holes, by EM, and the pooling of results from imputed data.

>>> x = jnp.array([[1.0, 2.0], [2.0, jnp.nan], [3.0, 3.0], [0.0, 0.0]])
>>> g = fit_missing(x, mask=~jnp.isnan(x))
>>> print(f"{g.mean[1]:.3f}")  # and not 5/3, the mean of what is there
1.821
"""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._lift import lift_as_whole
from gaussjax._struct import exported
from gaussjax.covariances import Cholesky, restricted
from gaussjax.estimation import _checks, _data, _iterated
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.moments import scatter
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import solve

ROWS = 128
"""Rows that are filled in at a time, each with a matrix of its own."""


def fit_missing(
    x: ArrayLike,
    *,
    mask: ArrayLike,
    weights: ArrayLike | None = None,
    most: int | None = None,
    steps: int = 1000,
) -> Gaussian:
    """The maximum likelihood Gaussian of the entries at the mask, by EM. O(n d² m) a step

    `x` is `(..., n, d)` with a `mask` of its shape and `weights` `(..., n)`, as in `moments`.
    Entries off the mask are not read. If they are missing at random the estimate is consistent,
    which one from complete rows or column means is not. It ends when a step changes only rounding,
    or after `steps` steps. Each is an `em_step`, and the likelihood never falls; a `scan` of
    `em_step` shows it. Derivatives are those of the fixed point, and NaN if `steps` are too few.

    `most` m is the largest number of missing entries in a row. It is counted if the mask is
    concrete; under `jit` it defaults to d, which costs more.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: shapes differ, or (where the values are known) an observed entry is not finite,
            a weight negative, a column has no two different entries, or columns depend on each
            other. Under `jit` such an element of a batch is NaN, as where `most` is too small.

    Source: Little & Rubin, Statistical Analysis with Missing Data, §11.2.

    >>> x = [[1.0, 2.0], [2.0, jnp.nan], [3.0, 3.0], [0.0, 0.0]]
    >>> fit_missing(x, mask=~jnp.isnan(jnp.array(x))).mean[0]
    Array(1.5, dtype=float32)
    """
    data, seen = _errors.real_array("x", x), _errors.bool_array("mask", mask)
    _errors.rank_at_least("x", data, 2)
    most = _most(data, seen, most)
    limit = _errors.dimension("steps", steps)
    given: Any = weights
    with jax.debug_nans(False):  # a failure raises its own error
        g = _fit_missing(data, mask=seen, weights=given, most=most, steps=limit)
    _checks.values(g, jnp.where(seen, data, 0), weights, None, "fit_missing")
    return g


def em_step(
    g: Gaussian,
    x: ArrayLike,
    *,
    mask: ArrayLike,
    weights: ArrayLike | None = None,
    most: int | None = None,
) -> Gaussian:
    """One step of EM from g: the moments of the rows, each hole having its law given the rest.

    Arguments as in `fit_missing`. The result is a `Cholesky`. It has derivatives.

    Source: Dempster, Laird & Rubin, J. R. Statist. Soc. B 39 (1977).

    >>> from gaussjax import standard
    >>> em_step(standard(1), [[0.0], [2.0], [jnp.nan]], mask=[[True], [True], [False]]).mean
    Array([1.], dtype=float32)
    """
    data, seen = _errors.real_array("x", x), _errors.bool_array("mask", mask)
    _errors.rank_at_least("x", data, 2)
    given: Any = weights
    return _em_step(g, data, mask=seen, weights=given, most=_most(data, seen, most))


@exported
class Pooled(NamedTuple):
    """Pooled results of several imputed data sets, one entry for each quantity.

    Attributes:
        estimate: the mean of the estimates.
        variance: its variance, within and between data sets.
        degrees: degrees of freedom of the t distribution of its error; ∞ where all agree.
        missing: the share of the information that is missing.
    """

    estimate: Float[Array, "..."]
    variance: Float[Array, "..."]
    degrees: Float[Array, "..."]
    missing: Float[Array, "..."]


def pool_imputations(estimates: ArrayLike, variances: ArrayLike) -> Pooled:
    """Rubin's rules: one estimate from those of m imputed data sets. O(m)

    `estimates` and their squared standard errors `variances` are `(m, ...)`: of each data set that
    `impute(key, g, x, mask=mask, shape=(m,))` draws. T = Ū + (1 + 1/m) B.

    Raises:
        ValueError: the shapes differ, or m < 2.

    Source: Rubin, Multiple Imputation for Nonresponse in Surveys, §3.1.

    >>> pooled = pool_imputations([1.0, 3.0], [1.0, 1.0])
    >>> pooled.estimate, pooled.variance, pooled.missing
    (Array(2., dtype=float32), Array(4., dtype=float32), Array(0.75, dtype=float32))
    """
    estimates, variances = _errors.real_arrays(estimates=estimates, variances=variances)
    if estimates.shape != variances.shape or estimates.ndim == 0 or len(estimates) < 2:
        raise ValueError(
            "estimates and variances must have one shape (m, ...) with m of at least 2, got "
            f"{estimates.shape} and {variances.shape}."
        )
    m = len(estimates)
    variances = jnp.where(variances >= 0, variances, jnp.nan)
    within, between = jnp.mean(variances, axis=0), jnp.var(estimates, axis=0, ddof=1)
    extra = (1 + 1 / m) * between
    total = within + extra
    agree = extra == 0
    ratio = within / jnp.where(agree, 1.0, extra)
    degrees = jnp.where(agree, jnp.inf + 0.0 * within, (m - 1) * jnp.square(1 + ratio))
    missing = jnp.where(agree, 0.0 * within, extra / jnp.where(agree, 1.0, total))
    return Pooled(jnp.mean(estimates, axis=0), total, degrees, missing)


# EM ----------------------------------------------------------------------------------------------


@lift_as_whole
def _em_step(
    g: Gaussian,
    x: Float[Array, "... n d"],
    *,
    mask: Bool[Array, "... n d"],
    weights: Float[Array, "... n"] | None = None,
    most: int,
) -> Gaussian:
    each = _weights(x, mask, weights, most)
    return _stepped(Gaussian(g.mean, Cholesky(restricted.triangle(g.cov))), x, mask, each, most)


@lift_as_whole
def _fit_missing(
    x: Float[Array, "... n d"],
    *,
    mask: Bool[Array, "... n d"],
    weights: Float[Array, "... n"] | None = None,
    most: int,
    steps: int,
) -> Gaussian:
    each = _weights(x, mask, weights, most)

    def step(rows: tuple[Array, Array, Array], g: Gaussian) -> Gaussian:
        return _stepped(g, *rows, most)

    def change(old: Gaussian, new: Gaussian) -> Array:
        return _iterated.change_of_law(new.mean - old.mean, old.cov, new.cov)

    start = _start(x, mask, each)
    units = _iterated.units_of_law
    return _iterated.fixed_point(step, change, units, (x, mask, each), start, steps)[0]


def _weights(x: Array, mask: Array, weights: Array | None, most: int) -> Array:
    """Weights of rows, those with nothing observed left out; all NaN where `most` is too small."""
    if mask.shape != x.shape:
        raise ValueError(f"mask must have the shape {x.shape} of x, got {mask.shape}.")
    each = _data.row_weights(x, weights, None)
    fits = jnp.all(jnp.sum(~mask, axis=1) <= most)
    return jnp.where(fits, jnp.where(jnp.any(mask, axis=1), each, 0.0), jnp.nan)


def _start(x: Array, mask: Array, each: Array) -> Gaussian:
    """Means and variances of what is there; NaN where a column has none."""
    share = jnp.where(mask, each[:, None], 0.0)
    share = share / jnp.sum(share, axis=0)[None]
    clean = jnp.where(mask, x, 0.0)
    mean = jnp.sum(share * clean, axis=0)
    left = jnp.where(mask, clean - mean[None], 0.0)
    mean = mean + jnp.sum(share * left, axis=0)
    size = jnp.max(jnp.abs(left), axis=0)
    noise = 8 * float(jnp.finfo(x.dtype).eps) * jnp.abs(mean)
    size = jnp.where(size > noise, size, jnp.nan)
    deviation = size * jnp.sqrt(jnp.sum(share * jnp.square(left / size[None]), axis=0))
    return Gaussian(mean, Cholesky(jnp.diag(deviation)))


# With W = L⁻¹, columns B of it for what is missing and z = W(x − μ) of what is there, the missing
# are N(μ − (BᵀB)⁻¹Bᵀz, (BᵀB)⁻¹): a least squares problem, by QR of B.
def _stepped(g: Gaussian, x: Array, mask: Array, each: Array, most: int) -> Gaussian:
    n, d = x.shape
    left = jnp.where(mask, jnp.where(mask, x, 0.0) - g.mean[None], 0.0)
    whitener = solve(g.cov.dense_factor(), jnp.eye(d, dtype=x.dtype))

    def filled(row: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, seen, weight = row
        places = jnp.argsort(seen)[:most]  # what is missing first
        is_hole = ~seen[places]
        columns = jnp.where(is_hole[None], whitener[:, places], 0.0)
        padded = [columns.T, jnp.diag((~is_hole).astype(x.dtype))]
        lower = triangular_root(jnp.concatenate(padded, axis=1))
        inverse = solve(lower, jnp.diag(is_hole.astype(x.dtype)))
        values = -dot(inverse.T, dot(inverse, dot(columns.T, dot(whitener, left))))
        return places, values, weight * dot(inverse.T, inverse)

    if most and n:
        rows = (left, mask, each)
        places, values, spread = lax.map(filled, rows, batch_size=min(ROWS, n))
        index = jnp.arange(n)[:, None]
        left = left.at[index, places].add(values)
        total = jnp.zeros((d, d), x.dtype)
        total = total.at[places[:, :, None], places[:, None, :]].add(spread)
    else:
        total = jnp.zeros((d, d), x.dtype)
    weight, shift, _, rows = _data.centred(left, each, None)
    lower = factorise((scatter(rows) + total) / weight)
    return Gaussian(g.mean + _data.located(weight, shift), Cholesky(lower))


def _most(x: Array, mask: Array, most: int | None) -> int:
    d = x.shape[-1]
    if most is not None:
        return min(_errors.dimension("most", most), d)
    if isinstance(mask, jax.core.Tracer) or mask.shape[-1:] != (d,) or mask.size == 0:
        return d
    return int(np.max(np.sum(~np.asarray(mask), axis=-1)))
