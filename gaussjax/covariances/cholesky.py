"""Dense covariance from its lower Cholesky factor: Σ = L Lᵀ.

>>> Cholesky(jnp.array([[2.0, 0.0], [1.0, 1.0]])).dense()
Array([[4., 2.],
       [2., 2.]], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, Indices, log_normal
from gaussjax.linalg._kernels import small
from gaussjax.linalg.factor import half_triangle
from gaussjax.linalg.laws.conditional import Conditioned, condition_triangle
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.triangular import (
    inv_quad_lower,
    logdet_of_triangle,
    solve,
)
from gaussjax.linalg.vector_products import lower_times_vector


@structure
class Cholesky(Covariance):
    """Σ = L Lᵀ, `lower` `(..., d, d)` with a positive diagonal; entries above it are not read."""

    lower: Float[Array, "... d d"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Rows of `lower`."""
        return self.lower.shape[-1]

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε. O(d²)"""
        return lower_times_vector(self.lower, noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v, NaN where a pivot is zero. O(d²)"""
        factor = jnp.where(small.is_regular(self.lower), 1.0, jnp.nan)
        return solve(self.lower, vector) * factor.astype(vector.dtype)

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log Lᵢᵢ. O(d)"""
        return 2 * logdet_of_triangle(self.lower)

    def pivots(self) -> Array:
        """The diagonal of L."""
        return small.diagonal(self.lower)

    def covariance_root(self) -> Float[Array, "d d"]:
        """L."""
        return self.lower

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """‖L⁻¹v‖², ∞ off the support where columns of L are zero."""
        return inv_quad_lower(self.lower, vector)

    def dense_factor(self) -> Float[Array, "d d"]:
        """L itself: O(d²), not O(d³)."""
        return jnp.tril(self.lower)

    def variance(self) -> Float[Array, " d"]:
        """Squared lengths of the rows of L. O(d²), not O(d³)."""
        return jnp.sum(jnp.square(jnp.tril(self.lower)), axis=1)

    def stddev(self) -> Float[Array, " d"]:
        """Lengths of the rows of L, even if their squares leave the range of the dtype."""
        return lengths(jnp.tril(self.lower))

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀ v. O(d²), without the detour over a derivative of L ε"""
        return dot(jnp.tril(self.lower).T, vector)

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """L Φ(Lᵀc). O(d³)

        With X = L⁻¹dL the metric is ⟨X, X⟩ + Σ Xᵢᵢ², so that F dL is the lower part of
        L⁻ᵀ(X + diag X), and Lᵀ times that has the lower part X + diag X.
        """
        lower = jnp.tril(self.lower)
        change = dot(lower, half_triangle(dot(lower.T, jnp.tril(cotangent.lower))))
        return Cholesky(change)

    def rescaled(self, factor: Array, /) -> Covariance:
        """diag(f) L, with columns turned so that its diagonal stays positive."""
        rows = jnp.broadcast_to(factor, (self.dim,))
        signs = jnp.where(rows < 0, -1.0, 1.0).astype(rows.dtype)
        return Cholesky(rows[:, None] * jnp.tril(self.lower) * signs[None])

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional | None:
        """By rotations of the columns of L where positions are static. O(d³)"""
        if not isinstance(kept, np.ndarray):
            return None
        order = {"kept": tuple(kept.tolist()), "given": tuple(np.asarray(given).tolist())}
        return conditional_of(condition_triangle(self.lower, values, **order), values)


def conditional_of(parts: Conditioned, values: Float[Array, " m"], /) -> Conditional:
    """The law of what is kept, and the density of the values given."""
    evidence = log_normal(parts.distance, parts.logdet, len(values))
    return Conditional(parts.mean, Cholesky(parts.root), evidence)
