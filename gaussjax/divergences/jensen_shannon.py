"""Jensen-Shannon divergences: of the geometric mean of two densities, and of the arithmetic."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._struct import exported
from gaussjax.divergences.kl import jeffreys_divergence, kl_divergence
from gaussjax.divergences.renyi import bhattacharyya_distance
from gaussjax.gaussian import Gaussian, log_prob, sample


def jensen_shannon_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """½KL(p‖g) + ½KL(q‖g) ≥ 0 for the geometric mean g ∝ √(p q), in nats. O(d³), O(d) for diagonals

    In closed form, ¼ `jeffreys_divergence` − `bhattacharyya_distance`: symmetric, unbounded, and
    infinite if either is singular. ⅛ δᵀFδ as p → q for a change δ of the parameters and their
    Fisher information F, like the usual one; exact there, and zero with a zero gradient at p = q.
    The one of the mixture ½(p + q) has no closed form: `jensen_shannon_estimate`.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Nielsen, Entropy 21 (2019), §3.3.

    >>> from gaussjax import from_scale, standard
    >>> jensen_shannon_divergence(from_scale([2.0], [1.0]), standard(1))
    Array(0.5, dtype=float32)
    """
    # The distance is at most about half of ¼J: what cancels is less than what is left.
    jeffreys = jeffreys_divergence(p, q)
    value = 0.25 * jeffreys - bhattacharyya_distance(p, q)
    return jnp.where(jnp.isnan(value) & (jeffreys == jnp.inf), jnp.inf, value)


@exported
class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
        value: the mean, `(...)`.
        standard_error: its standard deviation, estimated from the same samples, `(...)`.
    """

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]


def jensen_shannon_estimate(key: Array, p: Gaussian, q: Gaussian, count: int) -> Estimate:
    """½KL(p‖m) + ½KL(q‖m) for the mixture m = ½(p + q), from `count` samples of each, in nats.

    Between 0 and log 2, to the standard error that is given with it. The log ratio of the
    densities, whose mean is known, is a control variate: so the relative error stays of the order
    of 1/√count as p → q, until that ratio is lost in the rounding of the densities, at changes of
    1e-5 or so in float32. O(count d²) after O(d³)

    Raises:
        TypeError: `key` is not a PRNG key.
        ValueError: `count` is not above one, or dimensions differ or batch shapes do not broadcast.

    Source: Lin, IEEE Trans. Inf. Theory 37 (1991); control variates: Owen, Monte Carlo, §8.9.

    >>> from gaussjax import from_scale, standard
    >>> far = from_scale([30.0], [1.0])
    >>> print(f"{jensen_shannon_estimate(jax.random.key(0), far, standard(1), 100).value:.4f}")
    0.6931
    """
    _errors.random_key(key, "key, p, q, count")
    if _errors.dimension("count", count) < 2:
        raise ValueError(f"count must be above one, got {count}.")
    keys = jax.random.split(key)
    halves = [_of_one(k, *pair, count) for k, pair in zip(keys, ((p, q), (q, p)), strict=True)]
    value = 0.5 * (halves[0].value + halves[1].value)
    return Estimate(value, 0.5 * jnp.hypot(*(half.standard_error for half in halves)))


def _of_one(key: Array, p: Gaussian, q: Gaussian, count: int) -> Estimate:
    """KL(p‖m) from samples of p."""
    batch = jnp.broadcast_shapes(p.batch_shape, q.batch_shape)
    ones = (1,) * (len(batch) - len(p.batch_shape))
    x = sample(key, p, (count, *ones))
    ratio = log_prob(p, x) - log_prob(q, x)
    known = kl_divergence(p, q)[None]
    usable = jnp.isfinite(known) & jnp.all(jnp.isfinite(ratio), axis=0, keepdims=True)
    # log 2 − log(1 + e⁻ʳ) = r/2 − log cosh(r/2), and the mean of r is known.
    near = usable & jnp.all(jnp.abs(ratio) < 1, axis=0, keepdims=True)
    bend = jnp.log1p(2 * jnp.square(jnp.sinh(jnp.where(near, ratio, 0.0) / 4)))
    terms = jnp.where(near, -bend, math.log(2) - jax.nn.softplus(-ratio))
    moved = jnp.where(usable, ratio - jnp.where(usable, known, 0.0), 0.0)
    spread = jnp.sum(jnp.square(moved), axis=0, keepdims=True)
    along = jnp.sum((terms - jnp.mean(terms, axis=0, keepdims=True)) * moved, axis=0, keepdims=True)
    share = jnp.where(spread > 0, along / jnp.where(spread > 0, spread, 1.0), 0.0)
    rest = terms - jax.lax.stop_gradient(share) * moved
    value = jnp.mean(rest, axis=0) + jnp.where(near, 0.5 * jnp.where(near, known, 0.0), 0.0)[0]
    return Estimate(value, jnp.std(rest, axis=0, ddof=1) / math.sqrt(count))
