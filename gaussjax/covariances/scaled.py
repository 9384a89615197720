"""Any covariance with scaled coordinates, for structures that are not closed under scaling.

>>> from gaussjax import Diagonal
>>> Scaled(Diagonal(jnp.array([1.0, 2.0])), jnp.array([3.0, 1.0])).variance()
Array([9., 4.], dtype=float32)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, nested, structure
from gaussjax.covariances import pairs
from gaussjax.covariances.base import Covariance, over_basis
from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.ranges import quotient
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

    @property
    def num_parameters(self) -> int:
        """Those of the base and of f, which share one scale at least: an upper bound."""
        return min(self.base.num_parameters + self.dim - 1, self.dim * (self.dim + 1) // 2)

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """f ⊙ C'ε."""
        return self.scale * self.base.color(noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C'⁻¹(v / f)."""
        return self.base.whiten(quotient(vector, self._regular))

    def logdet(self) -> Float[Array, ""]:
        """log|Σ'| + 2 Σ log|fᵢ|."""
        return self.base.logdet() + 2 * logdet_of_diagonal(jnp.abs(self.scale))

    def pivots(self) -> Array:
        """Sizes of the factors."""
        return jnp.abs(self.scale)

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Of second order in the differences of both parts, between two of one structure.

        With Σ = F A F, Σ' = G B G and R = F/G it is D(RAR, B), and by the three-point identity of
        Bregman divergences
            D(RAR, B) = D(RAR, A) + D(A, B) + tr((RAR − A)(B⁻¹ − A⁻¹)).
        With ρ = R − I, a root C of A and P = C⁻¹ρC the first is ‖P‖² + 2 Σ (ρᵢ − log(1 + ρᵢ)), and
        the last tr((P + Pᵀ + P Pᵀ) S) with S = Cᵀ(B⁻¹ − A⁻¹)C: a few products and solves for each
        of d columns. Far from equality it is the textbook formula.
        """
        a, b, scale = self.base, other, jnp.ones_like(self.scale)
        if isinstance(other, Scaled):
            b, scale = other.base, other.scale
        if type(a) is not type(b):
            return None
        divergence, rho = pairs.divergence(a, b), quotient(self.scale - scale, scale)
        near = jnp.all(jnp.abs(rho) < 0.5) & (divergence <= self.dim)
        rho = jnp.where(near, rho, 0.0)  # a batch computes both: no NaN for the other's gradient

        def change(v: Array) -> Array:
            colored = a.color(v)
            difference = b.solve(colored) - a.solve(colored)
            rounding = jnp.where(divergence == 0, jax.lax.stop_gradient(difference), 0.0)  # A = B
            return a.color_transpose(difference - rounding)

        def of_column(e: Array) -> Array:
            p = a.whiten(rho * a.color(e))
            return jnp.sum(p * (p + 2 * change(e) + change(p)))

        def closely() -> Array:
            logs = minus_log1p(rho, 1 + rho)
            return divergence + jnp.sum(over_basis(a, of_column) + 2 * logs)

        return jax.lax.cond(near, closely, lambda: pairs.textbook(self, other))

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
        return self.base.inv_quad(quotient(vector, self._regular))

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """By those of `base`."""
        distance, logdet = self.base.inv_quad_and_logdet(quotient(vector, self._regular))
        return distance, logdet + 2 * logdet_of_diagonal(jnp.abs(self.scale))

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By that of `base`."""
        return quotient(self.base.solve(quotient(vector, self._regular)), self._regular)

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C'ᵀ(f ⊙ v)."""
        return self.base.color_transpose(self.scale * vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By that of `base`."""
        return self.scale * self.base.times(self.scale * vector)

    def dense(self) -> Float[Array, "d d"]:
        """From the entries of `base`, if it has no root."""
        if self.has_root:
            return super().dense()
        columns = self.scale[:, None] * self.base.dense() * self.scale[None]
        return jnp.tril(columns) + jnp.tril(columns, -1).T

    def variance(self) -> Float[Array, " d"]:
        """By that of `base`, not d products."""
        return jnp.square(self.scale) * self.base.variance()

    def stddev(self) -> Float[Array, " d"]:
        """By that of `base`."""
        return jnp.abs(self.scale) * self.base.stddev()

    def precision_diagonal(self) -> Float[Array, " d"]:
        """By that of `base`, not d solves."""
        return self.base.precision_diagonal() / jnp.square(self._regular)

    @property
    def _regular(self) -> Float[Array, " d"]:
        """The factors for what takes Σ⁻¹: NaN if there is none."""
        return jnp.where(jnp.any(self.scale == 0), jnp.nan, self.scale)
