"""The structures under test: a new one is one more line here."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

import gaussjax as gj

Case = tuple[gj.Covariance, np.ndarray]  # a structure and the Σ it stands for, in float64


def random_lower(rng: np.random.Generator, d: int, dtype=np.float32) -> np.ndarray:
    """A well-conditioned Cholesky factor."""
    lower = np.tril(rng.normal(size=(d, d)) / np.sqrt(d + 1), -1)
    return (lower + np.diag(rng.uniform(0.7, 1.5, d))).astype(dtype)


def _isotropic(rng, d, dtype) -> Case:
    scale = np.asarray(rng.uniform(0.5, 2.0), dtype)
    return gj.Isotropic(jnp.asarray(scale), d), float(scale) ** 2 * np.eye(d)


def _diagonal(rng, d, dtype) -> Case:
    scale = rng.uniform(0.5, 2.0, d).astype(dtype)
    return gj.Diagonal(jnp.asarray(scale)), np.diag(scale.astype(float) ** 2)


def _cholesky(rng, d, dtype) -> Case:
    lower = random_lower(rng, d, dtype)
    return gj.Cholesky(jnp.asarray(lower)), lower.astype(float) @ lower.T.astype(float)


def _precision(rng, d, dtype) -> Case:
    lower = random_lower(rng, d, dtype)
    return gj.PrecisionCholesky(jnp.asarray(lower)), np.linalg.inv(
        lower.astype(float) @ lower.T.astype(float)
    )


STRUCTURES: dict[str, Callable[..., Case]] = {
    "isotropic": _isotropic,
    "diagonal": _diagonal,
    "cholesky": _cholesky,
    "precision": _precision,
}
