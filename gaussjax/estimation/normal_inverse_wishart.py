"""The normal-inverse-Wishart law of a mean and a covariance: the Gaussian's conjugate prior.

Σ ~ W⁻¹(Ψ, ν), and μ given Σ ~ N(m, Σ/κ). Given data, the law has the same form again.

>>> prior = NormalInverseWishart(jnp.zeros(1), 1.0, jnp.eye(1), 3.0)
>>> update(prior, [[1.0], [3.0]]).degrees
Array(5., dtype=float32)
"""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import multigammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax._lift import lift, lift_as_whole
from gaussjax._struct import leaf, structure
from gaussjax.covariances import Cholesky
from gaussjax.estimation.streams import Moments, as_moments
from gaussjax.estimation.student_t import StudentT
from gaussjax.linalg.products import gram
from gaussjax.linalg.sums import root_of_sum
from gaussjax.linalg.triangular import logdet_of_triangle


@structure
class NormalInverseWishart:
    """NIW(m, κ, Ψ, ν) with Ψ = L Lᵀ. A pytree; making it checks nothing.

    `mean` m `(..., d)`; `strength` κ > 0 `(...)`, how many rows m is worth; `lower` L
    `(..., d, d)`; `degrees` ν > d − 1 `(...)`, how many Ψ is worth. E Σ = Ψ/(ν − d − 1).
    """

    mean: Float[Array, "... d"] = leaf(rank=1)
    strength: Float[Array, "..."] = leaf(rank=0)
    lower: Float[Array, "... d d"] = leaf(rank=2)
    degrees: Float[Array, "..."] = leaf(rank=0)

    @property
    def dim(self) -> int:
        """Event size d."""
        return self.mean.shape[-1]

    def is_valid(self) -> Bool[Array, ""]:
        """Whether κ, ν and the pivots of L are those of a law."""
        pivots = jnp.all(jnp.diagonal(self.lower) > 0)
        return pivots & (self.strength > 0) & (self.degrees > self.dim - 1)


def update(
    p: NormalInverseWishart,
    data: ArrayLike | Moments,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> NormalInverseWishart:
    """The law of mean and covariance given data. O(n d² + d³)

    `data` is rows `(..., n, d)`, with `weights` and a `mask` as in `moments`, or `Moments`: merged
    moments give the same as one update after another. Ψ' comes from a root, by no subtraction.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Murphy, Machine Learning: A Probabilistic Perspective, eqs. 4.209-4.214.

    >>> prior = NormalInverseWishart(jnp.zeros(1), 1.0, jnp.eye(1), 3.0)
    >>> update(prior, [[1.0], [3.0], [4.0]]).mean
    Array([2.], dtype=float32)
    """
    return _update(p, as_moments(data, weights, mask))


def log_marginal(
    p: NormalInverseWishart,
    data: ArrayLike | Moments,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """Log density of data whose mean and covariance have this law, in nats. O(n d² + d³)

    Arguments and errors as in `update`.

    Source: Murphy, Machine Learning: A Probabilistic Perspective, eq. 5.29 (of one component).

    >>> prior = NormalInverseWishart(jnp.zeros(1), 1.0, jnp.eye(1), 1.0)
    >>> print(f"{log_marginal(prior, [[0.0]]):.4f}")
    -1.4913
    """
    m = as_moments(data, weights, mask)
    return _log_marginal(p, m)


@lift_as_whole
def predictive(p: NormalInverseWishart) -> StudentT:
    """The law of the next row: t with ν − d + 1 degrees, of scale Ψ (κ + 1)/(κ (ν − d + 1)). O(d²)

    Source: Murphy, Machine Learning: A Probabilistic Perspective, eq. 4.222.

    >>> predictive(NormalInverseWishart(jnp.zeros(1), 1.0, jnp.eye(1), 3.0)).degrees
    Array(3., dtype=float32)
    """
    degrees = p.degrees - p.dim + 1
    width = jnp.sqrt((p.strength + 1) / (p.strength * degrees))
    return StudentT(degrees, p.mean, Cholesky(width * jnp.tril(p.lower)))


@lift_as_whole
def _update(p: NormalInverseWishart, m: Moments) -> NormalInverseWishart:
    return _updated(p, m)


@lift
def _log_marginal(p: NormalInverseWishart, m: Moments) -> Float[Array, "..."]:
    new, d = _updated(p, m), p.dim
    value = _log_mass(new.degrees, new.lower) - _log_mass(p.degrees, p.lower)
    value = value + 0.5 * d * jnp.log(p.strength / new.strength)
    return value - 0.5 * d * math.log(math.pi) * m.weight


def _updated(p: NormalInverseWishart, m: Moments) -> NormalInverseWishart:
    strength, degrees = p.strength + m.weight, p.degrees + m.weight
    share, apart = m.weight / strength, m.mean - p.mean
    between = jnp.sqrt(p.strength * share) * apart
    factor = jnp.concatenate([jnp.tril(p.lower), m.root, between[:, None]], axis=1)
    lower = root_of_sum(gram(factor), factor)
    return NormalInverseWishart(p.mean + share * apart, strength, lower, degrees)


def _log_mass(degrees: Array, lower: Array) -> Array:
    """Log Γ_d(ν/2) − ½ ν log|Ψ|."""
    half: Any = 0.5 * degrees
    return multigammaln(half, len(lower)) - degrees * logdet_of_triangle(lower)
