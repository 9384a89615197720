"""What a covariance structure is: four members, from which everything else follows.

A structure stores a factor of Σ and is written for one Gaussian; leading axes are lifted by the
public functions. With the four required members it has sampling, densities, every divergence to
every other structure, and dense forms:

>>> from gaussjax._struct import leaf, structure
>>> @structure
... class Scaled(Covariance):  # Σ = diag(scale²)
...     scale: jax.Array = leaf(rank=1)
...
...     @property
...     def dim(self):
...         return self.scale.shape[-1]
...
...     def color(self, noise):
...         return self.scale * noise
...
...     def whiten(self, vector):
...         return vector / self.scale
...
...     def logdet(self):
...         return 2 * jnp.sum(jnp.log(self.scale))
>>> Scaled(jnp.array([1.0, 2.0])).dense()
Array([[1., 0.],
       [0., 4.]], dtype=float32)
"""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.roots import symmetric_root


class Covariance(abc.ABC):
    """A positive definite Σ = C Cᵀ in some structure."""

    # Required ------------------------------------------------------------------------------------

    dim: Any  # event size d, a static integer: a property, or a field declared with `static()`

    @abc.abstractmethod
    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C ε for a fixed root C; linear in `noise`."""

    @abc.abstractmethod
    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C⁻¹ v, the inverse of `color`."""

    @abc.abstractmethod
    def logdet(self) -> Float[Array, ""]:
        """log|Σ|."""

    # Optional: a triangular root makes divergences exact between almost equal covariances --------

    def covariance_root(self) -> Array | None:
        """Root of Σ: `(d, d)` lower triangle L with Σ = L Lᵀ, `(d,)` a diagonal, or None."""
        return None

    def precision_root(self) -> Array | None:
        """The same of Σ⁻¹."""
        return None

    # Derived -------------------------------------------------------------------------------------

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """vᵀΣ⁻¹v."""
        return jnp.sum(jnp.square(self.whiten(vector)))  # cannot be negative; vᵀ(Σ⁻¹v) can

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ⁻¹v = C⁻ᵀC⁻¹v."""
        (solution,) = jax.linear_transpose(self.whiten, vector)(self.whiten(vector))
        return solution

    def factor(self) -> Float[Array, "d d"]:
        """C as a matrix."""
        return jax.vmap(self.color, 1, 1)(self._identity())

    def dense(self) -> Float[Array, "d d"]:
        """Σ as a matrix, symmetric to the bit."""
        return gram(self.factor())

    def dense_precision(self) -> Float[Array, "d d"]:
        """Σ⁻¹ as a matrix, symmetric to the bit."""
        whitener = jax.vmap(self.whiten, 1, 1)(self._identity())
        return gram(whitener.T)

    def variance(self) -> Float[Array, " d"]:
        """Diagonal of Σ."""
        return jnp.sum(jnp.square(self.factor()), axis=1)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ^{1/2} ε with the symmetric root."""
        return dot(symmetric_root(self.dense()), noise)

    def _identity(self) -> Array:
        return jnp.eye(self.dim, dtype=jnp.result_type(*jax.tree.leaves(self)))
