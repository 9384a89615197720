"""gaussjax: Gaussians in JAX, as pure functions over pytrees."""

from gaussjax import checks, linalg, parametrize, testing
from gaussjax.algebra import add, logdet, matvec, solve, trace_solve
from gaussjax.batches import broadcast_to, concatenate, reshape, stack, take
from gaussjax.constructors import (
    from_banded_precision,
    from_block_diagonal,
    from_cholesky,
    from_circulant,
    from_covariance,
    from_isotropic,
    from_kronecker,
    from_low_rank,
    from_precision,
    from_root,
    from_scale,
    from_semidefinite,
    from_sharded_covariance,
    from_toeplitz,
    from_variance,
    standard,
)
from gaussjax.covariances import (
    BandedPrecision,
    BlockDiagonal,
    Cholesky,
    Circulant,
    Covariance,
    Diagonal,
    Isotropic,
    Kronecker,
    KroneckerPlusDiagonal,
    LowRank,
    PrecisionCholesky,
    Root,
    Scaled,
    ShardedCholesky,
    StackedBlocks,
    Sum,
    Toeplitz,
)
from gaussjax.divergences import cross_entropy, kl_divergence, logdet_divergence
from gaussjax.estimation import Moments, fit, merge_moments, merge_moments_over, moments
from gaussjax.gaussian import (
    Gaussian,
    batch_shape,
    color,
    color_symmetric,
    covariance,
    dim,
    entropy,
    log_prob,
    mahalanobis,
    mean,
    precision,
    sample,
    sample_and_log_prob,
    score,
    stddev,
    variance,
    whiten,
)
from gaussjax.missing import condition_where, impute, log_prob_observed
from gaussjax.observations import Posterior, Product, joint, observe, product, smooth_step
from gaussjax.singular import log_prob_on_support, rank
from gaussjax.transforms import (
    affine,
    as_cholesky,
    condition,
    convolve,
    marginal,
    scale_by,
    shift,
)

__version__ = "0.1.0"

__all__ = [
    # Structures
    "BandedPrecision",
    "BlockDiagonal",
    "Cholesky",
    "Circulant",
    "Covariance",
    "Diagonal",
    "Isotropic",
    "Kronecker",
    "KroneckerPlusDiagonal",
    "LowRank",
    "ShardedCholesky",
    "PrecisionCholesky",
    "Root",
    "Scaled",
    "StackedBlocks",
    "Sum",
    "Toeplitz",
    # Gaussians
    "Gaussian",
    "from_banded_precision",
    "from_block_diagonal",
    "from_cholesky",
    "from_circulant",
    "from_covariance",
    "from_isotropic",
    "from_kronecker",
    "from_low_rank",
    "from_sharded_covariance",
    "from_precision",
    "from_root",
    "from_scale",
    "from_semidefinite",
    "from_toeplitz",
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
    # Covariances
    "add",
    "logdet",
    "matvec",
    "solve",
    "trace_solve",
    # Gaussian in, Gaussian out
    "Posterior",
    "Product",
    "affine",
    "as_cholesky",
    "condition",
    "condition_where",
    "convolve",
    "joint",
    "marginal",
    "observe",
    "product",
    "scale_by",
    "shift",
    "smooth_step",
    # Batches
    "broadcast_to",
    "concatenate",
    "reshape",
    "stack",
    "take",
    # Missing data
    "impute",
    "log_prob_observed",
    # Estimation
    "Moments",
    "fit",
    "merge_moments",
    "merge_moments_over",
    "moments",
    # Singular laws
    "log_prob_on_support",
    "rank",
    # Modules
    "checks",
    "linalg",
    "parametrize",
    "testing",
]
