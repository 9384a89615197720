"""Kullback-Leibler divergences between two Gaussians, of any two structures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._lift import lift, lift_unchecked
from gaussjax._struct import exported
from gaussjax.covariances import Covariance, pairs
from gaussjax.covariances.base import log_normal
from gaussjax.gaussian import Gaussian, entropy


def kl_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """KL(p‖q) = ½ (D(Σp, Σq) + ‖Cq⁻¹(μp − μq)‖²) ≥ 0, in nats. O(d³), O(d) for diagonals

    D is `logdet_divergence`. A sum of terms that are not negative: exact in float32 even when p
    is close to q, zero (and with a zero gradient) when they are equal. Batch axes broadcast.

    Infinite if one law is singular. If both are, two diagonals have a finite value or infinity: a
    coordinate known in both adds nothing if the means agree. Other structures give NaN, or zero if
    p and q hold the same arrays.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Kullback, Information Theory and Statistics, §9.1; Kulis et al., JMLR 10 (2009), §2.2.

    >>> from gaussjax import from_scale, standard
    >>> kl_divergence(from_scale([1.0], [1.0]), standard(1))
    Array(0.5, dtype=float32)
    """
    return zero_to_itself(p, q, _kl_divergence(p, q))


@lift_unchecked
def _kl_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    return 0.5 * pairs.shifted_divergence(p.cov, q.cov, p.mean - q.mean)


def jeffreys_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """J(p, q) = KL(p‖q) + KL(q‖p) ≥ 0, symmetric, in nats. O(d³), O(d) for diagonals

    As exact as `kl_divergence`, and infinite where that is. As p → q it is δᵀFδ for a change δ of
    the parameters and their Fisher information F: zero, with a zero gradient, at p = q.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Jeffreys, Proc. R. Soc. A 186 (1946), eq. 1.

    >>> from gaussjax import from_scale, standard
    >>> jeffreys_divergence(from_scale([1.0], [1.0]), standard(1))
    Array(1., dtype=float32)
    """
    return kl_divergence(p, q) + kl_divergence(q, p)


@exported
class DecoupledKL(NamedTuple):
    """Result of `decoupled_kl`, one entry of each field per pair, in nats.

    Attributes:
        mean: the divergence that is due to the means, `(...)`.
        covariance: the divergence that is due to the covariances, `(...)`.
    """

    mean: Float[Array, "..."]
    covariance: Float[Array, "..."]


@lift_unchecked
def decoupled_kl(p: Gaussian, q: Gaussian) -> DecoupledKL:
    """½‖Cp⁻¹(μp − μq)‖² and ½ D(Σp, Σq): how far q moves from p in each of its two parts. O(d³)

    They are KL(p‖N(μq, Σp)) and KL(p‖N(μp, Σq)): for trust regions with a bound for each. The first
    has no gradient in Σq and the second none in μq. O(d) for diagonals; exact, infinite and zero
    where `kl_divergence` is. Their sum is not that: it measures the means apart in q's metric.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Abdolmaleki et al., arXiv:1812.02256, §4.2.

    >>> from gaussjax import from_scale, standard
    >>> decoupled_kl(standard(1), from_scale([2.0], [1.0]))
    DecoupledKL(mean=Array(2., dtype=float32), covariance=Array(0., dtype=float32))
    """
    shift = p.mean - q.mean
    valid = p.cov.is_valid() & q.cov.is_valid()
    distance = jnp.where(valid, 0.5 * p.cov.inv_quad(shift), jnp.nan)
    return DecoupledKL(
        distance, 0.5 * pairs.shifted_divergence(p.cov, q.cov, jnp.zeros_like(shift))
    )


@lift
def cross_entropy(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """H(p, q) = −E_p[log q] = ½ (log|2πΣq| + tr(Σq⁻¹Σp) + ‖Cq⁻¹(μp − μq)‖²), in nats. O(d³)

    O(d) for diagonals; the trace costs what `trace_solve` says. p may be singular: only
    the trace depends on Σp. Infinite or NaN where q is singular. Batch axes broadcast.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Cover & Thomas, Elements of Information Theory, §2.3 and eq. 8.46.

    >>> from gaussjax import standard
    >>> cross_entropy(standard(1), standard(1)).round(4)
    Array(1.4189, dtype=float32)
    """
    # H(p) + KL(p‖q) is the same, but log|Σp| cancels in it: so does its gradient for a narrow p.
    distance = pairs.shifted_trace(p.cov, q.cov, p.mean - q.mean)
    return -log_normal(distance, q.cov.logdet(), q.cov.dim)


@lift_unchecked
def logdet_divergence(a: Covariance, b: Covariance) -> Float[Array, "..."]:
    """LogDet (Burg) divergence D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A| ≥ 0 of covariances. O(d³)

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Kulis, Sustik & Dhillon, JMLR 10 (2009), eq. 2.

    >>> import jax.numpy as jnp
    >>> from gaussjax import Diagonal
    >>> logdet_divergence(Diagonal(jnp.ones(2)), Diagonal(jnp.ones(2)))
    Array(0., dtype=float32)
    """
    zero = jnp.zeros(a.dim, jnp.result_type(*jax.tree.leaves(a)))
    return pairs.shifted_divergence(a, b, zero)


def zero_to_itself(p: Gaussian, q: Gaussian, value: Array) -> Float[Array, "..."]:
    """A divergence, but zero where p and q hold the same arrays and are singular."""
    return jnp.where(entropy(p) == -jnp.inf, 0.0, value) if _are_same(p, q) else value


def _are_same(p: Gaussian, q: Gaussian) -> bool:
    """Whether two Gaussians hold the same arrays."""
    (mine, like), (others, unlike) = jax.tree.flatten(p), jax.tree.flatten(q)
    return like == unlike and all(x is y for x, y in zip(mine, others, strict=True))
