"""Missing data: what a mask says is observed, in shapes that do not depend on the mask.

So one jitted call takes a batch whose rows have different holes. Missing entries are not read: they
may be NaN, and have gradient zero.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax._dtypes import result_dtype
from gaussjax._lift import lift, lift_as_whole
from gaussjax.covariances import conditionals
from gaussjax.gaussian import Gaussian, sample


@lift_as_whole
def condition_where(
    g: Gaussian, x: Float[Array, "... d"], *, mask: Bool[Array, "... d"]
) -> Gaussian:
    """Law of all coordinates given those of `x` at the mask, which have variance zero. O(d³)

    `condition` with shapes that do not depend on the mask: one jitted call conditions a batch whose
    rows have different holes. Entries of `x` off the mask are not read and may be NaN. The result
    can be sampled (`impute`), but has no density unless nothing is given.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gaussjax import from_cholesky
    >>> g = from_cholesky([0.0, 0.0], [[2.0, 0.0], [1.0, 1.0]])
    >>> condition_where(g, [2.0, jnp.nan], mask=[True, False]).mean
    Array([2., 1.], dtype=float32)
    """
    law = conditionals.conditional_where(g.cov, mask, _values(g, mask, x))
    return Gaussian(jnp.where(mask, x, g.mean + law.mean), law.cov)  # exactly x


@lift
def log_prob_observed(
    g: Gaussian, x: Float[Array, "... d"], *, mask: Bool[Array, "... d"]
) -> Float[Array, "..."]:
    """Log density of the entries of `x` at the mask, in nats: the marginal's `log_prob`. O(d³)

    Use it for maximum likelihood with missing entries. Those are not read, may be NaN, and have
    gradient zero; nothing observed gives 0.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Little & Rubin, Statistical Analysis with Missing Data, §6.2.

    >>> import jax.numpy as jnp
    >>> from gaussjax import log_prob, standard
    >>> value = log_prob_observed(standard(2), [1.0, jnp.nan], mask=[True, False])
    >>> bool(value == log_prob(standard(1), [1.0]))
    True
    """
    values = _values(g, mask, x)
    infinite = jnp.any(jnp.isinf(values)) & ~jnp.any(jnp.isnan(values))
    law = conditionals.conditional_where(g.cov, mask, jnp.where(infinite, 0.0, values))
    infinite &= ~jnp.isnan(law.log_evidence)  # as it is where Σ is no covariance
    return jnp.where(infinite, -jnp.inf, law.log_evidence)  # ∞ − ∞ on the way would be NaN


def impute(
    key: Array, g: Gaussian, x: ArrayLike, *, mask: ArrayLike, shape: tuple[int, ...] = ()
) -> Float[Array, "..."]:
    """Samples of the missing coordinates of `x`; those at the mask are kept. O(d³)

    The result is `shape + batch + (d,)`. Entries of `x` off the mask are not read.

    Raises:
        TypeError: `key` is not a PRNG key, or `mask` is not boolean.
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Little & Rubin, Statistical Analysis with Missing Data, §10.2.

    >>> import jax
    >>> from gaussjax import standard
    >>> float(impute(jax.random.key(0), standard(2), [3.0, jnp.nan], mask=[True, False])[0])
    3.0
    """
    _errors.random_key(key, "key, g, x, *, mask, shape")
    _errors.instance("g", g, Gaussian, order="key, g, x, *, mask, shape")
    x, mask = _errors.real_array("x", x, result_dtype(g)), _errors.bool_array("mask", mask)
    draws = sample(key, condition_where(g, x, mask=mask), shape)
    return jnp.where(mask, x.astype(draws.dtype), draws)  # exactly


def _values(g: Gaussian, mask: Array, x: Array) -> Array:
    """x − μ at the mask. Entries off it may be NaN, and must reach no product: see its gradient."""
    return jnp.where(mask, jnp.where(mask, x, 0.0) - g.mean, 0.0)
