"""Guides for NumPyro's variational inference whose posterior is a Gaussian of some structure.

As NumPyro's `AutoMultivariateNormal`, for all latent variables at once and without constraints on
the parameters: any optimiser may move them.

>>> import numpyro
>>> from jax import random
>>> from numpyro.infer import SVI, Trace_ELBO
>>> def model():
...     numpyro.sample("x", numpyro.distributions.Normal(1.0, 0.1).expand((3,)).to_event(1))
>>> guide = AutoBanded(model, bandwidth=1)
>>> svi = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
>>> result = svi.run(random.key(0), 400, progress_bar=False)
>>> guide.get_posterior(result.params).gaussian.cov
BandedPrecision(lower=float32[2,3])
"""

import abc
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import softplus
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions.transforms import LowerCholeskyAffine
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.initialization import init_to_uniform

from gaussjax import gaussian as gs
from gaussjax import parametrize, transforms
from gaussjax._errors import dimension
from gaussjax.adapters.numpyro.distributions import GaussianDistribution, to_numpyro
from gaussjax.covariances import BandedPrecision, Cholesky, Covariance, LowRank
from gaussjax.gaussian import Gaussian


class AutoGaussian(AutoContinuous, abc.ABC):
    """A guide of a mean and a covariance: a structure says which parameters it has.

    `init_scale` is the standard deviation that each latent variable starts from.
    """

    def __init__(
        self,
        model: Any,
        *,
        prefix: str = "auto",
        init_loc_fn: Any = init_to_uniform,
        init_scale: float = 0.1,
    ) -> None:
        if not init_scale > 0:
            raise ValueError(f"init_scale must be positive, got {init_scale}.")
        self._init_scale = init_scale
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    @abc.abstractmethod
    def _start(self, dim: int) -> dict[str, Array]:
        """Initial values of the covariance's parameters, which are any real numbers."""

    @abc.abstractmethod
    def _covariance(self, **parameters: Array) -> Covariance:
        """The structure that they make."""

    def _get_posterior(self) -> GaussianDistribution:
        start = {"loc": self._init_latent, **self._start(self.latent_dim)}
        values: Any = {name: numpyro.param(f"{self.prefix}_{name}", x) for name, x in start.items()}
        return to_numpyro(Gaussian(values.pop("loc"), self._covariance(**values)))

    def get_posterior(self, params: dict[str, Array]) -> GaussianDistribution:
        """The law of the latent vector, before constraints."""
        posterior: Any = handlers.substitute(self._get_posterior, params)
        return posterior()

    def get_base_dist(self) -> dist.Distribution:
        """Standard normals, which `get_transform` makes latent variables of."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1.0).to_event(1)

    def get_transform(self, params: dict[str, Array]) -> LowerCholeskyAffine:
        """The map from standard normals to the latent vector, for `NeuTraReparam`."""
        g = transforms.as_cholesky(self.get_posterior(params).gaussian)
        return LowerCholeskyAffine(g.mean, jnp.tril(g.cov.lower))  # type: ignore[attr-defined]

    def median(self, params: dict[str, Array]) -> dict[str, Array]:
        """Of each latent variable: where the mean is mapped to."""
        return self._unpack_and_constrain(params[f"{self.prefix}_loc"], params)

    def quantiles(self, params: dict[str, Array], quantiles: Any) -> dict[str, Array]:
        """Of each latent variable."""
        g = self.get_posterior(params).gaussian
        latent = dist.Normal(g.mean, gs.stddev(g)).icdf(jnp.asarray(quantiles)[..., None])
        return self._unpack_and_constrain(latent, params)


class AutoCholesky(AutoGaussian):
    """A full covariance, by its Cholesky factor. O(d²) parameters"""

    def _start(self, dim: int) -> dict[str, Array]:
        lower = self._init_scale * jnp.eye(dim)
        return {"root": parametrize.vector_from_lower(lower)}

    def _covariance(self, **parameters: Array) -> Covariance:
        return Cholesky(parametrize.lower_from_vector(parameters["root"]))


class AutoLowRank(AutoGaussian):
    """diag(s²) + W Wᵀ with `rank` columns, √d if left out. O(d · rank) parameters"""

    def __init__(self, model: Any, *, rank: int | None = None, **options: Any) -> None:
        self.rank: int | None = None if rank is None else dimension("rank", rank)
        super().__init__(model, **options)

    def _start(self, dim: int) -> dict[str, Array]:
        rank = round(dim**0.5) if self.rank is None else self.rank
        factor = jnp.zeros((dim, rank))
        return {"scale": jnp.full(dim, _before_softplus(self._init_scale)), "factor": factor}

    def _covariance(self, **parameters: Array) -> Covariance:
        scale = softplus(parameters["scale"])
        return LowRank(scale, scale[:, None] * parameters["factor"])


class AutoBanded(AutoGaussian):
    """A banded precision: each variable beside `bandwidth` next ones. O(d · bandwidth) parameters

    For latent variables in the order of a chain, such as the states of a time series.
    """

    def __init__(self, model: Any, *, bandwidth: int = 1, **options: Any) -> None:
        self.bandwidth: int = dimension("bandwidth", bandwidth)
        super().__init__(model, **options)

    def _start(self, dim: int) -> dict[str, Array]:
        diagonal = jnp.full(dim, _before_softplus(1 / self._init_scale))
        return {"diagonal": diagonal, "below": jnp.zeros((self.bandwidth, dim))}

    def _covariance(self, **parameters: Array) -> Covariance:
        diagonal = softplus(parameters["diagonal"])
        below = diagonal[None] * parameters["below"]
        return BandedPrecision(jnp.concatenate([diagonal[None], below]))


def _before_softplus(value: float) -> Array:
    return value + jnp.log(-jnp.expm1(-value))
