"""Dense covariance from its lower Cholesky factor: Σ = L Lᵀ.

>>> Cholesky(jnp.array([[2.0, 0.0], [1.0, 1.0]])).dense()
Array([[4., 2.],
       [2., 2.]], dtype=float32)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Covariance
from gaussjax.linalg.products import lower_times_vector
from gaussjax.linalg.triangular import (
    inv_quad_lower,
    logdet_of_diagonal,
    solve,
)


@structure
class Cholesky(Covariance):
    """Σ = L Lᵀ, `lower` `(..., d, d)` with a positive diagonal; above it nothing is read."""

    lower: Float[Array, "... d d"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Rows of `lower`."""
        return self.lower.shape[-1]

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε. O(d²)"""
        return lower_times_vector(self.lower, noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v. O(d²)"""
        return solve(self.lower, vector)

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log Lᵢᵢ. O(d)"""
        return 2 * logdet_of_diagonal(jnp.diagonal(self.lower))

    def covariance_root(self) -> Float[Array, "d d"]:
        """L."""
        return self.lower

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """‖L⁻¹v‖² in one pass that does not store L⁻¹v."""
        return inv_quad_lower(self.lower, vector)

    def factor(self) -> Float[Array, "d d"]:
        """L itself: O(d²), not O(d³)."""
        return jnp.tril(self.lower)
