"""Any covariance with its coordinates scaled, for structures that have no such form of their own.

>>> from gaussjax import Diagonal
>>> Scaled(Diagonal(jnp.array([1.0, 2.0])), jnp.array([3.0, 1.0])).variance()
Array([9., 4.], dtype=float32)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, nested, structure
from gaussjax.covariances.base import Covariance
from gaussjax.linalg.triangular import logdet_of_diagonal


@structure
class Scaled(Covariance):
    """Σ = diag(f) Σ' diag(f) for a structure Σ' and factors `scale` f `(..., d)`."""

    base: Covariance = nested()
    scale: Float[Array, "... d"] = leaf(rank=1)

    @property
    def dim(self) -> int:
        """That of `base`."""
        return self.base.dim

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """F ⊙ C'ε."""
        return self.scale * self.base.color(noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C'⁻¹(v / f)."""
        return self.base.whiten(vector / self.scale)

    def logdet(self) -> Float[Array, ""]:
        """log|Σ'| + 2 Σ log|fᵢ|."""
        return self.base.logdet() + 2 * logdet_of_diagonal(jnp.abs(self.scale))

    def rescaled(self, factor: Array, /) -> Covariance:
        """Factors multiply."""
        return Scaled(self.base, self.scale * factor)

    @property
    def noise_dim(self) -> int:
        """That of `base`."""
        return self.base.noise_dim

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """By the cheapest root of `base`."""
        return self.scale * self.base.draw(noise)

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """By that of `base`."""
        return self.base.inv_quad(vector / self.scale)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By that of `base`."""
        return self.scale * self.base.times(self.scale * vector)

    def variance(self) -> Float[Array, " d"]:
        """By that of `base`, not d products."""
        return jnp.square(self.scale) * self.base.variance()

    def precision_diagonal(self) -> Float[Array, " d"]:
        """By that of `base`, not d solves."""
        return self.base.precision_diagonal() / jnp.square(self.scale)
