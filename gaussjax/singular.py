"""Singular laws: their rank, and their density on the support, the subspace that they reach.

A law is singular if a scale or a pivot is zero, or a root has dependent rows. Samples, moments,
maps, sums and conditionals work as for any law; the density in the whole space is zero or infinite.
"""

from jaxtyping import Array, Float, Int

from gaussjax._lift import lift
from gaussjax.covariances.base import log_normal
from gaussjax.gaussian import Gaussian, infinite_with, without_infinities


@lift
def rank(g: Gaussian) -> Int[Array, "..."]:
    """Rank of Σ, the dimension of the support. O(d³), O(d) for diagonals

    Singular values of a root, its rows brought to length one, count as zero up to max(d, k) ε times
    the largest: units do not matter. An integer cannot be NaN: for an
    invalid covariance it means nothing.

    >>> from gaussjax import from_scale
    >>> rank(from_scale([0.0, 0.0, 0.0], [1.0, 0.0, 1e-9]))
    Array(2, dtype=int32)
    """
    return g.cov.rank()


@lift
def log_prob_on_support(g: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Log density of a singular law on its support, −½ (‖F⁺(x − μ)‖² + log|Σ|₊ + r log 2π). O(d³)

    F is a root, |Σ|₊ the product of the r positive eigenvalues of Σ: the density with respect to
    the r-dimensional volume, as `allow_singular` gives it in scipy. −∞ off the support. For
    a regular law it is `log_prob`; NaN where Σ is not a covariance. First derivatives hold for
    changes that leave the support where it is.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Rao, Linear Statistical Inference and Its Applications, §8a.4.

    >>> from gaussjax import from_variance
    >>> g = from_variance([0.0, 0.0, 0.0], [1.0, 0.0, 3.0])
    >>> print(f"{log_prob_on_support(g, [0.0, 0.0, 0.0]):.4f}")
    -2.3872
    """
    difference = x - g.mean
    found = g.cov.on_support(without_infinities(difference))
    return log_normal(infinite_with(difference, found.distance), found.logdet, found.dim)
