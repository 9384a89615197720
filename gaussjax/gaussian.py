"""A Gaussian, its samples, densities and moments. The names in the examples are gaussjax's.

Shapes: a mean is `(..., d)`, a vector `x` or `noise` `(..., d)`; leading axes are batch and
broadcast between all arguments, the event axis never does. Logarithms are natural, so densities
and entropies are in nats.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._dtypes import result_dtype, working_dtype
from gaussjax._lift import (
    compiled_once,
    holds_arrays,
    lift,
    lift_unchecked,
    settled,
    structure_argument,
)
from gaussjax._sharding import batch_spec
from gaussjax._struct import leaf, nested, ranks, structure
from gaussjax.covariances import Covariance
from gaussjax.covariances.base import log_normal
from gaussjax.linalg._kernels import limits, small


@structure
class Gaussian:
    """N(mean, Σ): a mean `(..., d)` and a covariance structure. A pytree, unchecked.

    A multivariate normal distribution, or a batch of them. Leaves that lack batch axes get axes of
    size one in front: a covariance that a batch of means shares stays one covariance.

    >>> from gaussjax import Cholesky
    >>> g = Gaussian(jnp.zeros((5, 3)), Cholesky(jnp.eye(3)))
    >>> g
    Gaussian(mean=float32[5,3], cov=Cholesky(lower=float32[1,3,3]))
    >>> g.batch_shape, g.dim
    ((5,), 3)
    """

    mean: Float[Array, "... d"] = leaf(rank=1)
    cov: Covariance = nested()

    @property
    def dim(self) -> int:
        """Event size d."""
        _errors.rank_at_least("mean", self.mean, 1)
        shape = self.mean.shape
        _errors.same_dim("mean", shape[-1], shape, self.cov.dim, "the covariance")
        return self.cov.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Broadcast leading axes of the mean and the covariance."""
        return _errors.batch_shape("g", settled("g", self))


# Samples -----------------------------------------------------------------------------------------


