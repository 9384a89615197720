"""Covariance structures: one file each, and what a structure of your own needs."""

from gaussjax._struct import leaf, nested, static, structure
from gaussjax.covariances.base import Covariance
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.diagonal import Diagonal
from gaussjax.covariances.isotropic import Isotropic
from gaussjax.covariances.precision import PrecisionCholesky

__all__ = [
    "Cholesky",
    "Covariance",
    "Diagonal",
    "Isotropic",
    "PrecisionCholesky",
    "leaf",
    "nested",
    "static",
    "structure",
]
