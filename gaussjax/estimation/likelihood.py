"""Maximum likelihood of any structure that has an estimate, from data or from their moments.

>>> fit([[1.0, 2.0], [3.0, 4.0], [2.0, 0.0]], structure=Diagonal).mean
Array([2., 2.], dtype=float32)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift_as_whole
from gaussjax.covariances import (
    BandedPrecision,
    BlockDiagonal,
    Cholesky,
    Circulant,
    Covariance,
    Diagonal,
    Isotropic,
    Kronecker,
    LowRank,
    Toeplitz,
)
from gaussjax.estimation import _checks, _data, _iterated, _rules, _sentences, _toeplitz
from gaussjax.estimation.streams import Moments, as_moments
from gaussjax.gaussian import Gaussian


class Rule(NamedTuple):
    """How a structure is estimated: its option, the rows that it needs, and if from their root.

    `counts`: with fewer it would find one of many, and rows of no weight do not count.
    """

    function: Callable[..., Covariance]
    option: str | None
    needed: Callable[[int, Any], int]
    by_root: bool = False
    counts: bool = False


RULES: dict[type[Covariance], Rule] = {
    Isotropic: Rule(_rules.isotropic, None, lambda d, _: 2),
    Diagonal: Rule(_rules.diagonal, None, lambda d, _: 2),
    Cholesky: Rule(_rules.full, None, lambda d, _: d + 1, by_root=True),
    LowRank: Rule(_rules.low_rank, "rank", lambda d, r: r + 2, by_root=True),
    BlockDiagonal: Rule(_rules.blocks, "sizes", lambda d, sizes: max(sizes) + 1),
    BandedPrecision: Rule(_rules.banded_precision, "bandwidth", lambda d, b: min(b + 1, d) + 1),
    Circulant: Rule(_rules.circulant, None, lambda d, _: 2),
    Kronecker: Rule(
        _iterated.kronecker, "sizes", lambda d, sizes: _iterated.rows_for(sizes), counts=True
    ),
    Toeplitz: Rule(_toeplitz.toeplitz, None, lambda d, _: 2, by_root=True),
}


def fit(
    data: ArrayLike | Moments,
    *,
    structure: type[Covariance] = Cholesky,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    rank: int | None = None,
    sizes: tuple[int, ...] | None = None,
    bandwidth: int | None = None,
) -> Gaussian:
    """The maximum likelihood Gaussian with this covariance structure. O(n d²), by structure

    `data` is rows `(..., n, d)`, with `weights` and a `mask` `(..., n)` as in `moments`, or
    `Moments`. The mean is the sample's, the scatter is divided by Σ w (not by n − 1).

    | structure | option | how |
    |---|---|---|
    | `Isotropic`, `Diagonal` | | variances, O(n d) |
    | `Cholesky` | | the sample covariance, by its root |
    | `LowRank` | `rank` | probabilistic PCA, one noise for all coordinates |
    | `BlockDiagonal` | `sizes` | block by block |
    | `BandedPrecision` | `bandwidth` | by regressions on neighbours, O(n d b²) |
    | `Circulant` | | the mean periodogram, O(n d log d) |
    | `Kronecker` | `sizes` | by turns until nothing changes, O(n d Σ dᵢ) each |
    | `Toeplitz` | | by scoring, O(d³) each |

    The last two are loops, NaN where they do not converge, with the derivatives of the fixed point,
    O(d⁴) for `Toeplitz`. `LowRank` has no derivatives. `factor_analysis` is low rank with a
    separate noise for each coordinate.

    Raises:
        TypeError: `structure` is none of these, or its option is missing, or another is given.
        ValueError: there are too few rows for it, sizes do not fit, or (where the values are known)
            a value is not finite, a weight negative, or columns are constant or depend on each
            other. Under `jit` such an element of a batch is NaN.

    Source: Anderson, An Introduction to Multivariate Statistical Analysis, §3.2.

    >>> fit([[0.0, 1.0], [2.0, 1.0], [1.0, 4.0]]).cov.lower.round(4)
    Array([[0.8165, 0.    ],
           [0.    , 1.4142]], dtype=float32)
    """
    options = {"rank": rank, "sizes": sizes, "bandwidth": bandwidth}
    rule = RULES.get(structure) if isinstance(structure, type) else None
    if rule is None:
        raise _sentences.no_estimate(structure, tuple(RULES))
    shape = data_shape(data)
    option = _option(structure.__name__, rule, options, shape[-1])
    needed = rule.needed(shape[-1], option)
    of_root = isinstance(data, Moments)
    if of_root:
        needed = min(needed - 1, shape[-1])  # columns of the root
    else:
        _sentences.enough_rows(structure.__name__, shape, needed)
    scatter = scatter_of(data, weights, mask, by_root=rule.by_root)
    with jax.debug_nans(False):  # a failure raises its own error
        g = _fit(*scatter, structure=structure, option=option, needed=needed, of_root=of_root)
    _checks.values(g, data, weights, mask, structure.__name__)
    return g


@lift_as_whole
def _fit(
    weight: Float[Array, "..."],
    mean: Float[Array, "... d"],
    rows: Float[Array, "... k d"],
    *,
    structure: type[Covariance],
    option: Any,
    needed: int,
    of_root: bool,
) -> Gaussian:
    rule = RULES[structure]
    if rule.counts:
        weight = jnp.where(_rules.count(rows, of_root=of_root) >= needed, weight, jnp.nan)
    s = _rules.Scatter(weight, rows, _data.varies(mean, rows, weight))
    return Gaussian(
        _data.located(weight, mean), rule.function(s, *(() if rule.option is None else (option,)))
    )


def scatter_of(data: Any, weights: Any, mask: Any, *, by_root: bool) -> tuple[Array, Array, Array]:
    """Weight, mean and rows: those of the data, or, where they are fewer, those of a root."""
    if isinstance(data, Moments) or (by_root and data_shape(data)[-2] >= data_shape(data)[-1]):
        m = as_moments(data, weights, mask)
        return m.weight, m.mean, jnp.swapaxes(m.root, -1, -2)
    x = _errors.real_array("data", data)
    weight, mean, _, rows = _data.centre(x, weights=weights, mask=mask)
    return weight, mean, rows


def data_shape(data: Any) -> tuple[int, ...]:
    """Shape of rows, or of those that stand for moments."""
    if isinstance(data, Moments):
        return (data.dim, data.dim)
    x = _errors.real_array("data", data)
    _errors.rank_at_least("data", x, 2)
    return x.shape


def _option(name: str, rule: Rule, given: dict[str, Any], d: int) -> Any:
    """The value of the option that the structure has; the others must not be given."""
    for other, value in given.items():
        if value is not None and other != rule.option:
            raise _sentences.no_such_option(name, other)
    if rule.option is None:
        return None
    value = given[rule.option]
    if value is None:
        raise _sentences.option_missing(name, rule.option)
    if rule.option == "sizes":
        return _sentences.part_sizes(name, value, d)
    return _sentences.rank_below(rule.option, value, d)
