"""Any root: Σ = F Fᵀ, singular where the rows of F depend on each other.

>>> Root(jnp.array([[1.0], [2.0]])).dense()
Array([[1., 2.],
       [2., 4.]], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Covariance, Indices, any_root, narrow_root
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.linalg import semidefinite
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths


@structure
class Root(Covariance):
    """Σ = F Fᵀ, `factor` F `(..., d, k)` with any number of columns.

    With d independent rows it is like any covariance. With fewer the law is singular: it has
    samples, moments, maps and sums, and a density only on its support.
    """

    factor: Float[Array, "... d k"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Rows of `factor`."""
        return self.factor.shape[-2]

    @property
    def num_parameters(self) -> int:
        """Those of F, whose columns may be turned: d k − k (k − 1)/2."""
        k = min(self.factor.shape[-1], self.dim)
        return self.dim * k - k * (k - 1) // 2

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε for the lower L with L Lᵀ = F Fᵀ. O(d²) after O(d² k) once"""
        return dot(self.covariance_root(), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v, NaN where the law is singular. O(d²) after O(d² k) once"""
        return self._squared().whiten(vector)

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log Lᵢᵢ, −∞ where the law is singular. O(d² k)"""
        return self._squared().logdet()

    def pivots(self) -> Array:
        """Sizes of the entries."""
        return jnp.abs(self.factor).ravel()

    def covariance_root(self) -> Float[Array, "d d"]:
        """L, its pivots exactly zero where rows of F depend. O(d² k)"""
        return semidefinite.rank_revealing_root(self.factor)

    def rectangular_root(self) -> Float[Array, "d k"]:
        """F."""
        return self.factor

    def thin_parts(self) -> tuple[Array, Array] | None:
        """No scale, and F where it has fewer columns than rows."""
        d, k = self.factor.shape
        return (jnp.zeros(d, self.factor.dtype), self.factor) if k < d else None

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """‖F⁺v‖² on the support, ∞ off it. O(d² k)"""
        return self._squared().inv_quad(vector)

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """½ Σ c, one of many. O(d k²)

        A loss of Σ with the gradient S has c = 2 S F, and the change of Σ is 2 Σ S Σ.
        """
        return Root(0.5 * dot(self.factor, dot(self.factor.T, cotangent.factor)))

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Columns join: by QR into a square root, once there are more of them than rows. O(d² k)

        With what has a root, if this may be singular: no triangle can follow it.
        """
        if not (isinstance(other, Root) or (narrow_root(self) is not None and other.has_root)):
            return None
        return root_of(jnp.concatenate([self.factor, any_root(other)], axis=1))

    def rescaled(self, factor: Array, /) -> Covariance:
        """Rows scale."""
        return Root(jnp.broadcast_to(factor, (self.dim,))[:, None] * self.factor)

    def mapped(self, matrix: Float[Array, "m d"], /) -> Covariance:
        """A F."""
        return Root(dot(matrix, self.factor))

    def marginal(self, indices: Indices, /) -> Covariance:
        """Some of the rows."""
        return Root(self.factor[indices])

    @property
    def noise_dim(self) -> int:
        """Columns of F."""
        return self.factor.shape[-1]

    def draw(self, noise: Float[Array, " k"], /) -> Float[Array, " d"]:
        """F ε. O(d k)"""
        return dot(self.factor, noise)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """F Fᵀv. O(d k)"""
        return dot(self.factor, dot(self.factor.T, vector))

    def stddev(self) -> Float[Array, " d"]:
        """Lengths of the rows, even if their squares leave the range of the dtype. O(d k)"""
        return lengths(self.factor)

    def variance(self) -> Float[Array, " d"]:
        """Squared lengths of the rows. O(d k)"""
        return jnp.sum(jnp.square(self.factor), axis=1)

    def _squared(self) -> Cholesky:
        return Cholesky(self.covariance_root())


def root_of(factor: Float[Array, "d k"], /) -> Root:
    """F Fᵀ, by a square root once F has more columns than rows. O(d² k)"""
    wide = factor.shape[1] > factor.shape[0]
    return Root(semidefinite.square_root(factor) if wide else factor)
