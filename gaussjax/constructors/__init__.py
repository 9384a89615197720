"""Constructors: a Gaussian from a mean and some form of its covariance.

Leading axes are batch and broadcast between mean and covariance; a scalar mean stands for all
coordinates. Concrete values are checked (a bad one raises ValueError); under `jit` an element of a
batch with a bad value is NaN.
"""

from gaussjax.constructors.matrices import (
    from_cholesky,
    from_covariance,
    from_precision,
    from_root,
    from_semidefinite,
    from_sharded_covariance,
    standard,
)
from gaussjax.constructors.structures import (
    from_banded_precision,
    from_block_diagonal,
    from_circulant,
    from_isotropic,
    from_kronecker,
    from_low_rank,
    from_scale,
    from_toeplitz,
    from_variance,
)

__all__ = [
    "from_banded_precision",
    "from_block_diagonal",
    "from_cholesky",
    "from_circulant",
    "from_covariance",
    "from_isotropic",
    "from_kronecker",
    "from_low_rank",
    "from_precision",
    "from_root",
    "from_scale",
    "from_semidefinite",
    "from_sharded_covariance",
    "from_toeplitz",
    "from_variance",
    "standard",
]
