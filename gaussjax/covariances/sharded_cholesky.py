"""Dense covariance too large for one device: Σ = L Lᵀ, the rows of L sharded over a mesh axis.

>>> import jax
>>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
...     print(ShardedCholesky(jnp.array([[2.0, 0.0], [1.0, 1.0]]), axis="rows").dense())
[[4. 2.]
 [2. 2.]]
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, static, structure
from gaussjax.covariances import pairs
from gaussjax.covariances.base import Covariance, dtype_of
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.linalg.laws.divergence import divergence_of_roots
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.sharded import triangles
from gaussjax.linalg.triangular import logdet_of_diagonal


@structure
class ShardedCholesky(Covariance):
    """Σ = L Lᵀ, `lower` `(..., d, d)` as in `Cholesky`, its rows over `axis` of the mesh.

    Each of n devices holds d²/n numbers, and a small multiple of that while it computes; so do
    gradients, and divergences between two on one axis or to and from diagonals. Functions without a
    rule here (marginals, conditionals, sums, divergences to other structures) bring all of L to
    every device.
    """

    lower: Float[Array, "... d d"] = leaf(rank=2)
    axis: triangles.Axis = static()

    @property
    def dim(self) -> int:
        """Rows of `lower`."""
        return self.lower.shape[-1]

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε, every device its rows."""
        return triangles.product(self._lower(), noise, self.axis)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v."""
        return triangles.solve(self.lower, vector, self.axis)

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log Lᵢᵢ."""
        return 2 * logdet_of_diagonal(self._diagonal())

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""]:
        """By E = K⁻¹(L − K), if `other` is on the same axis, or diagonal; else from all of L."""
        if isinstance(other, ShardedCholesky) and other.axis == self.axis:
            return other._divergence_of(self.lower, self._diagonal())
        scale = _deviations(other)
        if scale is None:
            return pairs.divergence(self._whole(), other)
        strict = triangles.triangle(self.lower, self.axis, diagonal=0.0) / scale[:, None]
        return _divergence(self._diagonal(), scale, strict)

    def divergence_from(self, other: Covariance, /) -> Float[Array, ""]:
        """By E again from a diagonal, else from all of L."""
        scale = _deviations(other)
        if scale is None:
            return pairs.divergence(other, self._whole())
        return self._divergence_of(triangles.diagonal_matrix(scale, self.axis), scale)

    def trace_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """‖K⁻¹L‖², if `other` is one on the same axis, or diagonal."""
        scale = _deviations(other)
        if scale is not None:
            ratio = self._lower() / scale[:, None]
        elif isinstance(other, ShardedCholesky) and other.axis == self.axis:
            ratio = triangles.solve(other.lower, self._lower(), self.axis)
        else:
            return None
        return jnp.sum(jnp.square(triangles.triangle(ratio, self.axis)))

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀ v, of a vector that every device has."""
        return super().color_transpose(triangles.whole(vector, self.axis))

    def plus(self, other: Covariance, /) -> Covariance | None:
        """From all of L: the root of a sum is not sharded."""
        return pairs.add(self._whole(), other)

    def rescaled(self, factor: Array, /) -> Covariance:
        """diag(f) L, with columns turned so that its diagonal stays positive."""
        rows = jnp.broadcast_to(factor, (self.dim,))
        lower = rows[:, None] * self._lower() * jnp.sign(rows)[None]
        return ShardedCholesky(lower, self.axis)

    def variance(self) -> Float[Array, " d"]:
        """Squared lengths of the rows of L. O(d²), not O(d³)"""
        lengths = jnp.sum(jnp.square(self._lower()), axis=1)
        return triangles.whole(lengths, self.axis)

    def stddev(self) -> Float[Array, " d"]:
        """Lengths of the rows of L. O(d²), not O(d³)"""
        return triangles.whole(lengths(self._lower()), self.axis)

    def dense_factor(self) -> Float[Array, "d d"]:
        """All of L on every device."""
        return triangles.whole(self._lower(), self.axis)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """From all of L: eigenvectors are not sharded."""
        return self._whole().color_symmetric(noise)

    def dense(self) -> Float[Array, "d d"]:
        """Σ, rows over the axis: no device holds it all."""
        return triangles.gram(self._lower(), self.axis)

    def dense_precision(self) -> Float[Array, "d d"]:
        """Σ⁻¹, rows over the axis: no device holds it all."""
        one = triangles.diagonal_matrix(jnp.ones(self.dim, dtype_of(self)), self.axis)
        whitener = triangles.solve(self.lower, one, self.axis)
        return triangles.gram(triangles.transposed(whitener, self.axis), self.axis)

    def _whole(self) -> Cholesky:
        return Cholesky(self.dense_factor())

    def _lower(self) -> Array:
        return triangles.triangle(self.lower, self.axis)

    def _diagonal(self) -> Array:
        return triangles.diagonal(self.lower, self.axis)

    def _divergence_of(self, root: Array, diagonal: Array) -> Array:
        """D(A, Σ) from the rows of a triangular root of A."""
        difference = triangles.triangle(root - self.lower, self.axis)
        e = triangles.solve(self.lower, difference, self.axis)
        strict = triangles.triangle(e, self.axis, diagonal=0.0)
        return _divergence(diagonal, self._diagonal(), strict)


def _deviations(cov: Covariance) -> Array | None:
    """Standard deviations of a covariance that has a diagonal root."""
    root = cov.covariance_root()
    return root if root is not None and root.ndim == 1 else None


def _divergence(a: Array, b: Array, strict: Array) -> Array:
    """As `linalg.divergence` has it, from both diagonals and the strictly lower part of E."""
    return divergence_of_roots(a, b, jnp.zeros_like(a)) + jnp.sum(jnp.square(strict))
