"""Kronecker product plus a Kronecker-structured diagonal: many outputs on a grid, with noise.

>>> from gaussjax import Diagonal, Isotropic, Kronecker, add
>>> signal = Kronecker((Diagonal(jnp.array([1.0, 2.0])), Diagonal(jnp.array([1.0, 3.0]))))
>>> cov = add(signal, Isotropic(jnp.float32(1.0), 4))
>>> type(cov).__name__, cov.variance()
('KroneckerPlusDiagonal', Array([ 2., 10.,  5., 37.], dtype=float32))
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._mapping import all_of_batch
from gaussjax._struct import structure
from gaussjax.covariances.base import Covariance
from gaussjax.covariances.sum import Sum
from gaussjax.linalg import kronecker
from gaussjax.linalg.ranges import quotient
from gaussjax.linalg.triangular import logdet_of_diagonal


@structure
class KroneckerPlusDiagonal(Sum):
    """Σ = ⊗ Σᵢ + s² I, or ⊗ Σᵢ + ⊗ Dᵢ with diagonal Dᵢ of the same sizes.

    `first` is a `Kronecker`, `second` isotropic or a `Kronecker` of diagonals. Densities and solves
    use singular vectors of the factors, O(Σ dᵢ³ + d Σ dᵢ), as

        Σ = S (⊗ (Sᵢ⁻¹Σᵢ Sᵢ⁻¹) + s² I) S,  S = ⊗ Sᵢ, Sᵢ² = Dᵢ

    if every Dᵢ is regular; everything else, and second derivatives of densities in Σ, as in a
    `Sum`.

    Source: Rakitsch, Lippert, Borgwardt & Stegle, It is all in the noise, NeurIPS 2013.
    """

    def logdet(self) -> Float[Array, ""]:
        """2 log|S| + Σ log(s² + ⊗ λᵢ)."""
        return self._closed(
            lambda scales, parts: kronecker.logdet(*parts) + 2 * logdet_of_diagonal(scales),
            lambda: Sum.logdet(self),
            singular=-jnp.inf,
        )

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """A sum of squares along singular vectors."""
        return self._closed(
            lambda scales, parts: kronecker.inv_quad(*parts, quotient(vector, scales)),
            lambda: Sum(self.first, self.second).inv_quad(vector),
        )

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """Each in closed form."""
        return self.inv_quad(vector), self.logdet()

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Along singular vectors."""
        return self._closed(
            lambda scales, parts: quotient(
                kronecker.solve(parts[0], parts[1], quotient(vector, scales)), scales
            ),
            lambda: Sum.solve(self, vector),
        )

    def rescaled(self, factor: Array, /) -> Covariance | None:
        """The same again, if all coordinates are scaled alike."""
        first, second = self.first.rescaled(factor), self.second.rescaled(factor)
        return None if first is None or second is None else KroneckerPlusDiagonal(first, second)

    def _closed(
        self,
        rule: Callable[[Array, Any], Array],
        dense: Callable[[], Array],
        *,
        singular: float = jnp.nan,
    ) -> Array:
        """The rule of S and of the factors and s of what it scales; dense where S is singular.

        Where S = s I is zero the product is all there is: `singular` if that has no inverse.
        """
        factors: Any = getattr(self.first, "factors", ())
        noises: Any = getattr(self.second, "factors", None)
        roots = tuple(f.dense_factor() for f in factors)
        if noises is None:
            scale = jnp.sum(self.second.covariance_root()[:1])  # type: ignore[index]
            lost = (scale == 0) & (self.first.logdet() == -jnp.inf)
            value = rule(jnp.ones(self.dim, scale.dtype), (roots, scale))
            return self._nan_unless_valid(jnp.where(lost, singular, value))
        scales: Any = [noise.covariance_root() for noise in noises]
        regular = jnp.stack([jnp.all(s > 0) for s in scales]).all()
        safe = [jnp.where(regular, s, 1.0) for s in scales]
        whitened = tuple(quotient(c, s[:, None]) for c, s in zip(roots, safe, strict=True))
        product = kronecker.outer(safe)

        def closed() -> Array:
            return rule(product, (whitened, jnp.ones((), product.dtype)))

        def either() -> Array:
            return jnp.where(regular, closed(), dense())

        return self._nan_unless_valid(jax.lax.cond(all_of_batch(regular), closed, either))
