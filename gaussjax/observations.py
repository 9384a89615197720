"""Linear observations of a Gaussian: the joint law, the posterior, the product of two densities.

A covariance is updated through its root by QR (the array form of the Kalman filter), a precision
through its own; no covariance is ever subtracted from another.
"""

import math
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax._lift import lift, lift_as_whole
from gaussjax._struct import exported
from gaussjax.covariances import Cholesky, Root, conditionals, restricted
from gaussjax.covariances.base import any_root, narrow_root
from gaussjax.covariances.precision import kept_precision_root, posterior_of_precision
from gaussjax.covariances.root import root_of
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.laws.conditional import condition_on_law
from gaussjax.linalg.products import dot
from gaussjax.linalg.semidefinite import rank_revealing_root


@exported
class Posterior(NamedTuple):
    """Result of `observe`.

    Attributes:
        posterior: the Gaussian of x given the observation.
        log_evidence: log density of the observation, in nats, `(...)`.
    """

    posterior: Gaussian
    log_evidence: Float[Array, "..."]


@exported
class Product(NamedTuple):
    """A product of two densities, p(x) q(x) = exp(log_normalizer) N(x; gaussian).

    Attributes:
        gaussian: the normalised product.
        log_normalizer: log ∫ p(x) q(x) dx, in nats, `(...)`.
    """

    gaussian: Gaussian
    log_normalizer: Float[Array, "..."]


@lift
def joint(
    prior: Gaussian,
    matrix: Float[Array, "... m d"],
    noise: Annotated[Gaussian, "m"],
    *,
    offset: Float[Array, "... m"] | None = None,
) -> Gaussian:
    """Law of (x, y), y = H x + b + e with x ~ prior and e ~ noise. O((d + m) d m)

    `matrix` H is `(..., m, d)`, `noise` a Gaussian in m dimensions (its mean is used), `offset` b
    `(..., m)` or zero. The result is dense in d + m dimensions, with the root [[C, 0], [H C, R]]: a
    `Root` if one of the two is a root of no more columns than rows, else a `Cholesky`.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Bishop, Pattern Recognition and Machine Learning, eqs. 2.105-2.108.

    >>> from gaussjax import standard, variance
    >>> variance(joint(standard(1), [[2.0]], standard(1)))
    Array([1., 5.], dtype=float32)
    """
    is_narrow = any(narrow_root(g.cov) is not None for g in (prior, noise))
    of = any_root if is_narrow else restricted.triangle
    root, noise_root = of(prior.cov), of(noise.cov)
    zero = jnp.zeros((prior.dim, noise_root.shape[1]), root.dtype)
    rows = jnp.block([[root, zero], [dot(matrix, root), noise_root]])
    seen = dot(matrix, prior.mean) + noise.mean
    seen = seen if offset is None else seen + offset
    law = Root(rows) if is_narrow else Cholesky(rows)
    return Gaussian(jnp.concatenate([prior.mean, seen]), law)


@lift_as_whole
def observe(
    prior: Gaussian,
    matrix: Float[Array, "... m d"],
    noise: Annotated[Gaussian, "m"],
    y: Float[Array, "... m"],
    *,
    mask: Bool[Array, "... m"] | None = None,
) -> Posterior:
    """Posterior of x ~ prior given y = H x + e, e ~ noise, and log p(y). O((d + m)³)

    `matrix` H is `(..., m, d)`, `noise` a Gaussian in m dimensions (its mean is used), `y` `(...,
    m)`. By QR of the root of (y, x), the array form of the Kalman update: the covariance is
    positive definite by construction, never Σ − K S Kᵀ. An observation far more precise than the
    prior is first solved for the coordinate that it fixes, so that no digits are lost beside the
    prior's. A prior stored by its precision gives a posterior stored by its precision, and may be
    improper (a zero on the diagonal of its factor): then the evidence is −∞, or NaN if the
    posterior is improper too. A `Root` of no more columns than rows gives a `Root`.

    Entries of `y` off the `mask` `(..., m)` are missing: they are not read, may be NaN, and have
    gradient zero. Noise may correlate them with the others. If all are missing, the posterior is
    the prior and the log evidence 0.

    Prior and noise may be singular, as long as the law of y is not. After singular noise there is
    no precision: for a prior stored by its precision, singular noise must be a `Root` with fewer
    columns than rows, or the result is NaN (use `as_cholesky(prior)`). The posterior is then stored
    by its covariance.

    Raises:
        TypeError: `mask` is not boolean.
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Kailath, Sayed & Hassibi, Linear Estimation, §12.3; Cox & Higham, Stability of
    Householder QR factorization for weighted least squares problems (1998), for why rows of unequal
    size need pivots.

    >>> from gaussjax import standard
    >>> posterior, log_evidence = observe(standard(1), [[1.0]], standard(1), [2.0])
    >>> posterior.mean.round(4)
    Array([1.], dtype=float32)
    """
    root = kept_precision_root(prior.cov, noise.cov)
    if mask is not None:  # a missing entry is 0, seen through a row of zeros with unit noise
        y, matrix = jnp.where(mask, y, 0.0), jnp.where(mask[:, None], matrix, 0.0)
        mean = jnp.where(mask, noise.mean, 0.0)
        noise = Gaussian(mean, restricted.unit_where(~mask, noise.cov))
    innovation = y - dot(matrix, prior.mean) - noise.mean
    if root is None:
        law = conditionals.posterior_of_root(prior.cov, matrix, noise.cov, innovation)
    else:
        law = posterior_of_precision(prior.cov, root, matrix, noise.cov, innovation)
    log_evidence = law.log_evidence
    if mask is not None:
        missing = jnp.sum(~mask, dtype=y.dtype)
        log_evidence = log_evidence + 0.5 * math.log(2 * math.pi) * missing
        log_evidence = jnp.where(jnp.any(mask), log_evidence, 0.0)
    return Posterior(Gaussian(prior.mean + law.mean, law.cov), log_evidence)


