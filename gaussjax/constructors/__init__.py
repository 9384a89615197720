"""Gaussians from what users have: a mean, and a covariance in some form.

Leading axes are batch and broadcast between mean and covariance; a mean that is one number stands
for all coordinates. Values are checked where they are known (a bad one is a ValueError); under
`jit` an element of a batch with a bad value is NaN.
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
