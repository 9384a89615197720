"""NumPyro: Gaussians as distributions, its normals as Gaussians, and guides that end in one.

>>> import jax
>>> import gaussjax as gj
>>> d = to_numpyro(gj.from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
>>> d.batch_shape, d.event_shape, d.sample(jax.random.key(0), (5,)).shape
((), (2,), (5, 2))
"""

from gaussjax.adapters._extras import missing

try:
    import numpyro as _  # noqa: F401  (whether it is there)
except ImportError as _error:
    raise missing("numpyro", _error) from _error

from gaussjax.adapters.numpyro.distributions import (
    GaussianDistribution,
    from_numpyro,
    to_numpyro,
)
from gaussjax.adapters.numpyro.guides import AutoBanded, AutoCholesky, AutoGaussian, AutoLowRank

__all__ = [
    "AutoBanded",
    "AutoCholesky",
    "AutoGaussian",
    "AutoLowRank",
    "GaussianDistribution",
    "from_numpyro",
    "to_numpyro",
]
