"""The multivariate Student t: a Gaussian with a random scale, for heavy-tailed data.

x = μ + C z √(ν/u) with z ~ N(0, I) and u ~ χ²_ν, for a scale Σ = C Cᵀ of any structure.

>>> from gaussjax import standard
>>> g = standard(1)
>>> print(f"{log_prob(StudentT(jnp.float32(1.0), g.mean, g.cov), [0.0]):.4f}")  # −log π: Cauchy
-1.1447
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gaussjax import _errors
from gaussjax import gaussian as _gaussian
from gaussjax._dtypes import result_dtype
from gaussjax._lift import lift, lift_as_whole, settled, structure_argument
from gaussjax._struct import leaf, nested, structure
from gaussjax.covariances import Covariance, restricted
from gaussjax.estimation import _checks, _data, _iterated, _rules, _sentences
from gaussjax.gaussian import Gaussian

STEPS = 5000
LEAST, MOST = 0.1, 1000.0
"""Degrees of freedom between which an estimate is sought."""


@structure
class StudentT:
    """t_ν(μ, Σ): degrees of freedom `(...)`, a location `(..., d)`, a scale structure. A pytree.

    Its covariance is ν/(ν − 2) Σ for ν > 2. Functions of it are in `gaussjax.student_t`.

    >>> from gaussjax import standard
    >>> StudentT(jnp.float32(4.0), standard(2).mean, standard(2).cov).dim
    2
    """

    degrees: Float[Array, "..."] = leaf(rank=0)
    location: Float[Array, "... d"] = leaf(rank=1)
    scale: Covariance = nested()

    @property
    def dim(self) -> int:
        """Event size d."""
        return self.scale.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Broadcast leading axes of its parts."""
        return _errors.batch_shape("t", settled("t", self))

    def is_valid(self) -> Bool[Array, ""]:
        """Whether ν is positive and Σ a covariance."""
        return self.scale.is_valid() & (self.degrees > 0)


