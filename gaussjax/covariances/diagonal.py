"""Diagonal covariance from standard deviations: Σ = diag(scale²).

>>> Diagonal(jnp.array([1.0, 2.0])).variance()
Array([1., 4.], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, Indices, log_density
from gaussjax.linalg.ranges import divided, quotient
from gaussjax.linalg.semidefinite import OnSupport
from gaussjax.linalg.triangular import logdet_of_diagonal


class DiagonalRoot(Covariance):
    """A covariance whose root is a diagonal. Every member is O(d) where the derived one is not."""

    def _root(self) -> Float[Array, " d"]:
        """Standard deviations."""
        raise NotImplementedError

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """σ ⊙ ε."""
        return self._root() * noise

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """v / σ, NaN where a σ is zero."""
        root = self._root()
        return quotient(vector, jnp.where(jnp.any(root == 0), jnp.nan, root))

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """‖v / σ‖²; where σ is zero, zero or infinite as v is zero or not."""
        return jnp.sum(jnp.square(divided(vector, self._root())))

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log σᵢ."""
        return 2 * logdet_of_diagonal(self._root())

    def rank(self) -> Int[Array, ""]:
        """How many σ are not zero. O(d)"""
        return jnp.sum(self._root() != 0)

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """Of those coordinates. O(d)"""
        root = self._root()
        logdet = 2 * logdet_of_diagonal(jnp.where(root == 0, 1.0, root))
        return OnSupport(self.inv_quad(vector), logdet, self.rank().astype(root.dtype))

    def pivots(self) -> Array:
        """σ."""
        return self._root()

    def covariance_root(self) -> Float[Array, " d"]:
        """σ."""
        return self._root()

    def precision_root(self) -> Float[Array, " d"]:
        """1 / σ, NaN where a σ is zero."""
        root = self._root()
        return quotient(jnp.ones_like(root), jnp.where(jnp.any(root == 0), jnp.nan, root))

    def thin_parts(self) -> tuple[Array, Array]:
        """σ and no columns."""
        root = self._root()
        return root, jnp.zeros((self.dim, 0), root.dtype)

    def precision_diagonals(self) -> Float[Array, "1 d"]:
        """1 / σ²."""
        return jnp.square(self.precision_root())[None]

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Diagonal with the sum of the variances, if both are diagonal."""
        root = other.covariance_root()
        return None if root is None or root.ndim > 1 else Diagonal(jnp.hypot(self._root(), root))

    def rescaled(self, factor: Array, /) -> Covariance:
        """|f| ⊙ σ."""
        return Diagonal(jnp.abs(factor) * self._root())

    def marginal(self, indices: Indices, /) -> Covariance:
        """Some of the deviations."""
        return Diagonal(self._root()[indices])

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional:
        """Independent of what is given."""
        kept_law, given_law = self.marginal(kept), self.marginal(given)
        mean = jnp.zeros(kept_law.dim, values.dtype)
        return Conditional(mean, kept_law, log_density(given_law, values))

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """The values, and σ elsewhere."""
        seen = Diagonal(jnp.where(mask, self._root(), 1.0))
        evidence = log_density(seen, values, jnp.sum(mask, dtype=values.dtype))
        return Conditional(values, Diagonal(jnp.where(mask, 0.0, self._root())), evidence)

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Entry by entry, if the noise is diagonal too: variance (1/σ² + 1/τ²)⁻¹."""
        sigma, tau = self._root(), noise.covariance_root()
        if tau is None or tau.ndim > 1:
            return None
        both = jnp.hypot(sigma, tau)
        gain = jnp.square(sigma / both)
        evidence = log_density(Diagonal(both), value)
        return Conditional(gain * value, Diagonal(sigma * (tau / both)), evidence)

    def stddev(self) -> Float[Array, " d"]:
        """The root, whose square may leave the range of the dtype."""
        return jnp.abs(self._root())

    def variance(self) -> Float[Array, " d"]:
        """σ². O(d), not O(d²)."""
        return jnp.square(self._root())

    def precision_diagonal(self) -> Float[Array, " d"]:
        """1/σ². O(d), not O(d²)."""
        return jnp.square(self.precision_root())

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """σ², and zero off the diagonal. O(d), not O(d²)."""
        return jnp.pad(self.variance()[None], ((0, width), (0, 0)))

    def dense(self) -> Float[Array, "d d"]:
        """diag(σ²). O(d²), not O(d³)."""
        return jnp.diag(self.variance())

    def dense_precision(self) -> Float[Array, "d d"]:
        """diag(1/σ²). O(d²), not O(d³)."""
        return jnp.diag(jnp.square(self.precision_root()))

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """σ ⊙ ε: a diagonal is its own symmetric root. O(d), not O(d³)."""
        return self.color(noise)


@structure
class Diagonal(DiagonalRoot):
    """Σ = diag(scale²), `scale` the standard deviations `(..., d)`."""

    scale: Float[Array, "... d"] = leaf(rank=1)

    @property
    def dim(self) -> int:
        """Length of `scale`."""
        return self.scale.shape[-1]

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """F = 2/σ²."""
        return Diagonal(0.5 * jnp.square(self.scale) * cotangent.scale)

    def _root(self) -> Float[Array, " d"]:
        """`scale`."""
        return self.scale
