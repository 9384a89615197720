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

from gaussjax import batches, transforms
from gaussjax import gaussian as gs
from gaussjax._dtypes import result_dtype
from gaussjax._lift import structure_argument
from gaussjax.adapters import _normals
from gaussjax.adapters._extras import missing
from gaussjax.covariances import (
    Cholesky,
    Covariance,
    Diagonal,
    Kronecker,
    LowRank,
    PrecisionCholesky,
    Root,
)
from gaussjax.gaussian import Gaussian

try:
    import tensorflow_probability.substrates.jax as tfp
    from tensorflow_probability.substrates.jax.internal import parameter_properties
except ImportError as _error:
    raise missing("tfp", _error) from _error

tfb, tfd = tfp.bijectors, tfp.distributions

# Names of linear operators, whose classes are not public.
DIAGONALS = ("LinearOperatorDiag", "LinearOperatorIdentity", "LinearOperatorScaledIdentity")
TRIANGLE = "LinearOperatorLowerTriangular"


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
            dtype=None,  # is asked for below: in a tree there may be other things than arrays
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
    def dtype(self) -> Any:
        """That of samples."""
        return result_dtype(self._gaussian)

    @property
    def gaussian(self) -> Gaussian:
        """The Gaussian itself."""
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
        return gs.entropy(self._gaussian)

    def _mean(self) -> Array:
        return gs.mean(self._gaussian)

    def _mode(self) -> Array:
        return self._mean()

    def _variance(self) -> Array:
        return gs.variance(self._gaussian)

    def _stddev(self) -> Array:
        return gs.stddev(self._gaussian)

    def _covariance(self) -> Array:
        return gs.covariance(self._gaussian)

    def _default_event_space_bijector(self) -> Any:
        return tfb.Identity(validate_args=self.validate_args)

    def __getitem__(self, slices: Any) -> "GaussianDistribution":
        return self.copy(gaussian=batches.take(self._gaussian, slices))

    def _broadcast_parameters_with_batch_shape(self, batch_shape: Any) -> "GaussianDistribution":
        shape = np.broadcast_shapes(tuple(map(int, batch_shape)), self._gaussian.batch_shape)
        return self.copy(gaussian=batches.broadcast_to(self._gaussian, shape))


def _flatten(distribution: GaussianDistribution) -> tuple[tuple[Gaussian], tuple[Any, ...]]:
    given = distribution.parameters
    return (given["gaussian"],), tuple((k, x) for k, x in given.items() if k != "gaussian")


jax.tree_util.register_pytree_node(
    GaussianDistribution,
    _flatten,
    lambda options, held: GaussianDistribution(*held, **dict(options)),
)


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
    `MultivariateNormalDiag`, `…TriL`, `…FullCovariance`, `…LowRankCovariance` and any other whose
    scale is a linear operator; one that is neither diagonal nor triangular becomes a `Root`.
    `MatrixNormalLinearOperator` (its event is the matrix row by row, a Kronecker product) and, of
    `tfp.experimental`, `MultivariateNormalPrecisionFactorLinearOperator` (a precision).

    Raises:
        TypeError: it is not a normal distribution.
        ValueError: it has an event of more than one axis.

    >>> from_tfp(tfd.Normal(jnp.zeros(3), 2.0)).batch_shape
    (3,)
    """
    raise _normals.refused(distribution, "TFP")


@from_tfp.register(GaussianDistribution)
def _(distribution: Any) -> Gaussian:
    return distribution.gaussian


@from_tfp.register(tfd.Normal)
@from_tfp.register(tfd.Independent)
def _(distribution: Any) -> Gaussian:
    base = _normals.inner_normal(distribution, tfd.Normal, (tfd.Independent,), "distribution")
    shapes = distribution.batch_shape, distribution.event_shape
    return _normals.independent(base.loc, base.scale, *shapes)


@from_tfp.register(tfd.Sample)
def _(distribution: Any) -> Gaussian:
    base = _normals.inner_normal(distribution, tfd.Normal, (tfd.Sample,), "distribution")
    batch, event = tuple(distribution.batch_shape), tuple(distribution.event_shape)
    alike = (*batch, *(1 for _ in event))  # along the axes of the event
    loc, scale = (jnp.broadcast_to(x, batch).reshape(alike) for x in (base.loc, base.scale))
    return _normals.independent(loc, scale, batch, event)


@from_tfp.register(tfd.MultivariateNormalLinearOperator)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.mean(), _covariance(distribution.scale))


@from_tfp.register(tfd.MatrixNormalLinearOperator)
def _(distribution: Any) -> Gaussian:
    mean = distribution.loc.reshape(*distribution.loc.shape[:-2], -1)
    parts = distribution.scale_row, distribution.scale_column
    return Gaussian(mean, Kronecker(tuple(map(_covariance, parts))))


@from_tfp.register(tfd.TransformedDistribution)
def _(distribution: Any) -> Gaussian:
    """`…PrecisionFactorLinearOperator`, by its members: the import of its module takes seconds."""
    operator = getattr(distribution, "precision_factor", None)
    if operator is None:
        raise _normals.refused(distribution, "TFP")
    mean, kind = distribution.mean(), type(operator).__name__
    if kind in DIAGONALS:
        return Gaussian(mean, Diagonal(1 / jnp.abs(operator.diag_part())))
    if kind == TRIANGLE:
        return Gaussian(mean, PrecisionCholesky(_normals.positive_pivots(operator.to_dense())))
    triangular: Any = transforms.as_cholesky(Gaussian(mean, Root(operator.to_dense()))).cov
    return Gaussian(mean, PrecisionCholesky(triangular.lower))


@from_tfp.register(tfd.MultivariateNormalDiagPlusLowRankCovariance)
def _(distribution: Any) -> Gaussian:
    scale = jnp.sqrt(distribution.cov_diag_factor)
    return Gaussian(distribution.mean(), LowRank(scale, distribution.cov_perturb_factor))


def _covariance(operator: Any) -> Covariance:
    """A Aᵀ of a linear operator A."""
    if type(operator).__name__ in DIAGONALS:
        return Diagonal(jnp.abs(operator.diag_part()))
    if type(operator).__name__ == TRIANGLE:
        return Cholesky(_normals.positive_pivots(operator.to_dense()))
    return Root(operator.to_dense())


NORMALS = (
    tfd.Independent,
    tfd.MultivariateNormalDiagPlusLowRankCovariance,
    tfd.MultivariateNormalLinearOperator,
    tfd.Sample,
    tfd.TransformedDistribution,  # one that is given by the factor of its precision
)
"""Of TFP, with one event axis."""

_normals.register_divergences(tfd.RegisterKL, GaussianDistribution, NORMALS, from_tfp)
