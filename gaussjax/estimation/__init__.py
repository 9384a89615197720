"""Gaussians from data: at once, weighted, streamed, shrunk, with holes, robustly."""

from gaussjax.estimation.likelihood import fit
from gaussjax.estimation.streams import Moments, merge_moments, merge_moments_over, moments

__all__ = ["Moments", "fit", "merge_moments", "merge_moments_over", "moments"]
