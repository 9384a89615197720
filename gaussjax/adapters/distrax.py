"""distrax: a Gaussian as a distribution, and distrax's normals as Gaussians.

>>> import gaussjax as gj
>>> d = to_distrax(gj.from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
>>> d.batch_shape, d.event_shape, d.sample(seed=0, sample_shape=(5,)).shape
((), (2,), (5, 2))
>>> from_distrax(distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))).cov
Diagonal(scale=Array([1., 1.], dtype=float32))
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gaussjax import batches
from gaussjax import gaussian as gs
from gaussjax._dtypes import result_dtype
from gaussjax._lift import structure_argument
from gaussjax.adapters import _normals
from gaussjax.adapters._extras import missing
from gaussjax.covariances import Cholesky, Diagonal, Root
from gaussjax.gaussian import Gaussian

try:
    import distrax
    from tensorflow_probability.substrates.jax import distributions as tfd

    from gaussjax.adapters import tfp  # whose distributions distrax takes for its own
except ImportError as _error:
    raise missing("distrax", _error) from _error


class GaussianDistribution(distrax.Distribution):
    """A Gaussian as a distribution of distrax: for mixtures, flows, `Independent`, KL.

    Indexing takes elements of the batch, as `gaussjax.take`.
    """

    def __init__(self, gaussian: Gaussian) -> None:
        super().__init__()
        self._gaussian = gaussian

    @property
    def gaussian(self) -> Gaussian:
        """The Gaussian itself."""
        return self._gaussian

    @property
    def event_shape(self) -> tuple[int, ...]:
        """`(d,)`."""
        return (self._gaussian.dim,)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """That of the Gaussian."""
        return self._gaussian.batch_shape

    @property
    def dtype(self) -> Any:
        """That of samples."""
        return result_dtype(self._gaussian)

    def _sample_n(self, key: Array, n: int) -> Array:
        return gs.sample(key, self._gaussian, (n,))

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        return gs.sample_and_log_prob(key, self._gaussian, (n,))

    def log_prob(self, value: Array) -> Array:
        """As `gaussjax.log_prob`."""
        return gs.log_prob(self._gaussian, value)

    def entropy(self) -> Array:
        """As `gaussjax.entropy`."""
        return gs.entropy(self._gaussian)

    def mean(self) -> Array:
        """The mean of each Gaussian of the batch."""
        return gs.mean(self._gaussian)

    def median(self) -> Array:
        """The mean."""
        return self.mean()

    def mode(self) -> Array:
        """The mean."""
        return self.mean()

    def variance(self) -> Array:
        """The diagonal of each covariance."""
        return gs.variance(self._gaussian)

    def stddev(self) -> Array:
        """Standard deviations, even if variances leave the range of the dtype."""
        return gs.stddev(self._gaussian)

    def covariance(self) -> Array:
        """Σ as a matrix, `(..., d, d)`. O(d³)"""
        return gs.covariance(self._gaussian)

    def __getitem__(self, index: Any) -> "GaussianDistribution":
        return to_distrax(batches.take(self._gaussian, index))

    def __iter__(self) -> Iterator["GaussianDistribution"]:
        """Along the first axis of the batch."""
        if not self.batch_shape:
            raise TypeError("A Gaussian can be iterated over only if it has a batch axis.")
        return (self[i] for i in range(self.batch_shape[0]))


def to_distrax(g: Gaussian) -> GaussianDistribution:
    """A Gaussian as a distribution of distrax, with its batch shape. O(1)

    KL divergences between these, and between one of these and a multivariate normal of distrax or
    TFP, are gaussjax's.

    Raises:
        TypeError: `g` is not a Gaussian.

    >>> import gaussjax as gj
    >>> to_distrax(gj.standard(2)).kl_divergence(to_distrax(gj.standard(2)))
    Array(0., dtype=float32)
    """
    return GaussianDistribution(structure_argument("g", g, Gaussian))


@functools.singledispatch
def from_distrax(distribution: Any) -> Gaussian:
    """A normal distribution of distrax as a Gaussian, in the structure that it has. O(1)

    `Normal` (in one dimension), `Independent` ones, `MultivariateNormalDiag`, `…Tri`,
    `…FullCovariance`, and any other made from a linear bijector, whose matrix becomes a `Root`. The
    normals of TFP, which distrax accepts too, go through `from_tfp`.

    Raises:
        TypeError: it is not a normal distribution.
        ValueError: it has an event of more than one axis.

    >>> from_distrax(distrax.Normal(jnp.zeros(3), 2.0)).batch_shape
    (3,)
    """
    raise _normals.refused(distribution, "distrax")


@from_distrax.register(GaussianDistribution)
def _(distribution: Any) -> Gaussian:
    return distribution.gaussian


@from_distrax.register(distrax.Normal)
@from_distrax.register(distrax.Independent)
def _(distribution: Any) -> Gaussian:
    wrappers = (distrax.Independent,)
    normals = distrax.Normal, tfd.Normal
    base = _normals.inner_normal(distribution, normals, wrappers, "distribution")
    shapes = distribution.batch_shape, distribution.event_shape
    return _normals.independent(base.loc, base.scale, *shapes)


@from_distrax.register(distrax.MultivariateNormalDiag)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.loc, Diagonal(jnp.abs(distribution.scale_diag)))


@from_distrax.register(distrax.MultivariateNormalTri)
def _(distribution: Any) -> Gaussian:
    if not distribution.is_lower:
        return Gaussian(distribution.loc, Root(distribution.scale_tri))
    lower = _normals.positive_pivots(distribution.scale_tri)
    return Gaussian(distribution.loc, Cholesky(lower))


@from_distrax.register(distrax.MultivariateNormalFromBijector)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.loc, Root(distribution.scale.matrix))


@from_distrax.register(tfd.Distribution)
def _(distribution: Any) -> Gaussian:
    return tfp.from_tfp(distribution)


_normals.register_divergences(
    tfd.RegisterKL,
    GaussianDistribution,
    (
        distrax.Independent,
        distrax.MultivariateNormalDiag,
        distrax.MultivariateNormalDiagPlusLowRank,
        distrax.MultivariateNormalFromBijector,
        distrax.MultivariateNormalFullCovariance,
        distrax.MultivariateNormalTri,
        tfp.GaussianDistribution,
        *tfp.NORMALS,
    ),
    from_distrax,
)
