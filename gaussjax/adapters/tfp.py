"""TFP on JAX: a Gaussian as a distribution, and TFP's normals as Gaussians.

>>> import gaussjax as gj
>>> d = to_tfp(gj.from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
>>> d.batch_shape, d.event_shape, d.sample(5, seed=jax.random.key(0)).shape
(TensorShape([]), TensorShape([2]), (5, 2))
>>> from_tfp(tfd.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))).cov
Diagonal(scale=Array([1., 1.], dtype=float32))
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gaussjax import batches, divergences
from gaussjax import gaussian as gs
from gaussjax._dtypes import result_dtype
from gaussjax._lift import structure_argument
from gaussjax.adapters._extras import missing
from gaussjax.covariances import Cholesky, Covariance, Diagonal, LowRank, Root
from gaussjax.gaussian import Gaussian

try:
    import tensorflow_probability.substrates.jax as tfp
    from tensorflow_probability.substrates.jax.internal import parameter_properties
except ImportError as _error:
    raise missing("tfp", _error) from _error

tfb, tfd = tfp.bijectors, tfp.distributions


class GaussianDistribution(tfd.Distribution):
    """A Gaussian as a distribution of TFP: for mixtures, flows, joint distributions, MCMC, KL.

    Indexing takes elements of the batch, as `gaussjax.take`.
    """

    def __init__(
        self,
        gaussian: Gaussian,
        *,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "GaussianDistribution",  # as TFP knows it to be no name of its own
    ) -> None:
        parameters = dict(locals())
        self._gaussian = gaussian
        super().__init__(
            dtype=result_dtype(gaussian),
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"gaussian": parameter_properties.BatchedComponentProperties()}

    @property
    def gaussian(self) -> Gaussian:
        """The Gaussian that it is."""
        return self._gaussian

    def _event_shape(self) -> Any:
        return tfp.tf2jax.TensorShape([self._gaussian.dim])

    def _event_shape_tensor(self) -> Any:
        return np.array([self._gaussian.dim], np.int32)

    def _batch_shape(self) -> Any:
        return tfp.tf2jax.TensorShape(self._gaussian.batch_shape)

    def _batch_shape_tensor(self, gaussian: Gaussian | None = None) -> Any:
        return np.array((self._gaussian if gaussian is None else gaussian).batch_shape, np.int32)

    def _sample_n(self, n: int, seed: Any = None) -> Array:
        return gs.sample(_key(seed), self._gaussian, (n,))

    def _sample_and_log_prob(self, sample_shape: Any, seed: Any) -> tuple[Array, Array]:
        shape = tuple(int(k) for k in np.atleast_1d(sample_shape))
        return gs.sample_and_log_prob(_key(seed), self._gaussian, shape)

    def _log_prob(self, value: Array) -> Array:
        return gs.log_prob(self._gaussian, value)

    def _entropy(self) -> Array:
        return jnp.broadcast_to(gs.entropy(self._gaussian), self._gaussian.batch_shape)

    def _mean(self) -> Array:
        return self._of_events(gs.mean(self._gaussian))

    def _mode(self) -> Array:
        return self._mean()

    def _variance(self) -> Array:
        return self._of_events(gs.variance(self._gaussian))

    def _stddev(self) -> Array:
        return self._of_events(gs.stddev(self._gaussian))

    def _covariance(self) -> Array:
        matrix = gs.covariance(self._gaussian)
        return jnp.broadcast_to(matrix, (*self._gaussian.batch_shape, *matrix.shape[-2:]))

    def _default_event_space_bijector(self) -> Any:
        return tfb.Identity(validate_args=self.validate_args)

    def __getitem__(self, slices: Any) -> "GaussianDistribution":
        return self.copy(gaussian=batches.take(self._gaussian, slices))

    def _of_events(self, vectors: Array) -> Array:
        return jnp.broadcast_to(vectors, (*self._gaussian.batch_shape, self._gaussian.dim))


def _key(seed: Any) -> Array:
    return jax.random.key(seed) if isinstance(seed, int) else seed


def to_tfp(g: Gaussian) -> GaussianDistribution:
    """A Gaussian as a distribution of TFP on JAX, with its batch shape. O(1)

    KL divergences between these, and between one of these and a multivariate normal of TFP, are
    gaussjax's.

    Raises:
        TypeError: `g` is not a Gaussian.

    >>> import gaussjax as gj
    >>> to_tfp(gj.standard(2)).kl_divergence(to_tfp(gj.standard(2)))
    Array(0., dtype=float32)
    """
    return GaussianDistribution(structure_argument("g", g, Gaussian))


# From TFP ----------------------------------------------------------------------------------------


@functools.singledispatch
def from_tfp(distribution: Any) -> Gaussian:
    """A normal distribution of TFP on JAX as a Gaussian, in the structure that it has. O(1)

    `Normal` (in one dimension), independent ones by `Independent` or `Sample`, and
    `MultivariateNormalDiag`, `…TriL`, `…FullCovariance`, `…LowRankCovariance` and any other that
    has a linear operator for a scale, of which one that is neither diagonal nor triangular becomes
    a `Root`.

    Raises:
        TypeError: it is not a normal distribution.
        ValueError: it has an event of more than one axis.

    >>> from_tfp(tfd.Normal(jnp.zeros(3), 2.0)).batch_shape
    (3,)
    """
    name = type(distribution).__name__
    raise TypeError(f"distribution must be a normal distribution of TFP, got {name}.")


@from_tfp.register(GaussianDistribution)
def _(distribution: Any) -> Gaussian:
    return distribution.gaussian


@from_tfp.register(tfd.Normal)
def _(distribution: Any) -> Gaussian:
    loc, scale = _whole(distribution.batch_shape, distribution)
    return Gaussian(loc[..., None], Diagonal(scale[..., None]))


@from_tfp.register(tfd.Independent)
@from_tfp.register(tfd.Sample)
def _(distribution: Any) -> Gaussian:
    base = distribution.distribution
    if not isinstance(base, tfd.Normal):
        raise TypeError(
            f"distribution must be independent Normals, got independent {type(base).__name__}s."
        )
    event = tuple(distribution.event_shape)
    if len(event) != 1:
        raise ValueError(f"distribution must have one event axis, got event shape {event}.")
    shape = (*distribution.batch_shape, *event)
    if isinstance(distribution, tfd.Independent):
        return Gaussian(*_law(*_whole(shape, base)))
    alike = (x[..., None] for x in _whole(distribution.batch_shape, base))
    return Gaussian(*_law(*(jnp.broadcast_to(x, shape) for x in alike)))


@from_tfp.register(tfd.MultivariateNormalLinearOperator)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.mean(), _covariance_of(distribution.scale))


@from_tfp.register(tfd.MultivariateNormalDiagPlusLowRankCovariance)
def _(distribution: Any) -> Gaussian:
    scale = jnp.sqrt(distribution.cov_diag_factor)
    return Gaussian(distribution.mean(), LowRank(scale, distribution.cov_perturb_factor))


def _whole(shape: Any, normal: Any) -> list[Array]:
    return [jnp.broadcast_to(x, tuple(shape)) for x in (normal.loc, normal.scale)]


def _law(loc: Array, scale: Array) -> tuple[Array, Diagonal]:
    return loc, Diagonal(scale)


def _covariance_of(operator: Any) -> Covariance:
    """S Sᵀ for the operator S."""
    name = type(operator).__name__
    if name in ("LinearOperatorDiag", "LinearOperatorIdentity", "LinearOperatorScaledIdentity"):
        return Diagonal(jnp.abs(operator.diag_part()))
    if name != "LinearOperatorLowerTriangular":
        return Root(operator.to_dense())
    triangle = operator.to_dense()
    signs = jnp.where(jnp.diagonal(triangle, axis1=-2, axis2=-1) < 0, -1, 1)  # of whole columns
    return Cholesky(triangle * signs[..., None, :].astype(triangle.dtype))


# Divergences -------------------------------------------------------------------------------------


def _kl_divergence(p: Any, q: Any, *_: Any, **__: Any) -> Array:
    return divergences.kl_divergence(from_tfp(p), from_tfp(q))


tfd.RegisterKL(GaussianDistribution, GaussianDistribution)(_kl_divergence)
for _normal in (
    tfd.Independent,
    tfd.MultivariateNormalDiagPlusLowRankCovariance,
    tfd.MultivariateNormalLinearOperator,
    tfd.Sample,
):
    tfd.RegisterKL(GaussianDistribution, _normal)(_kl_divergence)
    tfd.RegisterKL(_normal, GaussianDistribution)(_kl_divergence)