def sample(key: Array, g: Gaussian, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
    """μ + R ε, ε ~ N(0, I): reparameterised samples, `shape + batch + (d,)`. O(d²) each

    `key` is a typed or legacy PRNG key. The noise is `jax.random.normal`, so gradients flow to the
    parameters. R is the root C of `color`, unless a root with more columns is cheaper: low rank
    then takes O(dr), and Toeplitz O(d log d).

    Raises:
        TypeError: `key` is not a PRNG key, or `shape` not a tuple of integers.
        ValueError: `shape` is negative.

    Source: Kingma & Welling, arXiv:1312.6114, §2.4.

    >>> from gaussjax import standard
    >>> sample(jax.random.key(0), standard(2), (3,)).shape
    (3, 2)
    """
    return _sample(*_ready(key, g, shape))


def sample_and_log_prob(
    key: Array, g: Gaussian, shape: tuple[int, ...] = ()
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Samples and their log densities, from the same noise, so without a solve. O(d²) each

    Arguments and errors as in `sample`; the second result is `shape + batch`.

    >>> from gaussjax import standard
    >>> x, value = sample_and_log_prob(jax.random.key(0), standard(2), (3,))
    >>> bool(jnp.allclose(value, log_prob(standard(2), x)))
    True
    """
    return _sample_and_log_prob(*_ready(key, g, shape))


@functools.partial(compiled_once, static="shape")
def _sample(key: Array, g: Gaussian, shape: tuple[int, ...]) -> Array:
    wide, draw_noise, dtype = _prepared(key, g, shape)
    return _draw(wide, draw_noise(wide.cov.noise_dim)).astype(dtype)


@functools.partial(compiled_once, static="shape")
def _sample_and_log_prob(key: Array, g: Gaussian, shape: tuple[int, ...]) -> tuple[Array, Array]:
    wide, draw_noise, dtype = _prepared(key, g, shape)
    noise = draw_noise(wide.dim)
    return color(wide, noise).astype(dtype), _log_prob_of_noise(wide, noise).astype(dtype)


@lift
def _draw(g: Gaussian, noise: Float[Array, "... n"]) -> Float[Array, "... d"]:
    return g.mean + g.cov.draw(noise)


@lift
def color(g: Gaussian, noise: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """μ + C ε for given noise; C is the structure's own root, L for a Cholesky factor. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> color(from_scale([1.0, 1.0], [1.0, 2.0]), [1.0, 1.0])
    Array([2., 3.], dtype=float32)
    """
    return g.mean + g.cov.color(noise)


@lift
def color_symmetric(g: Gaussian, noise: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """μ + Σ^{1/2} ε with the symmetric root: another sample of the same law. O(d³)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> color_symmetric(from_scale([1.0, 1.0], [1.0, 2.0]), [1.0, 1.0])
    Array([2., 3.], dtype=float32)
    """
    return g.mean + g.cov.color_symmetric(noise)


@lift
def whiten(g: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """C⁻¹(x − μ), the inverse of `color`. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> whiten(from_scale([1.0, 1.0], [1.0, 2.0]), [2.0, 3.0])
    Array([1., 1.], dtype=float32)
    """
    return g.cov.whiten(x - g.mean)


# Densities ---------------------------------------------------------------------------------------


@lift_unchecked
def log_prob(g: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Log p(x) = −½ (‖C⁻¹(x − μ)‖² + log|Σ| + d log 2π), in nats. O(d²)

    −∞ where x is infinite, NaN where it is NaN or Σ is no covariance.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Bishop, Pattern Recognition and Machine Learning, eq. 2.43.

    >>> from gaussjax import standard
    >>> print(f"{log_prob(standard(2), [0.0, 0.0]):.4f}")
    -1.8379
    """
    difference = x - g.mean
    distance, logdet = g.cov.inv_quad_and_logdet(without_infinities(difference))
    return log_normal(infinite_with(difference, distance), logdet, g.cov.dim)


@lift
def mahalanobis(g: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Squared Mahalanobis distance (x − μ)ᵀΣ⁻¹(x − μ), as a sum of squares. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> mahalanobis(from_scale([0.0, 0.0], [1.0, 2.0]), [3.0, 8.0])
    Array(25., dtype=float32)
    """
    difference = x - g.mean
    return infinite_with(difference, g.cov.inv_quad(without_infinities(difference)))


@lift
def score(g: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """∇ₓ log p(x) = −Σ⁻¹(x − μ). O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> score(from_scale([0.0, 0.0], [1.0, 2.0]), [1.0, 4.0])
    Array([-1., -1.], dtype=float32)
    """
    return g.cov.solve(g.mean - x)


@lift_unchecked
def entropy(g: Gaussian) -> Float[Array, "..."]:
    """Differential entropy ½ log|2πe Σ|, in nats. O(d)

    Of a triangle it reads the diagonal alone: what is below is not checked.

    Source: Cover & Thomas, Elements of Information Theory, eq. 8.12.

    >>> from gaussjax import standard
    >>> entropy(standard(1)).round(4)
    Array(1.4189, dtype=float32)
    """
    return 0.5 * (g.cov.logdet() + g.cov.dim * (math.log(2 * math.pi) + 1))


# Moments -----------------------------------------------------------------------------------------


@lift_unchecked
def mean(g: Gaussian) -> Float[Array, "... d"]:
    """μ, with the whole batch shape.

    >>> from gaussjax import standard
    >>> mean(standard(2))
    Array([0., 0.], dtype=float32)
    """
    return g.mean


@lift
def variance(g: Gaussian) -> Float[Array, "... d"]:
    """Diagonal of Σ. O(d) for diagonals, O(d²) from a Cholesky factor, O(d³) from a precision

    >>> from gaussjax import from_scale
    >>> variance(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([1., 4.], dtype=float32)
    """
    return g.cov.variance()


@lift
def stddev(g: Gaussian) -> Float[Array, "... d"]:
    """Standard deviations, the square root of `variance`, at the same cost

    >>> from gaussjax import from_scale
    >>> stddev(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([1., 2.], dtype=float32)
    """
    return g.cov.stddev()


@lift
def covariance(g: Gaussian) -> Float[Array, "... d d"]:
    """Σ as a matrix, exactly symmetric. O(d³)

    >>> from gaussjax import from_scale
    >>> covariance(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([[1., 0.],
           [0., 4.]], dtype=float32)
    """
    return g.cov.dense()


@lift
def precision(g: Gaussian) -> Float[Array, "... d d"]:
    """Σ⁻¹ as a matrix, exactly symmetric. O(d³)

    >>> from gaussjax import from_scale
    >>> precision(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([[1.  , 0.  ],
           [0.  , 0.25]], dtype=float32)
    """
    return g.cov.dense_precision()


def batch_shape(g: Gaussian) -> tuple[int, ...]:
    """Broadcast leading axes of the mean and the covariance: `g.batch_shape`.

    >>> from gaussjax import from_scale
    >>> batch_shape(from_scale(jnp.zeros((5, 1, 3)), jnp.ones((4, 3))))
    (5, 4)
    """
    return structure_argument("g", g, Gaussian).batch_shape


def dim(g: Gaussian) -> int:
    """Event size d: `g.dim`.

    >>> from gaussjax import standard
    >>> dim(standard(3))
    3
    """
    return structure_argument("g", g, Gaussian).dim


# Helpers -----------------------------------------------------------------------------------------


def without_infinities(vector: Array) -> Array:
    """The vector with zeros for them, as `infinite_with` expects."""
    return jnp.where(jnp.isinf(vector), 0.0, vector)


def infinite_with(vector: Array, distance: Array) -> Array:
    """A distance that is infinite where the vector is, but NaN if it was NaN without infinities."""
    if vector.size == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return distance
    return _infinity_or(vector, distance)


# ∞ − ∞ inside a substitution would be NaN, and so would its gradient. So infinities are set to zero
# there and the result is replaced. The derivative tests for infinities again: it has many terms,
# and each would repeat a test that fuses with the value. For larger vectors the test is a
# reduction, which is stored.
@jax.custom_jvp
def _infinity_or(vector: Array, distance: Array) -> Array:
    infinite = _is_infinite(vector, limits.VECTOR) & (distance >= 0)
    return jnp.where(infinite, jnp.inf, distance)


@_infinity_or.defjvp
def _(primals, tangents):
    infinite = _is_infinite(primals[0], limits.COMPARED_AGAIN)
    return _infinity_or(*primals), jnp.where(infinite, 0.0, tangents[1])


def _is_infinite(vector: Array, limit: int) -> Array:
    """Whether an entry is infinite and none NaN. Up to `limit` entries are compared one by one."""
    one_by_one = vector.size <= limit
    return (small.largest(vector) if one_by_one else jnp.max(jnp.abs(vector))) == jnp.inf


@lift_unchecked
def _log_prob_of_noise(g: Gaussian, noise: Float[Array, "... d"]) -> Float[Array, "..."]:
    return log_normal(jnp.sum(jnp.square(noise)), g.cov.logdet(), g.cov.dim)


def _ready(key: Array, g: Gaussian, shape: Any) -> tuple[Array, Gaussian, tuple[int, ...]]:
    """Arguments that `jit` takes; the rest is checked during tracing."""
    order = "key, g, shape"
    _errors.random_key(key, order)
    if not (isinstance(g, Gaussian) and holds_arrays(g)):
        g = structure_argument("g", g, Gaussian, order=order)
    return key, g, _errors.sample_shape(shape)


def _prepared(
    key: Array, g: Gaussian, shape: tuple[int, ...]
) -> tuple[Gaussian, Callable[[int], Array], Any]:
    """The Gaussian in its working dtype, a source of noise, and the dtype of the result."""
    g = structure_argument("g", g, Gaussian)
    dtype = result_dtype(g)
    wide = jax.tree.map(lambda x: x.astype(working_dtype(dtype)), g)
    axes = batch_spec(jax.tree.leaves(wide), ranks(wide))
    sharding = PartitionSpec(*[None] * len(shape), *axes, None) if any(axes) else None

    def draw_noise(size: int) -> Array:
        full = (*shape, *g.batch_shape, size)
        return jax.random.normal(key, full, working_dtype(dtype), out_sharding=sharding)

    return wide, draw_noise, dtype
