"""flowjax: a Gaussian as the base of a flow, and flowjax's normals as Gaussians.

>>> import gaussjax as gj
>>> base = to_flowjax(gj.from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
>>> base.shape, base.sample(jax.random.key(0), (5,)).shape
((2,), (5, 2))
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import constructors, parametrize
from gaussjax import gaussian as gs
from gaussjax._lift import structure_argument
from gaussjax.adapters._extras import missing
from gaussjax.covariances import Cholesky, Diagonal
from gaussjax.gaussian import Gaussian

try:
    import equinox
    import flowjax.distributions as dist
    from paramax import Parameterize, non_trainable, unwrap
except ImportError as _error:
    raise missing("flowjax", _error) from _error


class GaussianDistribution(dist.AbstractDistribution):
    """A Gaussian as a distribution of flowjax: the base of a `Transformed`, or alone."""

    gaussian: Any  # a Gaussian, after `paramax.unwrap`
    shape: tuple[int, ...] = equinox.field(static=True)
    cond_shape: ClassVar[None] = None  # type: ignore[misc]  # as flowjax declares its own

    def _log_prob(self, x: Array, condition: Array | None = None) -> Float[Array, ""]:
        return gs.log_prob(self.gaussian, x)

    def _sample(self, key: Array, condition: Array | None = None) -> Float[Array, " d"]:
        return gs.sample(key, self.gaussian)

    def _sample_and_log_prob(
        self, key: Array, condition: Array | None = None
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        return gs.sample_and_log_prob(key, self.gaussian)


def to_flowjax(g: Gaussian) -> GaussianDistribution:
    """A Gaussian as a distribution of flowjax, which training leaves as it is. O(1)

    Raises:
        TypeError: `g` is not a Gaussian.
        ValueError: it is a batch: flowjax has none, but `equinox.filter_vmap` maps over keys.

    >>> import gaussjax as gj
    >>> to_flowjax(gj.standard(2)).log_prob(jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """
    return GaussianDistribution(gaussian=non_trainable(_one(g)), shape=(g.dim,))


def to_learnable_flowjax(
    g: Gaussian, *, diagonal: parametrize.Positive = parametrize.Exp()
) -> GaussianDistribution:
    """As `to_flowjax`, but trained with the flow: by `parametrize.vector_from_gaussian`. O(d²)

    Whatever the optimiser does to the vector, it is a Gaussian of the same structure.

    Raises:
        TypeError: `g` is not a Gaussian, or its structure has no form.
        ValueError: it is a batch.

    >>> import gaussjax as gj
    >>> base = to_learnable_flowjax(gj.from_scale([0.0, 0.0], [1.0, 2.0]))
    >>> from_flowjax(base).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    vector = parametrize.vector_from_gaussian(_one(g), diagonal=diagonal)
    made = functools.partial(
        parametrize.gaussian_from_vector,
        dim=g.dim,
        form=parametrize.form_of(g),
        diagonal=diagonal,
    )
    return GaussianDistribution(gaussian=Parameterize(made, vector), shape=(g.dim,))


def from_flowjax(distribution: dist.AbstractDistribution) -> Gaussian:
    """A normal distribution of flowjax as a Gaussian. O(1)

    `StandardNormal` and `Normal` of one axis or none (which has one dimension),
    `MultivariateNormal`, and what this module makes.

    Raises:
        TypeError: it is not a normal distribution.
        ValueError: it has more than one axis.

    >>> from_flowjax(dist.Normal(jnp.zeros(2), 3.0)).cov
    Diagonal(scale=Array([3., 3.], dtype=float32))
    """
    known = (GaussianDistribution, dist.StandardNormal, dist.Normal, dist.MultivariateNormal)
    if not isinstance(distribution, known):
        name = type(distribution).__name__
        raise TypeError(f"distribution must be a normal distribution of flowjax, got {name}.")
    if len(distribution.shape) > 1:
        raise ValueError(f"distribution must have one axis, got shape {distribution.shape}.")
    bare: Any = unwrap(distribution)
    if isinstance(distribution, GaussianDistribution):
        return bare.gaussian
    if isinstance(distribution, dist.MultivariateNormal):
        return Gaussian(bare.bijection.loc, Cholesky(bare.bijection.triangular))
    if isinstance(distribution, dist.StandardNormal):
        return constructors.standard(bare.shape[0] if bare.shape else 1)
    loc, scale = (jnp.atleast_1d(jnp.broadcast_to(x, bare.shape)) for x in (bare.loc, bare.scale))
    return Gaussian(loc, Diagonal(scale))


def _one(g: Any) -> Gaussian:
    whole = structure_argument("g", g, Gaussian)
    if whole.batch_shape:
        raise ValueError(f"g must be one Gaussian, got batch shape {whole.batch_shape}.")
    return jax.tree.map(jnp.asarray, whole)