@lift_as_whole
def smooth_step(
    filtered: Gaussian,
    transition: Float[Array, "... n d"],
    process: Annotated[Gaussian, "n"],
    smoothed_next: Annotated[Gaussian, "n"],
) -> Gaussian:
    """Law of x given all observations, from that of x' = F x + w given all. O((d + n)³)

    One Rauch-Tung-Striebel step: `filtered` is the law of x given the observations so far,
    `transition` F is `(..., n, d)`, `process` the law of w, N(ν, Q), and `smoothed_next` the law of
    x' given all observations. With the gain G = Σ Fᵀ (F Σ Fᵀ + Q)⁻¹ the result is N(μ + G (μ' − F μ
    − ν), G Σ' Gᵀ + C Cᵀ), where C Cᵀ is the covariance of x given also x'; no covariance is
    subtracted from another. A smoother is a reverse `scan` of this step. The laws of x and w may be
    singular. The result is a `Cholesky`, or a `Root` if `filtered` is one.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Särkkä & Svensson, Bayesian Filtering and Smoothing, §12.2.

    >>> from gaussjax import from_scale, standard, variance
    >>> smoothed = smooth_step(standard(1), [[1.0]], standard(1), from_scale([2.0], [0.0]))
    >>> smoothed.mean.round(4), variance(smoothed).round(4)
    (Array([1.], dtype=float32), Array([0.5], dtype=float32))
    """
    shift = smoothed_next.mean - dot(transition, filtered.mean) - process.mean
    mean, root = condition_on_law(
        any_root(filtered.cov),
        transition,
        any_root(process.cov),
        shift,
        any_root(smoothed_next.cov),
    )
    is_narrow = narrow_root(filtered.cov) is not None
    law = root_of(root) if is_narrow else Cholesky(rank_revealing_root(root))
    return Gaussian(filtered.mean + mean, law)


@lift_as_whole
def product(p: Gaussian, q: Gaussian) -> Product:
    """Normalised product of two densities, and the log of its normaliser. O(d³), by structure

    Precisions add: Σ⁻¹ = Σp⁻¹ + Σq⁻¹; the normaliser is N(μp; μq, Σp + Σq). Diagonal, circulant and
    banded-precision pairs keep their structure, and so do precisions, low rank times diagonal, and
    equal blocks. A factor stored by its precision may be improper: then the log normaliser is −∞,
    or NaN if the product is improper too. Its partner may be singular like the noise in `observe`;
    in other pairs one of the two may be singular.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Rasmussen & Williams, Gaussian Processes for Machine Learning, A.7-A.8.

    >>> from gaussjax import from_scale
    >>> product(from_scale([0.0], [1.0]), from_scale([2.0], [1.0])).gaussian.mean.round(4)
    Array([1.], dtype=float32)
    """
    law = conditionals.posterior(p.cov, q.cov, q.mean - p.mean)
    return Product(Gaussian(p.mean + law.mean, law.cov), law.log_evidence)
