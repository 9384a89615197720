"""gaussjax: Gaussians in JAX, as pure functions over pytrees."""

from gaussjax import checks, linalg, parametrize, testing
from gaussjax.covariances import (
    Cholesky,
    Covariance,
    Diagonal,
    Isotropic,
    PrecisionCholesky,
)
from gaussjax.divergences import cross_entropy, kl_divergence, logdet_divergence
from gaussjax.gaussian import (
    Gaussian,
    batch_shape,
    color,
    color_symmetric,
    covariance,
    dim,
    entropy,
    from_cholesky,
    from_covariance,
    from_precision,
    from_scale,
    from_variance,
    log_prob,
    mahalanobis,
    mean,
    precision,
    sample,
    sample_and_log_prob,
    score,
    standard,
    stddev,
    variance,
    whiten,
)

__version__ = "0.1.0"

__all__ = [
    # Structures
    "Cholesky",
    "Covariance",
    "Diagonal",
    "Isotropic",
    "PrecisionCholesky",
    # Gaussians
    "Gaussian",
    "from_cholesky",
    "from_covariance",
    "from_precision",
    "from_scale",
    "from_variance",
    "standard",
    # Samples
    "color",
    "color_symmetric",
    "sample",
    "sample_and_log_prob",
    "whiten",
    # Densities
    "entropy",
    "log_prob",
    "mahalanobis",
    "score",
    # Moments
    "batch_shape",
    "covariance",
    "dim",
    "mean",
    "precision",
    "stddev",
    "variance",
    # Divergences
    "cross_entropy",
    "kl_divergence",
    "logdet_divergence",
    # Modules
    "checks",
    "linalg",
    "parametrize",
    "testing",
]