@lift
def log_prob(t: StudentT, x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Log density at x, in nats. O(d²), by structure

    Exact for large ν, too, where it becomes the Gaussian's.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Kotz & Nadarajah, Multivariate t Distributions, §1.1.

    >>> from gaussjax import standard
    >>> t = StudentT(jnp.float32(1e6), standard(1).mean, standard(1).cov)
    >>> print(f"{log_prob(t, [0.0]):.4f}")
    -0.9189
    """
    distance, logdet = t.scale.inv_quad_and_logdet(x - t.location)
    tail = 0.5 * (t.degrees + t.dim) * jnp.log1p(distance / t.degrees)
    return _log_normalizer(t.degrees, t.dim) - 0.5 * logdet - tail


@lift
def entropy(t: StudentT) -> Float[Array, "..."]:
    """Differential entropy, in nats. O(d)

    Source: Kotz & Nadarajah, Multivariate t Distributions, §1.8.

    >>> from gaussjax import standard
    >>> print(f"{entropy(StudentT(jnp.float32(1.0), standard(1).mean, standard(1).cov)):.4f}")
    2.5310
    """
    spread = 0.5 * (t.degrees + t.dim) * _digamma_step(0.5 * t.degrees, t.dim)
    return 0.5 * t.scale.logdet() - _log_normalizer(t.degrees, t.dim) + spread


def sample(key: Array, t: StudentT, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
    """Reparameterised samples `shape + batch + (d,)`. O(d²) each

    Gradients flow to all parameters, to ν by those of `jax.random.loggamma`.

    Raises:
        TypeError: `key` is not a PRNG key, or `shape` not a tuple of integers.

    >>> from gaussjax import standard
    >>> t = StudentT(jnp.float32(4.0), standard(2).mean, standard(2).cov)
    >>> sample(jax.random.key(0), t, (3,)).shape
    (3, 2)
    """
    _errors.random_key(key, "key, t, shape")
    t = structure_argument("t", t, StudentT, order="key, t, shape")
    shape = _errors.sample_shape(shape)
    own, other = jax.random.split(key)
    batch = t.batch_shape
    location = jnp.broadcast_to(t.location, (*batch, t.dim))
    z = _gaussian.sample(own, Gaussian(jnp.zeros_like(location), t.scale), shape)
    degrees = jnp.broadcast_to(t.degrees, (*shape, *batch))
    log_u = jax.random.loggamma(other, 0.5 * degrees, dtype=result_dtype(t)) + math.log(2)
    width = jnp.exp(0.5 * (jnp.log(degrees) - log_u))  # NaN where ν is not positive
    return jnp.expand_dims(location, tuple(range(len(shape)))) + z * width[..., None]


@lift_as_whole
def as_gaussian(t: StudentT) -> Gaussian:
    """The Gaussian of its mean and covariance ν/(ν − 2) Σ, NaN for ν ≤ 2. O(d²)

    >>> from gaussjax import standard, variance
    >>> t = StudentT(jnp.float32(4.0), standard(1).mean, standard(1).cov)
    >>> print(f"{variance(as_gaussian(t))[0]:.4f}")
    2.0000
    """
    ratio = t.degrees / jnp.where(t.degrees > 2, t.degrees - 2, jnp.nan)
    return Gaussian(t.location, restricted.rescaled(t.scale, jnp.sqrt(ratio)))


def fit(
    data: ArrayLike,
    *,
    degrees: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> StudentT:
    """The maximum likelihood t, by EM: outliers hardly move it. O(n d²) a step

    A row has the weight (ν + d)/(ν + δ²), δ² being its squared distance, so that distant rows count
    little. `degrees` ν is given, `()` or `(...)` (3 to 5 is usual for robustness), or estimated,
    between 0.1 and 1,000. `data`, `weights` and `mask` as in `moments`. It ends when a step changes
    only rounding. Derivatives are those of the fixed point.

    Raises:
        ValueError: there are no more than d rows, or (where the values are known) a value is not
            finite, a weight negative, ν not positive, columns depend on each other, or too many
            rows are in one place or plane, so that no scale is best. Under `jit` such an element of
            a batch is NaN.

    Source: Kent, Tyler & Vardi, Commun. Stat. Simul. 23 (1994), for dividing by the sum of the
    weights; Liu & Rubin, Statistica Sinica 5 (1995), for ν.

    >>> x = jnp.array([[0.0], [1.0], [2.0], [3.0], [1e4]])
    >>> bool(fit(x, degrees=1.0).location[0] < 2.5)
    True
    """
    x = _errors.real_array("data", data)
    _errors.rank_at_least("data", x, 2)
    _sentences.enough_rows("a Student t", x.shape, x.shape[-1] + 1)
    given: Any = {"weights": weights, "mask": mask, "degrees": degrees}
    with jax.debug_nans(False):  # a failure raises its own error
        t = _fit(x, **given)
    if degrees is not None:
        _errors.all_true("degrees must be positive", jnp.asarray(degrees) > 0)
    _checks.values(t, data, weights, mask, "student_t.fit")
    return t


@lift_as_whole
def _fit(
    x: Float[Array, "... n d"],
    *,
    weights: Float[Array, "... n"] | None = None,
    mask: Bool[Array, "... n"] | None = None,
    degrees: Float[Array, "..."] | None = None,
) -> StudentT:
    each = _data.row_weights(x, weights, mask)
    clean = x if mask is None else jnp.where(mask[:, None], x, 0.0)
    clean = jnp.where(each[:, None] == 0, 0.0, clean) if weights is not None else clean

    given = None if degrees is None else jnp.where(degrees > 0, degrees, jnp.nan)
    rows = _Rows(clean, each, given)
    start = rows.estimate(jnp.ones_like(each))
    units = _iterated.units_of_law
    g, rests = _iterated.fixed_point(_Rows.step, _change, units, rows, start, STEPS)
    t = StudentT(rows.degrees_for(rows.distances(g)), g.mean, g.cov)
    return jax.tree.map(lambda v: v / rests, t)  # too many rows in one place leave no scale


class _Rows(NamedTuple):
    """Data, their weights, and the degrees of freedom if they are given."""

    x: Float[Array, "n d"]
    weights: Float[Array, " n"]
    degrees: Float[Array, ""] | None

    def step(self, g: Gaussian) -> Gaussian:
        """Location and scale from rows that count by their distances under the last ones."""
        squares, d = self.distances(g), self.x.shape[1]
        nu = self.degrees_for(squares)
        return self.estimate((nu + d) / (nu + squares))

    def estimate(self, counts: Array) -> Gaussian:
        weight, mean, _, rows = _data.centred(self.x, self.weights * counts, None)
        s = _rules.Scatter(weight, rows, _data.varies(mean, rows, weight))
        return Gaussian(_data.located(weight, mean), _rules.full(s))

    def distances(self, g: Gaussian) -> Float[Array, " n"]:
        return jax.vmap(lambda row: g.cov.inv_quad(row - g.mean))(self.x)

    def degrees_for(self, squares: Array) -> Array:
        if self.degrees is not None:
            return self.degrees
        return jnp.exp(_log_degrees(squares, self.weights / jnp.sum(self.weights), self.x.shape[1]))


def _change(old: Gaussian, new: Gaussian) -> Array:
    return _iterated.change_of_law(new.mean - old.mean, old.cov, new.cov)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _log_degrees(squares: Array, share: Array, d: int) -> Array:
    """Where the likelihood's derivative in log ν is zero, by bisection."""

    def halved(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = 0.5 * (low + high)
        rises = _slope(middle, squares, share, d) > 0
        return (jnp.where(rises, middle, low), jnp.where(rises, high, middle)), None

    ends = jnp.full_like(squares[0], math.log(LEAST)), jnp.full_like(squares[0], math.log(MOST))
    (low, high), _ = lax.scan(halved, ends, length=30)
    return 0.5 * (low + high)


@_log_degrees.defjvp
def _(d: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (squares, share), log_nu = primals, _log_degrees(*primals, d)
    _, moved = jax.jvp(lambda a, b: _slope(log_nu, a, b, d), primals, tangents)
    bend = jax.grad(lambda log_nu: _slope(log_nu, squares, share, d))(log_nu)
    is_inside = (log_nu > math.log(LEAST) + 1e-3) & (log_nu < math.log(MOST) - 1e-3)
    bend = jnp.where(is_inside, bend, 1.0)
    return log_nu, jnp.where(is_inside, -moved / bend, 0.0)  # at an end it stays there


def _slope(log_nu: Array, squares: Array, share: Array, d: int) -> Array:
    """The derivative of the likelihood of ν, up to a positive factor."""
    nu = jnp.exp(log_nu)
    counts = (nu + d) / (nu + squares)
    mean = jnp.sum(share * (jnp.log(counts) - counts + 1))
    half = 0.5 * nu
    return _log_minus_digamma(half) - _log_minus_digamma(half + 0.5 * d) + mean


# Γ and its derivative ----------------------------------------------------------------------------


# −½ d log 2π + log Γ(a + d/2) − log Γ(a) − ½ d log a at a = ν/2: each step of one adds log1p(i/a),
# and that of a half, for odd d, has a series.
def _log_normalizer(degrees: Array, d: int) -> Array:
    a, odd = 0.5 * degrees, d % 2
    offsets = jnp.arange(d // 2, dtype=a.dtype) + 0.5 * odd
    steps = jnp.sum(jnp.log1p(offsets / a))
    return steps + (_half_step(a) if odd else 0.0) - 0.5 * d * math.log(2 * math.pi)


def _digamma_step(a: Array, d: int) -> Array:
    """ψ(a + d/2) − ψ(a)."""
    odd = d % 2
    offsets = jnp.arange(d // 2, dtype=a.dtype) + 0.5 * odd
    steps = jnp.sum(1 / (a + offsets))
    return steps + (jax.grad(_half_step)(a) + 0.5 / a if odd else 0.0)


def _half_step(a: Array) -> Array:
    """log Γ(a + ½) − log Γ(a) − ½ log a."""
    limit = 8.0 if a.dtype == jnp.float32 else 64.0
    is_large = a > limit
    small, large = jnp.where(is_large, 1.0, a), jnp.where(is_large, a, limit)
    series = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)
    inverse = 1 / large
    terms = functools.reduce(
        lambda total, c: total * inverse**2 + c, reversed(series), jnp.zeros_like(a)
    )
    direct = gammaln(small + 0.5) - gammaln(small) - 0.5 * jnp.log(small)
    return jnp.where(is_large, inverse * terms, direct)


def _log_minus_digamma(a: Array) -> Array:
    """Log a − ψ(a), by its series where a is large."""
    is_large = a > 16
    small, large = jnp.where(is_large, 1.0, a), jnp.where(is_large, a, 16.0)
    inverse = 1 / large
    series = inverse * (0.5 + inverse * (1 / 12 - inverse**2 * (1 / 120 - inverse**2 / 252)))
    return jnp.where(is_large, series, jnp.log(small) - digamma(small))
