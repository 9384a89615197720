"""Diagonal covariance from standard deviations: Σ = diag(scale²).

>>> Diagonal(jnp.array([1.0, 2.0])).variance()
Array([1., 4.], dtype=float32)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Covariance
from gaussjax.linalg.triangular import logdet_of_diagonal


class DiagonalRoot(Covariance):
    """A covariance whose root is a diagonal. Every member is O(d) where the derived one is not."""

    def root(self) -> Float[Array, " d"]:
        """Standard deviations."""
        raise NotImplementedError

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """σ ⊙ ε."""
        return self.root() * noise

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """V / σ."""
        return vector / self.root()

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log σᵢ."""
        return 2 * logdet_of_diagonal(self.root())

    def covariance_root(self) -> Float[Array, " d"]:
        """σ."""
        return self.root()

    def precision_root(self) -> Float[Array, " d"]:
        """1 / σ."""
        return 1 / self.root()

    def variance(self) -> Float[Array, " d"]:
        """σ². O(d), not O(d²)."""
        return jnp.square(self.root())

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

    def root(self) -> Float[Array, " d"]:
        """`scale`."""
        return self.scale
