"""The maximum mean discrepancy of two Gaussians in closed form."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._lift import lift
from gaussjax.covariances import Covariance, Isotropic, pairs, restricted
from gaussjax.covariances.base import BLOCK
from gaussjax.covariances.mixtures import skewed_divergence
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.laws.smoothed import Smoothed, smoothed, smoothed_diagonals
from gaussjax.linalg.low_rank import inverse, of_one_rank
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import root_of_square, unit_of


@lift
def maximum_mean_discrepancy(
    p: Gaussian, q: Gaussian, *, bandwidth: Float[Array, "..."]
) -> Float[Array, "..."]:
    """MMD(p, q) = √(E k(x, x') + E k(y, y') − 2 E k(x, y)), k(x, y) = exp(−‖x − y‖²/(2ℓ²)). O(d³)

    `bandwidth` is 0 < ℓ < ∞, a number or `(...)`. With P = I + 2Σp/ℓ², Q alike and M = ½(P + Q),
    each mean is a |M|^−½ exp(−½ vᵀM⁻¹v/ℓ²). Both laws may be singular. At p = q it is zero, with
    the subgradient zero. O(d) for diagonals.

    For diagonals, Cholesky factors of Σ or Σ⁻¹, square roots, and low rank or roots with fewer
    columns at d ≤ 64, it is exact at any separation, as p → q too: it starts from the difference of
    what is stored. For others P and Q are formed and rounded, which gives an error of the order of
    rounding, relative to 1. Means of laws far apart are exponentials e^−x, whose relative error is
    x times rounding.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Gretton et al., JMLR 13 (2012), lemma 4; Muandet et al., arXiv:1605.09522, table 3.2.

    >>> from gaussjax import from_scale, standard
    >>> value = maximum_mean_discrepancy(from_scale([2.0], [1.0]), standard(1), bandwidth=1.0)
    >>> print(f"{value:.4f}")
    0.7496
    """
    length = jnp.where(bandwidth > 0, bandwidth, jnp.nan)
    laws = _smoothed(p.cov, q.cov, math.sqrt(0.5) * length, p.mean - q.mean)
    # With k = exp(−½ log|P|) and k' of Q it is (√k − √k')² + 2√(k k') (1 − e^(−apart)), where the
    # larger of the roots is e^ρ times the smaller.
    apart = 0.5 * laws.excess + 0.25 * laws.distance
    logs, r = [-0.25 * x for x in laws.logdets], 0.25 * laws.ratio
    larger, rho = jnp.where(r < 0, logs[0], logs[1]), jnp.where(r < 0, -r, r)
    square = jnp.square(jnp.exp(larger) * jnp.expm1(-rho))
    return root_of_square(square - 2 * jnp.exp(logs[0] + logs[1]) * jnp.expm1(-apart))


def _smoothed(a: Covariance, b: Covariance, noise: Array, shift: Array) -> Smoothed:
    """From roots that are diagonals, or if d × d arrays are small or there; else by structure."""
    unit = unit_of(noise)  # squares may leave the range of the dtype
    noise, shift = noise / unit, shift / unit
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None and root_a.ndim == root_b.ndim == 1:
        return smoothed_diagonals(root_a / unit, root_b / unit, noise, shift)
    is_small = pairs.is_dense(a) or pairs.is_dense(b) or a.dim <= BLOCK
    if is_small and a.has_root and b.has_root:
        first, second, change = _roots(a, b)
        return smoothed(first / unit, second / unit, change / unit, noise, shift)
    white = Isotropic(noise, a.dim)
    p, q = (pairs.add(restricted.rescaled(c, 1 / unit), white) for c in (a, b))
    half = jnp.full_like(noise, 0.5)
    twice = skewed_divergence(p, q, math.sqrt(2) * shift, half, half, inside=True)
    level = 2 * a.dim * jnp.log(noise)
    logdets = p.logdet() - level, q.logdet() - level
    return Smoothed(0.5 * twice, pairs.log_ratio(p, q), logdets, jnp.zeros_like(twice))


def _roots(a: Covariance, b: Covariance) -> tuple[Array, Array, Array]:
    """Two roots of one shape, and their difference."""
    root_a, root_b = a.precision_root(), b.precision_root()
    if root_a is not None and root_b is not None and root_a.ndim == root_b.ndim == 2:
        # L⁻ᵀ − K⁻ᵀ = K⁻ᵀ(K − L)ᵀL⁻ᵀ, which keeps the digits of K − L
        first, second = (inverse(x).T for x in (root_a, root_b))
        return first, second, dot(second, dot(jnp.tril(root_b - root_a).T, first))
    first, second = of_one_rank(_root(a), _root(b))
    return first, second, first - second


def _root(cov: Covariance) -> Float[Array, "d k"]:
    """What a structure stores, before a triangle that would be computed, and so rounded."""
    stored = cov.rectangular_root()
    return restricted.triangle(cov) if stored is None else stored
