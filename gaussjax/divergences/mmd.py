"""The maximum mean discrepancy of two Gaussians in closed form."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._lift import lift
from gaussjax.covariances import Covariance, Isotropic, pairs, restricted
from gaussjax.covariances.mixtures import skewed_divergence
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.ranges import root_of_square


@lift
def maximum_mean_discrepancy(
    p: Gaussian, q: Gaussian, *, bandwidth: Float[Array, "..."]
) -> Float[Array, "..."]:
    """MMD(p, q) = √(E k(x, x') + E k(y, y') − 2 E k(x, y)), k(x, y) = exp(−‖x − y‖²/(2ℓ²)). O(d³)

    `bandwidth` is ℓ > 0, a number or `(...)`. With P = I + 2Σp/ℓ², Q alike and M = ½(P + Q), each
    mean is a |M|^−½ exp(−½ vᵀM⁻¹v/ℓ²); their difference is taken as a sum of squares, so that the
    error is of the order of rounding at any separation. Both laws may be singular. At p = q it is
    zero, with the subgradient zero. O(d) for diagonals.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Gretton et al., JMLR 13 (2012), lemma 4; Muandet et al., arXiv:1605.09522, table 3.2.

    >>> from gaussjax import from_scale, standard
    >>> value = maximum_mean_discrepancy(from_scale([2.0], [1.0]), standard(1), bandwidth=1.0)
    >>> print(f"{value:.4f}")
    0.7496
    """
    length = jnp.where(bandwidth > 0, bandwidth, jnp.nan)
    a, b = (_smoothed(c, length) for c in (p.cov, q.cov))
    shift = 2 * (p.mean - q.mean) / length
    half = jnp.full_like(length, 0.5)
    apart = 0.25 * skewed_divergence(a, b, shift, half, half, inside=True)
    # With k = exp(−½ log|P|) and k' of Q it is (√k − √k')² + 2√(k k') (1 − e^(−apart)), where the
    # larger of the roots is e^ρ times the smaller.
    logs = -0.25 * a.logdet(), -0.25 * b.logdet()
    r = 0.25 * pairs.log_ratio(a, b)
    larger, rho = jnp.where(r < 0, logs[0], logs[1]), jnp.where(r < 0, -r, r)
    square = jnp.square(jnp.exp(larger) * jnp.expm1(-rho))
    return root_of_square(square - 2 * jnp.exp(logs[0] + logs[1]) * jnp.expm1(-apart))


def _smoothed(cov: Covariance, length: Array) -> Covariance:
    """I + 2Σ/ℓ²."""
    one = Isotropic(jnp.ones_like(length), cov.dim)
    return pairs.add(restricted.rescaled(cov, jnp.sqrt(jnp.full_like(length, 2.0)) / length), one)
