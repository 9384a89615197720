"""Gaussians from data: weighted, streamed, shrunk, with holes, robust."""

from gaussjax.estimation import normal_inverse_wishart, student_t
from gaussjax.estimation.factors import factor_analysis
from gaussjax.estimation.holes import Pooled, em_step, fit_missing, pool_imputations
from gaussjax.estimation.likelihood import fit
from gaussjax.estimation.nonlinear import nonlinear_shrinkage, shrunk_eigenvalues
from gaussjax.estimation.normal_inverse_wishart import NormalInverseWishart
from gaussjax.estimation.priors import (
    inverse_wishart_log_prob,
    lkj_log_prob,
    wishart_log_prob,
)
from gaussjax.estimation.shrinkage import (
    constant_correlation,
    constant_correlation_shrinkage,
    ledoit_wolf,
    ledoit_wolf_shrinkage,
    oas,
    oas_shrinkage,
)
from gaussjax.estimation.statistics import (
    ConfidenceRegion,
    aic,
    bic,
    confidence_region,
    correlation,
    outliers,
    partial_correlation,
)
from gaussjax.estimation.streams import Moments, merge_moments, merge_moments_over, moments
from gaussjax.estimation.student_t import StudentT

__all__ = [
    "ConfidenceRegion",
    "Moments",
    "NormalInverseWishart",
    "Pooled",
    "StudentT",
    "aic",
    "bic",
    "confidence_region",
    "constant_correlation",
    "constant_correlation_shrinkage",
    "correlation",
    "em_step",
    "factor_analysis",
    "fit",
    "fit_missing",
    "inverse_wishart_log_prob",
    "ledoit_wolf",
    "ledoit_wolf_shrinkage",
    "lkj_log_prob",
    "merge_moments",
    "merge_moments_over",
    "moments",
    "nonlinear_shrinkage",
    "normal_inverse_wishart",
    "oas",
    "oas_shrinkage",
    "outliers",
    "partial_correlation",
    "pool_imputations",
    "shrunk_eigenvalues",
    "student_t",
    "wishart_log_prob",
]
