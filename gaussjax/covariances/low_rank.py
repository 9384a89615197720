"""Diagonal plus low rank: Σ = diag(scale²) + W Wᵀ, never as a d × d array.

>>> cov = LowRank(jnp.array([1.0, 1.0, 2.0]), jnp.array([[1.0], [2.0], [0.0]]))
>>> cov.dense()
Array([[2., 2., 0.],
       [2., 5., 0.],
       [0., 0., 4.]], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, Indices, log_normal
from gaussjax.linalg import low_rank
from gaussjax.linalg.laws import fisher
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.semidefinite import OnSupport


@structure
class LowRank(Covariance):
    """Σ = diag(scale²) + W Wᵀ, `scale` `(..., d)`, `factor` W `(..., d, r)` with r ≪ d.

    Samples cost O(dr), everything else O(dr²). Densities and solves are as exact as from a dense
    root by QR, for any W and any `scale` down to the rounding of W: their error is rounding times
    the condition number of [diag(scale), W] with rows of unit length.

    `scale` may have any number of exact zeros. Where W Wᵀ does not make up for them Σ is singular:
    `log_prob_on_support` is its density, and what else needs the inverse is NaN. A negative scale,
    or a number that is not finite, makes everything NaN.
    """

    scale: Float[Array, "... d"] = leaf(rank=1)
    factor: Float[Array, "... d r"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Length of `scale`."""
        return self.scale.shape[-1]

    @property
    def num_parameters(self) -> int:
        """Those of s and of W, whose columns may be turned: d + d r − r (r − 1)/2."""
        r = min(self.factor.shape[-1], self.dim)
        return min(self.dim * (1 + r) - r * (r - 1) // 2, self.dim * (self.dim + 1) // 2)

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C ε for a square root C. O(dr) after O(dr²) once"""
        return low_rank.color(self._eliminated(), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """C⁻¹ v. O(dr) after O(dr²) once"""
        return low_rank.whiten(self._eliminated(), vector)

    def logdet(self) -> Float[Array, ""]:
        """By the determinant lemma. O(dr²)"""
        return low_rank.logdet(self._eliminated())

    def pivots(self) -> Array:
        """Deviations, and sizes of the entries of W."""
        return jnp.concatenate([self.scale, jnp.abs(self.factor).ravel()])

    def rectangular_root(self) -> Float[Array, "d k"]:
        """[diag(s), W]."""
        return jnp.concatenate([jnp.diag(self.scale), self.factor], axis=1)

    def thin_parts(self) -> tuple[Array, Array]:
        """As they are."""
        return self.scale, self.factor

    def fisher_solve(self, cotangent: Any, /) -> Covariance | None:
        """One of many, as columns of W may be turned. O(d r⁴); None if Σ has fewer free numbers."""
        d, r = self.factor.shape
        if r and (d - r) ** 2 < d + r:
            return None
        parts = self.scale, self.factor, cotangent.scale, cotangent.factor
        return LowRank(*fisher.of_low_rank(*parts))

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Variances add, and columns of factors join."""
        parts = other.thin_parts()
        if parts is None:
            return None
        factor = jnp.concatenate([self.factor, parts[1]], axis=1)
        return LowRank(jnp.hypot(self.scale, parts[0]), factor)

    def rescaled(self, factor: Array, /) -> Covariance:
        """Rows scale."""
        rows = jnp.broadcast_to(factor, (self.dim,))
        return LowRank(jnp.abs(rows) * self.scale, rows[:, None] * self.factor)

    def marginal(self, indices: Indices, /) -> Covariance:
        """Some of the rows."""
        return LowRank(self.scale[indices], self.factor[indices])

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional:
        """Given values change the law of z, and so W. O(dr²)"""
        seen = low_rank.eliminate(self.scale[given], self.factor[given])
        mean, root = low_rank.latent_posterior(seen, values)
        law = LowRank(self.scale[kept], dot(self.factor[kept], root))
        return Conditional(dot(self.factor[kept], mean), law, _log_density(seen, values))

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """As `conditional`: rows that are not given become noise that says nothing. O(dr²)"""
        seen = low_rank.eliminate(
            jnp.where(mask, self.scale, 1.0), jnp.where(mask[:, None], self.factor, 0.0)
        )
        mean, root = low_rank.latent_posterior(seen, values)
        hidden = jnp.where(mask[:, None], 0.0, self.factor)
        law = LowRank(jnp.where(mask, 0.0, self.scale), dot(hidden, root))
        evidence = _log_density(seen, values, jnp.sum(mask, dtype=values.dtype))
        return Conditional(values + dot(hidden, mean), law, evidence)

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """With diagonal noise τ²: z given the value, then s e given z and the value. O(dr²)"""
        tau = noise.covariance_root()
        if tau is None or tau.ndim > 1:
            return None
        both = jnp.hypot(self.scale, tau)
        seen = low_rank.eliminate(both, self.factor)
        mean, root = low_rank.latent_posterior(seen, value)
        ratio = tau / jnp.where(both == 0, 1.0, both)  # where there is no noise: the value itself
        share = jnp.square(ratio)  # of what W z leaves of the value, the rest is s e
        law = LowRank(self.scale * ratio, share[:, None] * dot(self.factor, root))
        signal = dot(self.factor, mean)
        estimate = signal + (1 - share) * (value - signal)
        return Conditional(estimate, law, _log_density(seen, value))

    @property
    def noise_dim(self) -> int:
        """Noise for every coordinate, and for every column of W."""
        return self.dim + self.factor.shape[-1]

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """s ⊙ ε₁ + W ε₂. O(dr), not O(dr²)."""
        return self.scale * noise[: self.dim] + dot(self.factor, noise[self.dim :])

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """As a sum of squares that keeps its digits at small noise. O(dr²)"""
        return low_rank.inv_quad(self._eliminated(), vector)

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """From one factorisation. O(dr²)"""
        return low_rank.inv_quad_and_logdet(self.scale, self.factor, vector)

    def rank(self) -> Int[Array, ""]:
        """How many scales are not zero, and independent rows of W where one is. O(dr²)"""
        return low_rank.rank(self.scale, self.factor)

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """With fewer rows where the scale is zero. O(dr²)"""
        return low_rank.on_support(self.scale, self.factor, vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """s² v + W Wᵀv. O(dr)"""
        return jnp.square(self.scale) * vector + dot(self.factor, dot(self.factor.T, vector))

    def variance(self) -> Float[Array, " d"]:
        """s² and squared lengths of the rows of W. O(dr)"""
        return jnp.square(self.scale) + jnp.sum(jnp.square(self.factor), axis=1)

    def precision_diagonal(self) -> Float[Array, " d"]:
        """By leverages. O(dr²), not O(d² r)."""
        return low_rank.precision_diagonal(self.scale, self.factor)

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """Products of rows of W. O(dr·width), not O(d²r)."""
        rows = [
            jnp.sum(self.factor * jnp.pad(self.factor[k:], ((0, min(k, self.dim)), (0, 0))), axis=1)
            for k in range(width + 1)
        ]
        return jnp.stack(rows).at[0].add(jnp.square(self.scale))

    def dense(self) -> Float[Array, "d d"]:
        """Σ itself. O(d²r), not O(d³)."""
        return jnp.diag(jnp.square(self.scale)) + gram(self.factor)

    def _eliminated(self) -> low_rank.Elimination:
        return low_rank.eliminate(self.scale, self.factor)


def _log_density(
    seen: low_rank.Elimination, vector: Array, count: Array | int | None = None
) -> Array:
    """`log_density` from the factorisation."""
    size = len(vector) if count is None else count
    return log_normal(low_rank.inv_quad(seen, vector), low_rank.logdet(seen), size)
