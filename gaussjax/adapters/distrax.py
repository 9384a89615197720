"""distrax: a Gaussian as a distribution, and distrax's normals as Gaussians.

>>> import gaussjax as gj
>>> d = to_distrax(gj.from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
>>> d.batch_shape, d.event_shape, d.sample(seed=0, sample_shape=(5,)).shape
((), (2,), (5, 2))
>>> from_distrax(distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))).cov
Diagonal(scale=Array([1., 1.], dtype=float32))
"""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gaussjax import batches, divergences
from gaussjax import gaussian as gs
from gaussjax._dtypes import result_dtype
from gaussjax._lift import structure_argument
from gaussjax.adapters._extras import missing
from gaussjax.covariances import Cholesky, Diagonal, Root
from gaussjax.gaussian import Gaussian

try:
    import distrax
    from tensorflow_probability.substrates.jax.distributions import RegisterKL
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
        """The Gaussian that it is."""
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
        return jnp.broadcast_to(gs.entropy(self._gaussian), self.batch_shape)

    def mean(self) -> Array:
        """The mean of each Gaussian of the batch."""
        return self._of_events(gs.mean(self._gaussian))

    def median(self) -> Array:
        """The mean."""
        return self.mean()

    def mode(self) -> Array:
        """The mean."""
        return self.mean()

    def variance(self) -> Array:
        """The diagonal of each covariance."""
        return self._of_events(gs.variance(self._gaussian))

    def stddev(self) -> Array:
        """Standard deviations, even if variances leave the range of the dtype."""
        return self._of_events(gs.stddev(self._gaussian))

    def covariance(self) -> Array:
        """Σ as a matrix, `(..., d, d)`. O(d³)"""
        matrix = gs.covariance(self._gaussian)
        return jnp.broadcast_to(matrix, (*self.batch_shape, *matrix.shape[-2:]))

    def __getitem__(self, index: Any) -> "GaussianDistribution":
        return to_distrax(batches.take(self._gaussian, index))

    def _of_events(self, vectors: Array) -> Array:
        return jnp.broadcast_to(vectors, (*self.batch_shape, self._gaussian.dim))


def to_distrax(g: Gaussian) -> GaussianDistribution:
    """A Gaussian as a distribution of distrax, with its batch shape. O(1)

    KL divergences between these, and between one of these and a multivariate normal of distrax, are
    gaussjax's.

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
    `…FullCovariance`, and any other that is made of a linear bijector: A becomes a `Root`.

    Raises:
        TypeError: it is not a normal distribution.
        ValueError: it has an event of more than one axis.

    >>> from_distrax(distrax.Normal(jnp.zeros(3), 2.0)).batch_shape
    (3,)
    """
    name = type(distribution).__name__
    raise TypeError(f"distribution must be a normal distribution of distrax, got {name}.")


@from_distrax.register(GaussianDistribution)
def _(distribution: Any) -> Gaussian:
    return distribution.gaussian


@from_distrax.register(distrax.Normal)
def _(distribution: Any) -> Gaussian:
    loc, scale = (
        jnp.broadcast_to(x, distribution.batch_shape)
        for x in (distribution.loc, distribution.scale)
    )
    return Gaussian(loc[..., None], Diagonal(scale[..., None]))


@from_distrax.register(distrax.Independent)
def _(distribution: Any) -> Gaussian:
    base = distribution.distribution
    if not isinstance(base, distrax.Normal):
        raise TypeError(
            f"distribution must be independent Normals, got independent {type(base).__name__}s."
        )
    if len(distribution.event_shape) != 1:
        raise ValueError(
            f"distribution must have one event axis, got event shape {distribution.event_shape}."
        )
    shape = (*distribution.batch_shape, *distribution.event_shape)
    loc, scale = (jnp.broadcast_to(x, shape) for x in (base.loc, base.scale))
    return Gaussian(loc, Diagonal(scale))


@from_distrax.register(distrax.MultivariateNormalDiag)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.loc, Diagonal(jnp.abs(distribution.scale_diag)))


@from_distrax.register(distrax.MultivariateNormalTri)
def _(distribution: Any) -> Gaussian:
    triangle = distribution.scale_tri
    if not distribution.is_lower:
        return Gaussian(distribution.loc, Root(triangle))
    signs = jnp.where(jnp.diagonal(triangle, axis1=-2, axis2=-1) < 0, -1, 1)  # of whole columns
    return Gaussian(
        distribution.loc, Cholesky(triangle * signs[..., None, :].astype(triangle.dtype))
    )


@from_distrax.register(distrax.MultivariateNormalFromBijector)
def _(distribution: Any) -> Gaussian:
    return Gaussian(distribution.loc, Root(distribution.scale.matrix))


# Divergences -------------------------------------------------------------------------------------


def _kl_divergence(p: Any, q: Any, *_: Any, **__: Any) -> Array:
    return divergences.kl_divergence(from_distrax(p), from_distrax(q))


RegisterKL(GaussianDistribution, GaussianDistribution)(_kl_divergence)
for _normal in (
    distrax.Independent,
    distrax.MultivariateNormalDiag,
    distrax.MultivariateNormalDiagPlusLowRank,
    distrax.MultivariateNormalFromBijector,
    distrax.MultivariateNormalFullCovariance,
    distrax.MultivariateNormalTri,
):
    RegisterKL(GaussianDistribution, _normal)(_kl_divergence)
    RegisterKL(_normal, GaussianDistribution)(_kl_divergence)
