"""Covariances from few rows: the sample covariance shrunk towards a simpler one.

>>> import jax
>>> x = jax.random.normal(jax.random.key(0), (5, 20))  # fewer rows than columns
>>> print(f"{ledoit_wolf_shrinkage(x):.2f} {oas_shrinkage(x):.2f}")
0.46 0.76
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._lift import lift, lift_as_whole
from gaussjax.covariances import Cholesky
from gaussjax.estimation import _checks, _data, _rules, _sentences
from gaussjax.estimation.streams import Moments, as_moments
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.sums import root_of_sum


def ledoit_wolf(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Gaussian:
    """Σ = (1 − ρ) S + ρ (tr S/d) I with the ρ of least mean square error, estimated. O(n d²)

    S is the sample covariance. `data` is rows `(..., n, d)`, with `weights` and a `mask` as in
    `moments` (of which Σ w counts as the number of rows), or `moments(x, fourth=True)`. Positive
    definite for any two rows that differ. ρ itself is `ledoit_wolf_shrinkage`.

    Raises:
        ValueError: there is one row, moments lack the fourth ones, or (where the values are known)
            a value is not finite or all rows are equal. Under `jit` such an element is NaN.

    Source: Ledoit & Wolf, J. Multivariate Anal. 88 (2004), eqs. 10-14; scikit-learn's LedoitWolf.

    >>> from gaussjax import variance
    >>> first, second = variance(ledoit_wolf([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]]))
    >>> print(f"{first:.3f} {second:.3f}")
    8.088 5.662
    """
    m = _moments(data, weights, mask, fourth=True)
    return _checked(_ledoit_wolf(m), data, weights, mask, "ledoit_wolf")


def ledoit_wolf_shrinkage(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Float[Array, "..."]:
    """ρ of `ledoit_wolf`, between 0 and 1. Arguments and errors as there.

    >>> print(f"{ledoit_wolf_shrinkage([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]]):.3f}")
    0.723
    """
    return _ledoit_wolf_share(_moments(data, weights, mask, fourth=True))


def oas(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Gaussian:
    """As `ledoit_wolf`, with the ρ that is best for Gaussian data: less error where n is small.

    Arguments and errors as there, but moments need no fourth ones. ρ itself is `oas_shrinkage`.

    Source: Chen, Wiesel, Eldar & Hero, IEEE Trans. Signal Process. 58 (2010), eq. 23, without its
    terms 2/d, as in scikit-learn's OAS.

    >>> from gaussjax import variance
    >>> first, second = variance(oas([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]]))
    >>> print(f"{first:.3f} {second:.3f}")
    6.875 6.875
    """
    m = _moments(data, weights, mask)
    return _checked(_oas(m), data, weights, mask, "oas")


def oas_shrinkage(
    data: ArrayLike | Moments, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Float[Array, "..."]:
    """ρ of `oas`, between 0 and 1. Arguments and errors as there.

    >>> oas_shrinkage([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]])
    Array(1., dtype=float32)
    """
    return _oas_share(_moments(data, weights, mask))


def constant_correlation(
    data: ArrayLike, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Gaussian:
    """The sample covariance shrunk towards one with all correlations at their mean. O(n d²)

    Variances stay the sample's. `data` is rows `(..., n, d)`, with `weights` and a `mask` as in
    `moments`. The share is `constant_correlation_shrinkage`.

    Raises:
        ValueError: there are fewer than two rows, or (where the values are known) a value is not
            finite or a column constant. Under `jit` such an element of a batch is NaN.

    Source: Ledoit & Wolf, J. Portfolio Management 30 (2004), appendix A and B.

    >>> from gaussjax import variance
    >>> x = [[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]]
    >>> bool(jnp.allclose(variance(constant_correlation(x)), jnp.var(jnp.array(x), axis=0)))
    True
    """
    lower, mean, _ = _constant_correlation(_rows(data), **_given(weights, mask))
    g = Gaussian(mean, Cholesky(lower))
    return _checked(g, data, weights, mask, "constant_correlation")


def constant_correlation_shrinkage(
    data: ArrayLike, *, weights: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Float[Array, "..."]:
    """The share of the target in `constant_correlation`, between 0 and 1. As there.

    >>> constant_correlation_shrinkage([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0], [9.0, 3.0]])
    Array(0., dtype=float32)
    """
    return _constant_correlation(_rows(data), **_given(weights, mask))[2]


# Towards a multiple of the identity --------------------------------------------------------------


@lift_as_whole
def _ledoit_wolf(m: Moments) -> Gaussian:
    return _towards_identity(m, _share_by_fourth(m))


@lift_as_whole
def _oas(m: Moments) -> Gaussian:
    return _towards_identity(m, _share_of_gaussians(m))


@lift
def _ledoit_wolf_share(m: Moments) -> Float[Array, "..."]:
    return _share_by_fourth(m)


@lift
def _oas_share(m: Moments) -> Float[Array, "..."]:
    return _share_of_gaussians(m)


# With T = S/tr S: β = (E‖y‖⁴ − ‖T‖²)/(n d), δ = ‖T − I/d‖²/d and ρ = min(β, δ)/δ.
def _share_by_fourth(m: Moments) -> Array:
    squares, apart = _sizes(m)
    beta = _but_rounding(m.radial[-1] - squares, m.radial[-1]) / m.weight
    beta = jnp.minimum(beta, apart)
    return jnp.where(beta == 0, 0.0, beta / _nonzero(apart))


def _share_of_gaussians(m: Moments) -> Array:
    squares, apart = _sizes(m)
    most = (squares + 1) / _nonzero((m.weight + 1) * apart)
    return jnp.zeros_like(apart) if m.dim == 1 else jnp.where(apart == 0, 1.0, jnp.minimum(most, 1))


def _sizes(m: Moments) -> tuple[Array, Array]:
    """‖T‖² and ‖T − I/d‖², squared Frobenius norms, of T = S/tr S; NaN where S is zero."""
    size = lengths(m.root.reshape(1, -1))[0]
    scaled = gram(m.root / jnp.where(size > 0, size, jnp.nan))
    apart = scaled - jnp.eye(m.dim, dtype=size.dtype) / m.dim
    return jnp.sum(jnp.square(scaled)), jnp.sum(jnp.square(apart))


def _towards_identity(m: Moments, share: Array) -> Gaussian:
    """(1 − ρ) S + ρ (tr S/d) I, by a root of the sum."""
    root = m.root / jnp.sqrt(m.weight)
    size = lengths(root.reshape(1, -1))[0] / m.dim**0.5
    target = size * _root_of(share) * jnp.eye(m.dim, dtype=size.dtype)
    factor = jnp.concatenate([_root_of(1 - share) * root, target], axis=1)
    lower = _rules.regular(root_of_sum(gram(factor), factor), m.dim)
    return Gaussian(_data.located(m.weight, m.mean), Cholesky(lower))


# Towards a constant correlation ------------------------------------------------------------------


# In columns z of unit variance, with correlations r, their mean r̄ and vᵢ the variances,
#   n ρ = Σᵢⱼ vᵢvⱼ (E zᵢ²zⱼ² − rᵢⱼ² − r̄ (tᵢⱼ + tⱼᵢ)/2) / Σᵢⱼ vᵢvⱼ (r̄ − rᵢⱼ)²,  tᵢⱼ = E zᵢ³zⱼ − rᵢⱼ,
# over i ≠ j.
@lift
def _constant_correlation(
    x: Float[Array, "... n d"],
    *,
    weights: Float[Array, "... n"] | None = None,
    mask: Bool[Array, "... n"] | None = None,
) -> tuple[Array, Array, Array]:
    """The lower root, the mean, and the share of the target."""
    weight, mean, _, rows = _data.centred(x, weights, mask)
    each, d = _data.row_weights(x, weights, mask) / weight, x.shape[1]
    used = each > 0
    sizes = lengths(rows.T)
    sizes = jnp.where(_data.varies(mean, rows, weight), sizes, jnp.nan)
    z = rows / sizes[None] / jnp.sqrt(jnp.where(used, each, 1.0))[:, None]
    z = jnp.where(used[:, None], z, 0.0)

    def expect(a: Array, b: Array) -> Array:
        return dot(a.T, each[:, None] * b)

    off = ~jnp.eye(d, dtype=bool)
    r = jnp.where(off, expect(z, z), 1.0)
    r = jnp.tril(r) + jnp.tril(r, -1).T
    mean_r = jnp.sum(jnp.where(off, r, 0.0)) / max(d * (d - 1), 1)
    t = expect(z**3, z) - r
    scaled = jnp.square(sizes / jnp.max(sizes, initial=0))
    v = jnp.where(off, scaled[:, None] * scaled[None], 0.0)
    fourth = expect(z**2, z**2)
    noise = jnp.sum(v * (fourth - r**2 - 0.5 * mean_r * (t + t.T)))
    noise = _but_rounding(noise, jnp.sum(v * fourth))
    apart = jnp.sum(v * jnp.square(mean_r - r))
    share = jnp.clip(noise / _nonzero(apart) / weight, 0.0, 1.0)
    share = jnp.where(apart == 0, 0.0 * apart, share)
    lower = factorise(jnp.where(off, r + share * (mean_r - r), 1.0))
    is_regular = jnp.all(jnp.square(jnp.diagonal(lower)) > 8 * d * _eps(lower))
    lower = jnp.where(is_regular, lower, jnp.nan)
    return (sizes / jnp.sqrt(weight))[:, None] * lower, _data.located(weight, mean), share


# Pieces ------------------------------------------------------------------------------------------


def _moments(data: Any, weights: Any, mask: Any, *, fourth: bool = False) -> Moments:
    if not isinstance(data, Moments):
        data = _rows(data)
    return as_moments(data, weights, mask, fourth=fourth)


def _rows(data: Any) -> Array:
    x = _errors.real_array("data", data)
    _errors.rank_at_least("data", x, 2)
    _sentences.enough_rows("shrinkage", x.shape, 2)
    return x


def _given(weights: Any, mask: Any) -> dict[str, Any]:
    return {"weights": weights, "mask": mask}


def _checked(g: Gaussian, data: Any, weights: Any, mask: Any, what: str) -> Gaussian:
    _checks.values(g, data, weights, mask, what)
    return g


def _but_rounding(difference: Array, size: Array) -> Array:
    """A difference of numbers of some size; zero where it is rounding, as of data with two rows."""
    return jnp.where(difference > 16 * _eps(size) * size, difference, 0.0 * difference)


def _eps(array: Array) -> float:
    return float(jnp.finfo(array.dtype).eps)


def _nonzero(value: Array) -> Array:
    return jnp.where(value == 0, 1.0, value)


def _root_of(share: Array) -> Array:
    """√ρ with the derivative zero, not infinite, at 0."""
    positive = share > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, share, 1.0)), jnp.maximum(share, 0.0))
