"""Log densities of correlations and covariances by their factors.

A prior for HMC on the vector that `parametrize.correlation_from_vector` takes is

>>> from gaussjax.parametrize import correlation_from_vector, correlation_log_jacobian
>>> def log_prior(vector):
...     lower = correlation_from_vector(vector)
...     return lkj_log_prob(lower, 2.0) + correlation_log_jacobian(vector)
>>> print(f"{log_prior(jnp.zeros(3)):.4f}")
-0.6155
"""

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln, multigammaln
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.linalg.triangular import logdet_of_triangle, solve


@lift
def lkj_log_prob(
    lower: Float[Array, "... d d"], concentration: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log density of the Cholesky factor L of a correlation matrix under LKJ(η). O(d)

    The matrix L Lᵀ has a density like |L Lᵀ|^(η − 1): uniform for η = 1, and closer to the identity
    the larger η > 0 is. The density is one of the entries below the diagonal of L, `(..., d, d)`,
    whose rows have length one (assumed).

    Raises:
        ValueError: `lower` is not square.

    Source: Lewandowski, Kurowicka & Joe, J. Multivariate Anal. 100 (2009), eq. 16; Stan's
    lkj_corr_cholesky.

    >>> print(f"{lkj_log_prob(jnp.eye(2), 1.0):.4f}")  # uniform on (−1, 1)
    -0.6931
    """
    _errors.square("lower", lower)
    d = lower.shape[-1]
    eta = jnp.where(concentration > 0, concentration, jnp.nan)
    powers = d - 1 - jnp.arange(d, dtype=lower.dtype) + 2 * (eta - 1)
    pivots = jnp.diagonal(lower)[1:]
    is_factor = jnp.all(jnp.isfinite(jnp.tril(lower))) & jnp.all(pivots >= 0)
    ends = (powers[1:] == 0) & (pivots == 0)  # uniform up to the end
    logs = powers[1:] * jnp.log(jnp.where(ends, 1.0, pivots))
    return jnp.where(is_factor, jnp.sum(logs), jnp.nan) - _lkj_mass(eta, d)


@lift
def wishart_log_prob(
    lower: Float[Array, "... d d"],
    degrees: Float[Array, "..."],
    scale: Float[Array, "... d d"],
) -> Float[Array, "..."]:
    """Log density of A = L Lᵀ under the Wishart law W(V, ν), in nats. O(d³)

    `lower` L and `scale`, the lower factor of V, are `(..., d, d)`; ν > d − 1. The density is one
    of A itself; that of L adds `parametrize.covariance_log_jacobian(lower)`.

    Raises:
        ValueError: a matrix is not square, or sizes differ.

    Source: Anderson, An Introduction to Multivariate Statistical Analysis, §7.2.

    >>> print(f"{wishart_log_prob([[1.0]], 1.0, [[1.0]]):.4f}")  # χ² of one degree at 1
    -1.4189
    """
    _same_size(lower, scale)
    d, lower, scale = len(lower), jnp.tril(lower), jnp.tril(scale)
    nu = jnp.where(degrees > d - 1, degrees, jnp.nan)
    trace = jnp.sum(jnp.square(solve(scale, lower)))
    value = (nu - d - 1) * logdet_of_triangle(lower) - nu * logdet_of_triangle(scale)
    return value - 0.5 * trace - 0.5 * nu * d * math.log(2) - multigammaln(0.5 * nu, d)


@lift
def inverse_wishart_log_prob(
    lower: Float[Array, "... d d"],
    degrees: Float[Array, "..."],
    scale: Float[Array, "... d d"],
) -> Float[Array, "..."]:
    """Log density of A = L Lᵀ under the inverse Wishart law W⁻¹(Ψ, ν), in nats. O(d³)

    Arguments and errors as in `wishart_log_prob`; `scale` is the lower factor of Ψ.

    Source: Anderson, An Introduction to Multivariate Statistical Analysis, §7.7.

    >>> print(f"{inverse_wishart_log_prob([[1.0]], 1.0, [[1.0]]):.4f}")
    -1.4189
    """
    _same_size(lower, scale)
    d, lower, scale = len(lower), jnp.tril(lower), jnp.tril(scale)
    nu = jnp.where(degrees > d - 1, degrees, jnp.nan)
    trace = jnp.sum(jnp.square(solve(lower, scale)))
    value = nu * logdet_of_triangle(scale) - (nu + d + 1) * logdet_of_triangle(lower)
    return value - 0.5 * trace - 0.5 * nu * d * math.log(2) - multigammaln(0.5 * nu, d)


def _lkj_mass(eta: Array, d: int) -> Array:
    """Log of the integral: Σₖ ½ k log π + log Γ(η + (d − 1 − k)/2) − log Γ(η + (d − 1)/2)."""
    k = jnp.arange(1, d, dtype=eta.dtype)
    each = 0.5 * k * math.log(math.pi) + gammaln(eta + 0.5 * (d - 1 - k))
    return jnp.sum(each - gammaln(eta + 0.5 * (d - 1)))


def _same_size(lower: Array, scale: Array) -> None:
    _errors.square("lower", lower)
    _errors.square("scale", scale)
    _errors.same_dim("scale", scale.shape[-1], scale.shape, lower.shape[-1], "lower")
