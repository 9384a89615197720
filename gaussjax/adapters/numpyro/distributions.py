"""A Gaussian as a distribution of NumPyro, and NumPyro's normals as Gaussians.

>>> from_numpyro(dist.Normal(jnp.zeros(3), 2.0).to_event(1)).cov
Diagonal(scale=Array([2., 2., 2.], dtype=float32))
"""

import copy
import functools
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import validate_sample

from gaussjax import batches, constructors
from gaussjax import gaussian as gs
from gaussjax._lift import structure_argument
from gaussjax.adapters import _normals
from gaussjax.covariances import (
    BandedPrecision,
    Cholesky,
    Circulant,
    Kronecker,
    LowRank,
    Root,
)
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.products import dot


class GaussianDistribution(dist.Distribution):
    """A Gaussian as a distribution of NumPyro: for `numpyro.sample`, plates, inference, mixtures.

    All its parameters are reparameterised.
    """

    arg_constraints: dict[str, Any] = {  # noqa: RUF012 (as NumPyro declares it)
        "gaussian": constraints.dependent(is_discrete=False, event_dim=1)
    }
    reparametrized_params: list[str] = ["gaussian"]  # noqa: RUF012 (as NumPyro declares it)
    pytree_data_fields: tuple[str, ...] = ("gaussian",)
    support: Any = constraints.real_vector  # type: ignore[override]  # as NumPyro's own normals

    def __init__(self, gaussian: Gaussian, *, validate_args: bool | None = None) -> None:
        self.gaussian = gaussian
        super().__init__(gaussian.batch_shape, (gaussian.dim,), validate_args=validate_args)

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """As `gaussjax.sample`."""
        return gs.sample(key, self.gaussian, sample_shape)  # type: ignore[arg-type]  # checked there

    @validate_sample
    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> Array:
        """As `gaussjax.log_prob`."""
        return gs.log_prob(self.gaussian, value)

    def entropy(self) -> Array:
        """As `gaussjax.entropy`."""
        return gs.entropy(self.gaussian)

    @property
    def mean(self) -> Array:
        """The mean of each Gaussian of the batch."""
        return gs.mean(self.gaussian)

    @property
    def mode(self) -> Array:
        """The mean."""
        return self.mean

    @property
    def variance(self) -> Array:
        """The diagonal of each covariance."""
        return gs.variance(self.gaussian)

    @property
    def covariance_matrix(self) -> Array:
        """Σ as a matrix. O(d³)"""
        return gs.covariance(self.gaussian)

    @property
    def precision_matrix(self) -> Array:
        """Σ⁻¹ as a matrix. O(d³)"""
        return gs.precision(self.gaussian)


def to_numpyro(g: Gaussian) -> GaussianDistribution:
    """A Gaussian as a distribution of NumPyro, with its batch shape. O(1)

    KL divergences between these, and between one of these and a normal of NumPyro that has one
    event axis, are gaussjax's.

    Raises:
        TypeError: `g` is not a Gaussian.

    >>> import gaussjax as gj
    >>> to_numpyro(gj.standard(2)).log_prob(jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """
    return GaussianDistribution(structure_argument("g", g, Gaussian))


def _promoted(distribution: Any) -> Any:
    """With the batch shape that `vmap` has left its Gaussian, as NumPyro's `scan` asks."""
    promoted = copy.copy(distribution)
    promoted._batch_shape = distribution.gaussian.batch_shape
    return promoted


promote_batch_shape.register(GaussianDistribution, _promoted)


# From NumPyro ------------------------------------------------------------------------------------


@functools.singledispatch
def from_numpyro(distribution: Any) -> Gaussian:
    """A normal distribution of NumPyro as a Gaussian. O(1) for most

    Normal (in one dimension), independent and expanded ones, `MultivariateNormal`,
    `LowRankMultivariateNormal`, `CirculantNormal`, `MatrixNormal` (its event is the matrix row by
    row, a Kronecker product), `GaussianRandomWalk` (a banded precision), `GaussianStateSpace` (all
    states, dense), `ZeroSumNormal` (singular) and `CAR` (a precision).

    Raises:
        TypeError: it is not a normal distribution, or is masked.
        ValueError: it has an event of more than one axis that is no `MatrixNormal`.

    >>> type(from_numpyro(dist.GaussianRandomWalk(2.0, num_steps=3)).cov).__name__
    'BandedPrecision'
    """
    raise _normals.refused(distribution, "NumPyro")


@from_numpyro.register(GaussianDistribution)
def _(distribution: Any) -> Gaussian:
    return distribution.gaussian


