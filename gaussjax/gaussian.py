"""A Gaussian, its constructors, and what can be asked of one.

Shapes: a mean is `(..., d)`, a vector `x` or `noise` `(..., d)`; leading axes are batch and
broadcast between all arguments, the event axis never does. Logarithms are natural, so densities
and entropies are in nats.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from gaussjax import _checks
from gaussjax._batching import batch_shape_of, lift_events, result_dtype, working_dtype
from gaussjax._struct import leaf, nested, structure
from gaussjax.covariances import Cholesky, Covariance, Diagonal, Isotropic, PrecisionCholesky
from gaussjax.linalg import cholesky


@structure
class Gaussian:
    """N(mean, Σ): a mean `(..., d)` and a covariance structure. A pytree; nothing is validated.

    >>> Gaussian(jnp.zeros(2), Isotropic(jnp.array(1.0), dim=2)).dim
    2
    """

    mean: Float[Array, "... d"] = leaf(rank=1)
    cov: Covariance = nested()

    @property
    def dim(self) -> int:
        """Event size d."""
        _checks.rank_at_least("mean", self.mean, 1)
        shape = self.mean.shape
        _checks.same_dim("mean", shape[-1], shape, self.cov.dim, "the covariance")
        return self.cov.dim


# Constructors ------------------------------------------------------------------------------------


def standard(dim: int, dtype: DTypeLike | None = None) -> Gaussian:
    """N(0, I) in `dim` dimensions. O(d)

    Raises:
        TypeError, ValueError: `dim` is not an integer, or negative.

    >>> entropy(standard(1)).round(4)
    Array(1.4189, dtype=float32)
    """
    dim = _checks.dimension("dim", dim)
    dtype = jnp.dtype(float) if dtype is None else dtype
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return Gaussian(jnp.zeros(dim, dtype), Isotropic(jnp.ones((), dtype), dim))


def from_cholesky(mean: ArrayLike, lower: ArrayLike) -> Gaussian:
    """N(mean, L Lᵀ) from a lower Cholesky factor. O(d²)

    `lower` is `(..., d, d)` with a positive diagonal; what stands above it is dropped.

    Raises:
        ValueError: `lower` is not square, sizes differ, batch shapes do not broadcast, or (where
            the values are known) the diagonal is not positive. Under `jit` such an element of a
            batch is NaN.
        TypeError: an argument is not real.

    >>> covariance(from_cholesky([0.0, 0.0], [[2.0, 0.0], [1.0, 1.0]]))
    Array([[4., 2.],
           [2., 2.]], dtype=float32)
    """
    mean, lower = _mean_and_matrix(mean, "lower", lower)
    lower = jnp.tril(lower)
    diagonal = jnp.diagonal(lower, axis1=-2, axis2=-1)
    valid = jnp.all(jnp.isfinite(lower), (-2, -1)) & jnp.all(diagonal > 0, -1)
    _checks.all_true("lower must be finite with a positive diagonal", valid)
    return Gaussian(mean, Cholesky(_nan_unless(valid, lower, 2)))


def from_covariance(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Σ) from a covariance matrix, which is factorised here once. O(d³)

    `matrix` is `(..., d, d)`, symmetric within √ε of its diagonal (and symmetrised), positive
    definite to working precision.

    Raises:
        ValueError: `matrix` is not square, sizes differ, batch shapes do not broadcast, or (where
            the values are known) it is not symmetric or not positive definite. Under `jit` such an
            element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from_covariance([0.0, 0.0], [[4.0, 2.0], [2.0, 2.0]]).cov
    Cholesky(lower=Array([[2., 0.],
           [1., 1.]], dtype=float32))
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, Cholesky(_factor(matrix)))


def from_precision(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Λ⁻¹) from a precision matrix, which is factorised here once and not inverted. O(d³)

    Shapes and errors as in `from_covariance`.

    >>> variance(from_precision([0.0], [[4.0]]))
    Array([0.25], dtype=float32)
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, PrecisionCholesky(_factor(matrix)))


def from_scale(mean: ArrayLike, scale: ArrayLike) -> Gaussian:
    """N(mean, diag(scale²)) from standard deviations; a scalar `scale` is isotropic. O(d)

    `scale` is `(..., d)`, or `()`.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) a
            scale is not positive. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from_scale([0.0, 0.0], [1.0, 2.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, scale = _mean_and_vector(mean, "scale", scale)
    return Gaussian(mean, _diagonal(_positive("scale", scale), mean.shape[-1]))


def from_variance(mean: ArrayLike, variance: ArrayLike) -> Gaussian:
    """N(mean, diag(variance)) from variances; a scalar is isotropic. O(d)

    `variance` is `(..., d)`, or `()`. Errors as in `from_scale`.

    >>> from_variance([0.0, 0.0], [1.0, 4.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, variance = _mean_and_vector(mean, "variance", variance)
    scale = jnp.sqrt(_positive("variance", variance))
    return Gaussian(mean, _diagonal(scale, mean.shape[-1]))


# Samples -----------------------------------------------------------------------------------------


def sample(key: Array, g: Gaussian, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
    """μ + C ε, ε ~ N(0, I): reparameterised samples, `shape + batch + (d,)`. O(d²) each

    `key` is a typed or legacy PRNG key. The noise is `jax.random.normal` of the result's shape, so
    gradients flow to the parameters.

    Raises:
        TypeError: `key` is no PRNG key, or `shape` no tuple of integers.
        ValueError: `shape` is negative.

    Source: Kingma & Welling, arXiv:1312.6114, §2.4.

    >>> sample(jax.random.key(0), standard(2), (3,)).shape
    (3, 2)
    """
    return color(*_widened_and_noise(key, g, shape)).astype(result_dtype(g))


def sample_and_log_prob(
    key: Array, g: Gaussian, shape: tuple[int, ...] = ()
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Samples and their log densities, from the noise and so without a solve. O(d²) each

    Arguments and errors as in `sample`; the second result is `shape + batch`.

    >>> x, value = sample_and_log_prob(jax.random.key(0), standard(2), (3,))
    >>> bool(jnp.allclose(value, log_prob(standard(2), x)))
    True
    """
    wide, noise = _widened_and_noise(key, g, shape)
    dtype = result_dtype(g)
    return color(wide, noise).astype(dtype), _log_prob_of_noise(wide, noise).astype(dtype)


@lift_events
def color(g: Gaussian, noise: Float[Array, "... d"], /) -> Float[Array, "... d"]:
    """μ + C ε for given noise; C is the structure's own root, L for a Cholesky factor. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> color(from_scale([1.0, 1.0], [1.0, 2.0]), [1.0, 1.0])
    Array([2., 3.], dtype=float32)
    """
    return g.mean + g.cov.color(noise)


@lift_events
def color_symmetric(g: Gaussian, noise: Float[Array, "... d"], /) -> Float[Array, "... d"]:
    """μ + Σ^{1/2} ε with the symmetric root: another sample of the same law. O(d³)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> color_symmetric(from_scale([1.0, 1.0], [1.0, 2.0]), [1.0, 1.0])
    Array([2., 3.], dtype=float32)
    """
    return g.mean + g.cov.color_symmetric(noise)


@lift_events
def whiten(g: Gaussian, x: Float[Array, "... d"], /) -> Float[Array, "... d"]:
    """C⁻¹(x − μ), the inverse of `color`. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> whiten(from_scale([1.0, 1.0], [1.0, 2.0]), [2.0, 3.0])
    Array([1., 1.], dtype=float32)
    """
    return g.cov.whiten(x - g.mean)


# Densities ---------------------------------------------------------------------------------------


@lift_events
def log_prob(g: Gaussian, x: Float[Array, "... d"], /) -> Float[Array, "..."]:
    """Log p(x) = −½ (‖C⁻¹(x − μ)‖² + log|Σ| + d log 2π), in nats. O(d²)

    −∞ where x is infinite, NaN where it is NaN.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    Source: Bishop, Pattern Recognition and Machine Learning, eq. 2.43.

    >>> print(f"{log_prob(standard(2), [0.0, 0.0]):.4f}")
    -1.8379
    """
    return _log_density(g.cov, _squared_distance(g, x))


@lift_events
def mahalanobis(g: Gaussian, x: Float[Array, "... d"], /) -> Float[Array, "..."]:
    """Squared Mahalanobis distance (x − μ)ᵀΣ⁻¹(x − μ), as a sum of squares. O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> mahalanobis(from_scale([0.0, 0.0], [1.0, 2.0]), [3.0, 8.0])
    Array(25., dtype=float32)
    """
    return _squared_distance(g, x)


@lift_events
def score(g: Gaussian, x: Float[Array, "... d"], /) -> Float[Array, "... d"]:
    """∇ₓ log p(x) = −Σ⁻¹(x − μ). O(d²)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> score(from_scale([0.0, 0.0], [1.0, 2.0]), [1.0, 4.0])
    Array([-1., -1.], dtype=float32)
    """
    return g.cov.solve(g.mean - x)


@lift_events
def entropy(g: Gaussian, /) -> Float[Array, "..."]:
    """Differential entropy ½ log|2πe Σ|, in nats. O(d)

    Source: Cover & Thomas, Elements of Information Theory, eq. 8.12.

    >>> entropy(standard(1)).round(4)
    Array(1.4189, dtype=float32)
    """
    return 0.5 * (g.cov.logdet() + g.cov.dim * (math.log(2 * math.pi) + 1))


# Moments -----------------------------------------------------------------------------------------


@lift_events
def mean(g: Gaussian, /) -> Float[Array, "... d"]:
    """μ, with the whole batch shape.

    >>> mean(standard(2))
    Array([0., 0.], dtype=float32)
    """
    return g.mean


@lift_events
def variance(g: Gaussian, /) -> Float[Array, "... d"]:
    """Diagonal of Σ. O(d) for diagonals, O(d²) from a Cholesky factor, O(d³) from a precision

    >>> variance(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([1., 4.], dtype=float32)
    """
    return g.cov.variance()


def stddev(g: Gaussian, /) -> Float[Array, "... d"]:
    """Standard deviations, the square root of `variance`.

    >>> stddev(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([1., 2.], dtype=float32)
    """
    return jnp.sqrt(variance(g))


@lift_events
def covariance(g: Gaussian, /) -> Float[Array, "... d d"]:
    """Σ as a matrix, symmetric to the bit. O(d³)

    >>> covariance(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([[1., 0.],
           [0., 4.]], dtype=float32)
    """
    return g.cov.dense()


@lift_events
def precision(g: Gaussian, /) -> Float[Array, "... d d"]:
    """Σ⁻¹ as a matrix, symmetric to the bit. O(d³)

    >>> precision(from_scale([0.0, 0.0], [1.0, 2.0]))
    Array([[1.  , 0.  ],
           [0.  , 0.25]], dtype=float32)
    """
    return g.cov.dense_precision()


def batch_shape(g: Gaussian, /) -> tuple[int, ...]:
    """Broadcast leading axes of the mean and the covariance.

    >>> batch_shape(from_scale(jnp.zeros((5, 1, 3)), jnp.ones((4, 3))))
    (5, 4)
    """
    return batch_shape_of(g)


def dim(g: Gaussian, /) -> int:
    """Event size d.

    >>> dim(standard(3))
    3
    """
    return g.dim


# Pieces ------------------------------------------------------------------------------------------


def _squared_distance(g: Gaussian, x: Array) -> Array:
    difference = x - g.mean
    infinite = jnp.any(jnp.isinf(difference)) & ~jnp.any(jnp.isnan(difference))
    # ∞ − ∞ inside a substitution would be NaN, and its gradient with it.
    distance = g.cov.inv_quad(jnp.where(infinite, 0.0, difference))
    return jnp.where(infinite, jnp.inf, distance)


def _log_density(cov: Covariance, squared_distance: Array) -> Array:
    return -0.5 * (squared_distance + cov.logdet() + cov.dim * math.log(2 * math.pi))


@lift_events
def _log_prob_of_noise(g: Gaussian, noise: Array) -> Array:
    return _log_density(g.cov, jnp.sum(jnp.square(noise)))


def _widened_and_noise(key: Array, g: Gaussian, shape: Any) -> tuple[Gaussian, Array]:
    """The Gaussian in the dtype to compute in, and standard normals for samples of it."""
    _checks.random_key(key)
    dtype = working_dtype(result_dtype(g))
    full = (*_checks.sample_shape(shape), *batch_shape(g), g.dim)
    wide = jax.tree.map(lambda x: _checks.real_array("g", x).astype(dtype), g)
    return wide, jax.random.normal(key, full, dtype)


def _mean_and_matrix(mean: Any, name: str, matrix: Any) -> tuple[Array, Array]:
    mean, matrix = _checks.real_array("mean", mean), _checks.real_array(name, matrix)
    _checks.square(name, matrix)
    return _fitting(mean, name, matrix, 2)


def _mean_and_vector(mean: Any, name: str, vector: Any) -> tuple[Array, Array]:
    mean, vector = _checks.real_array("mean", mean), _checks.real_array(name, vector)
    return _fitting(mean, name, vector, min(vector.ndim, 1))


def _fitting(mean: Array, name: str, factor: Array, rank: int) -> tuple[Array, Array]:
    """Both in one dtype, with event sizes that agree and batch shapes that broadcast."""
    _checks.rank_at_least("mean", mean, 1)
    if rank:
        _checks.same_dim("mean", mean.shape[-1], mean.shape, factor.shape[-1], name)
    shapes = [mean.shape[:-1], factor.shape[: factor.ndim - rank]]
    _checks.broadcastable(["mean", name], shapes)
    dtype = jnp.result_type(mean, factor)
    return mean.astype(dtype), factor.astype(dtype)


def _diagonal(scale: Array, size: int) -> Covariance:
    return Diagonal(scale) if scale.ndim else Isotropic(scale, size)


def _positive(name: str, values: Array) -> Array:
    """Scales or variances; an event with one that is not positive and finite is NaN."""
    rank = min(values.ndim, 1)
    valid = jnp.all((values > 0) & jnp.isfinite(values), axis=-1 if rank else None)
    _checks.all_true(f"{name} must be positive and finite", valid)
    return _nan_unless(valid, values, rank)


def _nan_unless(valid: Array, values: Array, rank: int) -> Array:
    return jnp.where(jnp.expand_dims(valid, tuple(range(-rank, 0))), values, jnp.nan)


def _factor(matrix: Array) -> Array:
    """Cholesky factor of a matrix that should be symmetric positive definite; NaN if not."""
    _checks.all_true("matrix must be finite", jnp.all(jnp.isfinite(matrix), (-2, -1)))
    symmetric = _is_symmetric(matrix)
    _checks.all_true("matrix must be symmetric", symmetric)
    lower = cholesky(_nan_unless(symmetric, matrix, 2))
    works = ~jnp.any(jnp.isnan(lower), (-2, -1))
    _checks.all_true("matrix must be positive definite to working precision", works)
    return lower


def _is_symmetric(matrix: Array) -> Array:
    """|Aᵢⱼ − Aⱼᵢ| ≤ √ε √(Aᵢᵢ Aⱼⱼ): a tolerance that does not depend on units."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(matrix, axis1=-2, axis2=-1)))
    tolerance = (
        float(jnp.finfo(matrix.dtype).eps) ** 0.5 * scale[..., :, None] * scale[..., None, :]
    )
    return jnp.all(jnp.abs(matrix - jnp.swapaxes(matrix, -1, -2)) <= tolerance, (-2, -1))
