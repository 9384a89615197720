"""Gaussians from data: at once, weighted, streamed, shrunk, with holes, robustly."""

from gaussjax.estimation.likelihood import fit
from gaussjax.estimation.nonlinear import nonlinear_shrinkage, shrunk_eigenvalues
from gaussjax.estimation.shrinkage import (
    constant_correlation,
    constant_correlation_shrinkage,
    ledoit_wolf,
    ledoit_wolf_shrinkage,
    oas,
    oas_shrinkage,
)
from gaussjax.estimation.streams import Moments, merge_moments, merge_moments_over, moments

__all__ = [
    "Moments",
    "constant_correlation",
    "constant_correlation_shrinkage",
    "fit",
    "ledoit_wolf",
    "ledoit_wolf_shrinkage",
    "merge_moments",
    "merge_moments_over",
    "moments",
    "nonlinear_shrinkage",
    "oas",
    "oas_shrinkage",
    "shrunk_eigenvalues",
]
