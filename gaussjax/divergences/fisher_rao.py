"""The Fisher-Rao distance: the length of the shortest path in the Fisher information metric."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.covariances import Covariance, pairs, restricted
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.laws.eigenvalues import squared_logs, squared_logs_of_diagonals


@exported
class FisherRaoBounds(NamedTuple):
    """Result of `fisher_rao_bounds`, one entry of each field per pair.

    Attributes:
        lower: at most the distance, `(...)`.
        upper: at least the distance, `(...)`.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]


@lift
def fisher_rao_distance(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """Length of the shortest path from p to q in ds² = dμᵀΣ⁻¹dμ + ½ tr((Σ⁻¹dΣ)²). O(d³)

    In the three cases with a closed form, NaN in others (`fisher_rao_bounds` holds in all):
    d = 1, 2√2 artanh √(((μp − μq)² + 2(σp − σq)²) / ((μp − μq)² + 2(σp + σq)²)); equal means,
    √(½ Σ log²λ) over the eigenvalues of Σq⁻¹Σp; equal arrays of covariances, 2√2 arsinh(Δ/√8) with
    the Mahalanobis distance Δ. √(δᵀFδ) as p → q; at p = q it is zero, with the subgradient zero.
    O(d) for diagonals. Infinite where one is singular.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Atkinson & Mitchell, Sankhyā A 43 (1981); Skovgaard, Scand. J. Statistics 11 (1984).

    >>> from gaussjax import from_scale, standard
    >>> print(f"{fisher_rao_distance(from_scale([0.0], [2.0]), standard(1)):.4f}")  # √2 log 2
    0.9803
    """
    shift = p.mean - q.mean
    if p.dim == 1:
        return _univariate(shift, p.cov, q.cov)
    same_mean = jnp.all(shift == 0)
    squares = _between(p.cov, q.cov)
    level = _level(q.cov, shift)
    value = jnp.where(same_mean, _root(squares), jnp.where(squares == 0, level, jnp.nan))
    return jnp.where(jnp.any(jnp.isnan(shift)), jnp.nan, value)


@lift
def fisher_rao_bounds(p: Gaussian, q: Gaussian) -> FisherRaoBounds:
    """Certified bounds of the Fisher-Rao distance, up to rounding; equal where a form is closed.

    Below: the distance of (Σ + μμᵀ, μ; μᵀ, 1) among positive definite matrices, in which the
    Gaussians lie with their metric. Above: the least of three paths, with first the mean and then
    the covariance moved, the other way round, and √J for `jeffreys_divergence`. O(d³)

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Calvo & Oller, J. Multivariate Analysis 35 (1990), theorem 3.1; Nielsen, Entropy 25
    (2023), §3.

    >>> from gaussjax import from_scale, standard
    >>> low, high = fisher_rao_bounds(from_scale([1.0, 0.0], [2.0, 1.0]), standard(2))
    >>> print(f"{low:.2f} {high:.2f}")
    1.19 1.32
    """
    shift = p.mean - q.mean
    if p.dim == 1:
        exact = _univariate(shift, p.cov, q.cov)
        return FisherRaoBounds(exact, exact)
    squares = _between(p.cov, q.cov)
    across = jnp.minimum(_level(p.cov, shift), _level(q.cov, shift)) + _root(squares)
    twice = [pairs.shifted_divergence(*c, shift) for c in ((p.cov, q.cov), (q.cov, p.cov))]
    upper = jnp.minimum(across, _root(0.5 * (twice[0] + twice[1])))
    first = jnp.pad(restricted.triangle(p.cov), ((1, 0), (1, 0))).at[1:, 0].set(shift)
    other = jnp.pad(restricted.triangle(q.cov), ((1, 0), (1, 0)))
    lower = _root(squared_logs(first.at[0, 0].set(1.0), other.at[0, 0].set(1.0)))
    return FisherRaoBounds(jnp.minimum(lower, upper), upper)


def _between(a: Covariance, b: Covariance) -> Array:
    """½ Σ log²λ."""
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None and root_a.ndim == root_b.ndim == 1:
        return squared_logs_of_diagonals(root_a, root_b)
    return squared_logs(restricted.triangle(a), restricted.triangle(b))


def _level(cov: Covariance, shift: Array) -> Array:
    """Between two means at one covariance."""
    return 2 * math.sqrt(2) * jnp.arcsinh(_root(cov.inv_quad(shift) / 8))


def _univariate(shift: Array, a: Covariance, b: Covariance) -> Array:
    """In the half plane of (μ/√2, σ)."""
    s, t, v = a.stddev()[0], b.stddev()[0], shift[0]
    unit = jnp.maximum(jnp.maximum(s, t), jnp.abs(v))
    s, t, v = (x / jnp.where(unit > 0, unit, 1.0) for x in (s, t, v))
    near = jnp.square(v) + 2 * jnp.square(s - t)
    # artanh √(n/f) = arsinh √(n/(f − n)), f − n = 8στ
    both = 8 * s * t
    return 2 * math.sqrt(2) * jnp.arcsinh(_root(near / both))


def _root(square: Array) -> Array:
    """Its square root, with a zero derivative at zero."""
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))
