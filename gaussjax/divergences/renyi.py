"""Rényi divergences between two Gaussians, and what follows from those of order ½ and 2."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax._lift import lift
from gaussjax.covariances import pairs
from gaussjax.covariances.mixtures import skewed_divergence
from gaussjax.divergences.kl import kl_divergence, zero_to_itself
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.ranges import root_of_square


def renyi_divergence(p: Gaussian, q: Gaussian, *, order: float | Array) -> Float[Array, "..."]:
    """D_α(p‖q) = log ∫ p^α q^(1−α) / (α − 1) ≥ 0 of order α > 0, in nats. O(d³), O(d) for diagonals

    With M = αΣq + (1 − α)Σp it is ½α (μp − μq)ᵀM⁻¹(μp − μq) plus
    ½ log(|M| / (|Σp|^(1−α)|Σq|^α)) / (1 − α): infinite where α > 1 and M is not positive definite,
    the KL divergence where α = 1 (the derivative in α is NaN there). `order` is a number, or an
    array `(...)`, NaN where it is not positive.

    A sum of terms that are not negative, exact in float32 even when p is close to q, where it is
    ½α δᵀFδ for a change δ of the parameters and their Fisher information F: zero, with a zero
    gradient, at p = q. Infinite if either is singular. O(d r²) between low-rank covariances,
    O(Σ dᵢ³ + d Σ dᵢ) between Kronecker products of factors of sizes dᵢ, O(d b³) between bands,
    O(d²) time between Toeplitz ones. A d × d array is made, at O(d³), where M has no structure:
    between unlike structures, unless one is diagonal. A traced order costs as much as one above one
    and one below together.

    Raises:
        TypeError: `order` is not a number.
        ValueError: a number that is not positive, dimensions differ or batch shapes do not
            broadcast.

    Source: Gil, Alajaji & Linder, Information Sciences 249 (2013), table 2; van Erven & Harremoës,
    IEEE Trans. Inf. Theory 60 (2014).

    >>> from gaussjax import from_scale, standard
    >>> renyi_divergence(from_scale([1.0], [1.0]), standard(1), order=0.5)
    Array(0.25, dtype=float32)
    """
    if isinstance(order, bool | np.bool):
        raise TypeError(f"order must be a number, got {type(order).__name__}.")
    if isinstance(order, int | float | np.integer | np.floating):
        static = float(order)
        if not 0 < static < float("inf"):
            raise ValueError(f"order must be positive and finite, got {static}.")
        if static == 1:
            return kl_divergence(p, q)
        return zero_to_itself(p, q, _of_static_order(p, q, order=static))
    return zero_to_itself(p, q, _of_order(p, q, order))


def bhattacharyya_distance(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """−log ∫ √(p q) = ⅛ vᵀM⁻¹v + ½ log(|M| / √(|Σp||Σq|)) ≥ 0, M = ½(Σp + Σq), in nats. O(d³)

    Half the Rényi divergence of order ½, and as exact: ⅛ δᵀFδ as p → q, zero with a zero gradient
    at p = q, infinite if either is singular.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Fukunaga, Introduction to Statistical Pattern Recognition, eq. 3.152.

    >>> from gaussjax import from_scale, standard
    >>> bhattacharyya_distance(from_scale([2.0], [1.0]), standard(1))
    Array(0.5, dtype=float32)
    """
    return 0.5 * renyi_divergence(p, q, order=0.5)


def hellinger_distance(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """√(½ ∫ (√p − √q)²) = √(1 − exp(−bhattacharyya_distance)), from 0 to 1. O(d³)

    √(⅛ δᵀFδ) as p → q: it has a kink at p = q, and the subgradient zero there. 1 if either is
    singular.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Pardo, Statistical Inference Based on Divergence Measures, §1.2.

    >>> from gaussjax import from_scale, standard
    >>> print(f"{hellinger_distance(from_scale([2.0], [1.0]), standard(1)):.4f}")
    0.6273
    """
    return root_of_square(-jnp.expm1(-bhattacharyya_distance(p, q)))


def chi_squared_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """χ²(p‖q) = ∫ p²/q − 1 = exp(D₂(p‖q)) − 1 ≥ 0, D₂ the Rényi divergence of order 2. O(d³)

    Infinite where 2Σq − Σp is not positive definite: p must not be much wider than q. As p → q it
    is δᵀFδ, exact, with a zero gradient at p = q. Far away its relative error is that of an
    exponential, D₂ u for rounding u.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Nielsen & Nock, IEEE Signal Processing Letters 21 (2014).

    >>> from gaussjax import from_scale, standard
    >>> print(f"{chi_squared_divergence(from_scale([1.0], [1.0]), standard(1)):.4f}")
    1.7183
    """
    return jnp.expm1(renyi_divergence(p, q, order=2.0))


@lift
def _of_static_order(p: Gaussian, q: Gaussian, *, order: float) -> Float[Array, "..."]:
    shift = p.mean - q.mean
    weights = (jnp.asarray(w, shift.dtype) for w in (order, 1 - order))
    return 0.5 * skewed_divergence(p.cov, q.cov, shift, *weights, inside=order < 1)


@lift
def _of_order(p: Gaussian, q: Gaussian, order: Float[Array, "..."]) -> Float[Array, "..."]:
    shift, order = p.mean - q.mean, _without_slope_at_one(order)
    below = (order > 0) & (order < 1)
    values = [
        skewed_divergence(p.cov, q.cov, shift, alpha, 1 - alpha, inside=inside)
        for alpha, inside in (
            (jnp.where(below, order, 0.5), True),
            (jnp.where((order > 1) & (order < jnp.inf), order, 2.0), False),
        )
    ]
    kl = pairs.shifted_divergence(p.cov, q.cov, shift)
    value = jnp.where(order == 1, kl + 0.0 * order, jnp.where(below, *values))
    return jnp.where((order > 0) & (order < jnp.inf), 0.5 * value, jnp.nan)


# At order 1 the KL divergence takes its place, which does not depend on the order.
@jax.custom_jvp
def _without_slope_at_one(order: Array) -> Array:
    return order


@_without_slope_at_one.defjvp
def _(primals, tangents):
    (order,), (dorder,) = primals, tangents
    return order, jnp.where(order == 1, jnp.nan, 1.0).astype(order.dtype) * dorder
