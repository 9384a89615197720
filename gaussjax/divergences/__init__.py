"""Distances between two Gaussians, and dependence between the coordinates of one."""

from gaussjax.divergences.fisher import fisher_vector_product, natural_gradient
from gaussjax.divergences.fisher_rao import (
    FisherRaoBounds,
    fisher_rao_bounds,
    fisher_rao_distance,
)
from gaussjax.divergences.information import mutual_information, total_correlation
from gaussjax.divergences.jensen_shannon import (
    Estimate,
    jensen_shannon_divergence,
    jensen_shannon_estimate,
)
from gaussjax.divergences.kl import (
    DecoupledKL,
    cross_entropy,
    decoupled_kl,
    jeffreys_divergence,
    kl_divergence,
    logdet_divergence,
)
from gaussjax.divergences.mmd import maximum_mean_discrepancy
from gaussjax.divergences.renyi import (
    bhattacharyya_distance,
    chi_squared_divergence,
    hellinger_distance,
    renyi_divergence,
)
from gaussjax.divergences.wasserstein import (
    frechet_distance,
    wasserstein2,
    wasserstein2_barycenter,
    wasserstein2_map,
)

__all__ = [
    "DecoupledKL",
    "Estimate",
    "FisherRaoBounds",
    "bhattacharyya_distance",
    "chi_squared_divergence",
    "cross_entropy",
    "decoupled_kl",
    "fisher_rao_bounds",
    "fisher_rao_distance",
    "fisher_vector_product",
    "frechet_distance",
    "hellinger_distance",
    "jeffreys_divergence",
    "jensen_shannon_divergence",
    "jensen_shannon_estimate",
    "kl_divergence",
    "logdet_divergence",
    "maximum_mean_discrepancy",
    "mutual_information",
    "natural_gradient",
    "renyi_divergence",
    "total_correlation",
    "wasserstein2",
    "wasserstein2_barycenter",
    "wasserstein2_map",
]
