"""Isotropic covariance: Σ = scale² I.

>>> Isotropic(jnp.float32(2.0), dim=3).variance()
Array([4., 4., 4.], dtype=float32)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, static, structure
from gaussjax.covariances.diagonal import DiagonalRoot


@structure
class Isotropic(DiagonalRoot):
    """Σ = scale² I, `scale` one standard deviation `(...)`, in `dim` dimensions."""

    scale: Float[Array, "..."] = leaf(rank=0)
    dim: int = static()

    def root(self) -> Float[Array, " d"]:
        """`scale` in every dimension."""
        return jnp.broadcast_to(self.scale, (self.dim,))
