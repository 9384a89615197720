"""Factor analysis: low rank plus a separate noise for each coordinate.

>>> import jax
>>> x = jax.random.normal(jax.random.key(0), (100, 1)) * jnp.arange(1.0, 4.0)[None]
>>> x = x + jax.random.normal(jax.random.key(1), (100, 3))
>>> factor_analysis(x, rank=1).cov.factor.shape
(3, 1)
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift_as_whole
from gaussjax.covariances import LowRank
from gaussjax.estimation import _checks, _data, _iterated, _sentences
from gaussjax.estimation.likelihood import data_shape, scatter_of
from gaussjax.estimation.streams import Moments
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.semidefinite import principal_axes


def factor_analysis(
    data: ArrayLike | Moments,
    *,
    rank: int,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    steps: int = 1000,
) -> Gaussian:
    """Maximum likelihood Σ = Ψ + W Wᵀ, Ψ diagonal, W with `rank` columns. O(d³) a step

    `data`, `weights` and `mask` as in `fit`, whose `LowRank` has one noise for all coordinates.
    Steps alternate: the best W for Ψ, from an eigendecomposition, then the Ψ that W leaves of the
    variances, until only rounding changes, or `steps` are done. A noise does not fall below √ε of
    its variance, where the likelihood has no maximum (Heywood cases). No derivatives.

    Raises:
        ValueError: there are too few rows, `rank` is not below d, or (where the values are known) a
            value is not finite, a weight negative, or a column constant. Under `jit` such an
            element of a batch is NaN.

    Source: Barber, Bayesian Reasoning and Machine Learning, §21.1.1; scikit-learn's FactorAnalysis.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> factor_analysis(x, rank=1).dim
    3
    """
    shape, limit = data_shape(data), _errors.dimension("steps", steps)
    rank = _sentences.rank_below("rank", rank, shape[-1])
    if not isinstance(data, Moments):
        _sentences.enough_rows("factor analysis", shape, rank + 2)
    scatter = scatter_of(data, weights, mask, by_root=True)
    with jax.debug_nans(False):  # a failure raises its own error
        g = _factors(*scatter, rank=rank, steps=limit)
    _checks.values(g, data, weights, mask, "factor_analysis")
    return g


@lift_as_whole
def _factors(
    weight: Float[Array, "..."],
    mean: Float[Array, "... d"],
    rows: Float[Array, "... k d"],
    *,
    rank: int,
    steps: int,
) -> Gaussian:
    rows = _checks.without_derivatives("factor_analysis", rows)
    root = rows.T / jnp.sqrt(weight)
    valid = _data.varies(mean, rows, weight) & (weight > 0)
    sizes = jnp.where(valid, lengths(root), jnp.nan)
    least = float(jnp.finfo(root.dtype).eps) ** 0.25

    # as many factors as directions leave no noise, and a likelihood without a largest value
    _, values = principal_axes(root / sizes[:, None])
    noise = float(jnp.finfo(root.dtype).eps) * max(root.shape) * jnp.max(values, initial=0)
    is_noisy = jnp.sum(values > noise) > rank
    sizes = jnp.where(is_noisy, sizes, jnp.nan)

    def factor(scale: Array) -> Array:
        vectors, values = principal_axes(root / scale[:, None])
        pad = max(rank - len(values), 0)
        vectors, values = jnp.pad(vectors, ((0, 0), (0, pad))), jnp.pad(values, (0, pad))
        kept = jnp.sqrt(jnp.maximum((values[:rank] - 1) * (values[:rank] + 1), 0.0))
        return scale[:, None] * vectors[:, :rank] * kept[None]

    def step(scale: Array) -> Array:
        shared = lengths(factor(scale)) / sizes
        rest = jnp.sqrt(jnp.maximum((1 - shared) * (1 + shared), least**2))
        return sizes * rest

    def change(old: Array, new: Array) -> Array:
        return jnp.max(jnp.abs(new / old - 1), initial=0)

    scale, _ = _iterated.until_still(step, change, sizes * 0.5**0.5, steps)
    return Gaussian(_data.located(weight, mean), LowRank(scale, factor(scale)))