@from_numpyro.register(dist.Normal)
@from_numpyro.register(dist.Independent)
def _(distribution: Any) -> Gaussian:
    wrappers = (dist.Independent, dist.ExpandedDistribution)
    base = _normals.inner_normal(distribution, dist.Normal, wrappers, "base_dist")
    shapes = distribution.batch_shape, distribution.event_shape
    return _normals.independent(base.loc, base.scale, *shapes)


@from_numpyro.register(dist.ExpandedDistribution)
def _(distribution: Any) -> Gaussian:
    g = from_numpyro(distribution.base_dist)
    return batches.broadcast_to(g, distribution.batch_shape)


@from_numpyro.register(dist.MultivariateNormal)
def _(distribution: Any) -> Gaussian:
    return Gaussian(_location(distribution), Cholesky(distribution.scale_tril))


@from_numpyro.register(dist.LowRankMultivariateNormal)
def _(distribution: Any) -> Gaussian:
    scale = jnp.sqrt(distribution.cov_diag)
    return Gaussian(_location(distribution), LowRank(scale, distribution.cov_factor))


@from_numpyro.register(dist.CirculantNormal)
def _(distribution: Any) -> Gaussian:
    """By the eigenvalues that it keeps: a transform to the row and back would cost small ones."""
    half, size = jnp.asarray(distribution.covariance_rfft), distribution.event_shape[0]
    mirrored = half[..., 1 : (size + 1) // 2][..., ::-1]
    return Gaussian(distribution.loc, Circulant(jnp.concatenate([half, mirrored], axis=-1)))


@from_numpyro.register(dist.MatrixNormal)
def _(distribution: Any) -> Gaussian:
    parts = distribution.scale_tril_row, distribution.scale_tril_column
    mean = distribution.loc.reshape(*distribution.loc.shape[:-2], -1)
    return Gaussian(mean, Kronecker(tuple(map(Cholesky, parts))))


@from_numpyro.register(dist.GaussianRandomWalk)
def _(distribution: Any) -> Gaussian:
    """By the factor in closed form: what elimination leaves of the last pivot, 1 / n, cancels."""
    steps, scale = distribution.num_steps, _normals.floating(distribution.scale)
    k = jnp.arange(1, steps + 1, dtype=scale.dtype)
    pivots = jnp.sqrt((k + 1) / k).at[-1].set(steps**-0.5)
    factor = jnp.stack([pivots, -jnp.sqrt(k / (k + 1))])
    lower = jnp.multiply.outer(1 / scale, factor)
    return Gaussian(jnp.zeros(steps, scale.dtype), BandedPrecision(lower))


@from_numpyro.register(dist.GaussianStateSpace)
def _(distribution: Any) -> Gaussian:
    """Of all states, step after step: z at t is A z at t − 1 and noise. O(steps² d³)"""
    matrix, noise = distribution.transition_matrix, distribution.scale_tril
    steps, size = distribution.num_steps, matrix.shape[-1]
    powers = [jnp.eye(size, dtype=noise.dtype)]
    for _ in range(steps):
        powers.append(dot(matrix, powers[-1]))
    start = distribution._initial_value
    start = jnp.zeros(size, noise.dtype) if start is None else jnp.asarray(start)
    mean = jnp.concatenate([dot(power, start[..., None])[..., 0] for power in powers[1:]], -1)
    zero = jnp.zeros_like(noise)
    rows = [
        jnp.concatenate([dot(powers[t - k], noise) if k <= t else zero for k in range(steps)], -1)
        for t in range(steps)
    ]
    return Gaussian(mean, Root(jnp.concatenate(rows, -2)))


@from_numpyro.register(dist.ZeroSumNormal)
def _(distribution: Any) -> Gaussian:
    size = _normals.one_event_axis(distribution.event_shape)
    scale = jnp.broadcast_to(_normals.floating(distribution.scale), distribution.batch_shape)
    factor = jnp.multiply.outer(scale, jnp.eye(size, dtype=scale.dtype) - 1 / size)
    return Gaussian(jnp.zeros(size, scale.dtype), Root(factor))


@from_numpyro.register(dist.CAR)
def _(distribution: Any) -> Gaussian:
    return constructors.from_precision(_location(distribution), distribution.precision_matrix)


def _location(distribution: Any) -> Array:
    """The mean with its event, of which NumPyro keeps one entry where all are the same."""
    loc = distribution.loc
    return jnp.broadcast_to(loc, (*loc.shape[:-1], *distribution.event_shape))


_divergences: Any = dist.kl_divergence  # a dispatcher
_normals.register_divergences(
    lambda p, q: functools.partial(_divergences.add, (p, q)),
    GaussianDistribution,
    (
        dist.MultivariateNormal,
        dist.LowRankMultivariateNormal,
        dist.CAR,
        dist.CirculantNormal,
        dist.GaussianRandomWalk,
        dist.Independent,
        dist.ZeroSumNormal,
    ),
    from_numpyro,
)
