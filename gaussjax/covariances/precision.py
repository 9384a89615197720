"""Dense covariance from the Cholesky factor of its inverse: Σ⁻¹ = L Lᵀ.

>>> PrecisionCholesky(jnp.array([[2.0, 0.0], [0.0, 1.0]])).dense()
Array([[0.25, 0.  ],
       [0.  , 1.  ]], dtype=float32)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Covariance
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.triangular import logdet_of_diagonal, solve


@structure
class PrecisionCholesky(Covariance):
    """Σ⁻¹ = L Lᵀ, `lower` `(..., d, d)` with a positive diagonal; above it nothing is read."""

    lower: Float[Array, "... d d"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Rows of `lower`."""
        return self.lower.shape[-1]

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻ᵀ ε. O(d²)"""
        return solve(self.lower, noise, transpose=True)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀ v. O(d²)"""
        return dot(jnp.tril(self.lower).T, vector)

    def logdet(self) -> Float[Array, ""]:
        """−2 Σ log Lᵢᵢ. O(d)"""
        return -2 * logdet_of_diagonal(jnp.diagonal(self.lower))

    def precision_root(self) -> Float[Array, "d d"]:
        """L."""
        return self.lower

    def dense_precision(self) -> Float[Array, "d d"]:
        """L Lᵀ, without the detour over d products with the identity."""
        return gram(jnp.tril(self.lower))
