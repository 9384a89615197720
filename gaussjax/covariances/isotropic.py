"""Isotropic covariance: Σ = scale² I.

>>> Isotropic(jnp.float32(2.0), dim=3).variance()
Array([4., 4., 4.], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, static, structure
from gaussjax.covariances.base import Covariance, Indices
from gaussjax.covariances.diagonal import DiagonalRoot


@structure
class Isotropic(DiagonalRoot):
    """Σ = scale² I, `scale` one standard deviation `(...)`, in `dim` dimensions."""

    scale: Float[Array, "..."] = leaf(rank=0)
    dim: int = static()

    def _root(self) -> Float[Array, " d"]:
        """`scale` in every dimension."""
        return jnp.broadcast_to(self.scale, (self.dim,))

    def toeplitz_column(self) -> Float[Array, " d"]:
        """(scale², 0, …, 0)."""
        return jnp.where(jnp.arange(self.dim) == 0, jnp.square(self.scale), 0.0)

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """F = 2d/σ²."""
        share = 0.5 / max(self.dim, 1)
        return Isotropic(share * jnp.square(self.scale) * cotangent.scale, self.dim)

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Isotropic again, if both are."""
        if isinstance(other, Isotropic):
            return Isotropic(jnp.hypot(self.scale, other.scale), self.dim)
        return super().plus(other)

    def rescaled(self, factor: Array, /) -> Covariance:
        """Isotropic again, if all coordinates are scaled alike."""
        if factor.ndim == 0:
            return Isotropic(jnp.abs(factor) * self.scale, self.dim)
        return super().rescaled(factor)

    def marginal(self, indices: Indices, /) -> Covariance:
        """The same in fewer dimensions."""
        return Isotropic(self.scale, len(indices))
