"""Covariance structures: one file each, and what a structure of your own needs."""

from gaussjax._struct import leaf, nested, static, structure
from gaussjax.covariances.banded_precision import BandedPrecision
from gaussjax.covariances.base import Conditional, Covariance
from gaussjax.covariances.block_diagonal import BlockDiagonal
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.circulant import Circulant
from gaussjax.covariances.diagonal import Diagonal
from gaussjax.covariances.isotropic import Isotropic
from gaussjax.covariances.kronecker import Kronecker
from gaussjax.covariances.kronecker_plus_diagonal import KroneckerPlusDiagonal
from gaussjax.covariances.low_rank import LowRank
from gaussjax.covariances.precision import PrecisionCholesky
from gaussjax.covariances.root import Root
from gaussjax.covariances.scaled import Scaled
from gaussjax.covariances.sharded_cholesky import ShardedCholesky
from gaussjax.covariances.stacked_blocks import StackedBlocks
from gaussjax.covariances.sum import Sum
from gaussjax.covariances.toeplitz import Toeplitz

__all__ = [
    "BandedPrecision",
    "BlockDiagonal",
    "Cholesky",
    "Circulant",
    "Conditional",
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
    "leaf",
    "nested",
    "static",
    "structure",
]
