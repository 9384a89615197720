"""Guides for NumPyro's variational inference whose posterior is a Gaussian of some structure.

As NumPyro's `AutoMultivariateNormal`, for all latent variables at once and without constraints on
the parameters: any optimiser may move them. `AutoGaussian(model, form=…)` takes any form of
`gaussjax.parametrize`; the others have theirs.

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

import math
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions.transforms import LowerCholeskyAffine
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.initialization import init_to_uniform

from gaussjax import _errors, transforms
from gaussjax import gaussian as gs
from gaussjax.adapters.numpyro.distributions import GaussianDistribution, to_numpyro
from gaussjax.gaussian import Gaussian
from gaussjax.parametrize import BandedForm, Exp, Form, FullForm, LowRankForm

POSITIVE = Exp()


class AutoGaussian(AutoContinuous):
    """A guide of a mean and a covariance of any form of `gaussjax.parametrize`.

    `init_scale` is the standard deviation that each latent variable starts from. The covariance is
    D U D, with U of the form and D diagonal: the unit of a variable is one parameter.
    """

    def __init__(
        self,
        model: Any,
        *,
        form: Form = FullForm(),
        prefix: str = "auto",
        init_loc_fn: Any = init_to_uniform,
        init_scale: float = 0.1,
    ) -> None:
        if not 0 < init_scale < math.inf:
            raise ValueError(f"init_scale must be positive and finite, got {init_scale}.")
        self._form, self._init_scale = _errors.form("form", form, Form), init_scale
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def _form_of(self, dim: int) -> Form:
        return self._form

    def _get_posterior(self) -> GaussianDistribution:
        dim = self.latent_dim
        form = self._form_of(dim)
        start = {
            "loc": self._init_latent,
            "scale": POSITIVE.inverse(jnp.full(dim, self._init_scale)),
            "entries": form.entries(form.isotropic(dim, 1.0), POSITIVE),
        }
        values: Any = {name: numpyro.param(f"{self.prefix}_{name}", x) for name, x in start.items()}
        unit = Gaussian(jnp.zeros(dim), form.covariance(values["entries"], dim, POSITIVE))
        centred = transforms.scale_by(unit, POSITIVE(values["scale"]))
        return to_numpyro(transforms.shift(centred, values["loc"]))

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

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, form=FullForm(), **options)


class AutoLowRank(AutoGaussian):
    """A diagonal plus W Wᵀ with `rank` columns, √d if left out. O(d · rank) parameters"""

    def __init__(self, model: Any, *, rank: int | None = None, **options: Any) -> None:
        self.rank: int | None = None if rank is None else _errors.dimension("rank", rank)
        super().__init__(model, **options)

    def _form_of(self, dim: int) -> Form:
        return LowRankForm(round(dim**0.5) if self.rank is None else self.rank)


class AutoBanded(AutoGaussian):
    """A banded precision: each variable with the next `bandwidth`. O(d · bandwidth) parameters

    For latent variables in the order of a chain, such as the states of a time series.
    """

    def __init__(self, model: Any, *, bandwidth: int = 1, **options: Any) -> None:
        super().__init__(model, form=BandedForm(bandwidth), **options)
