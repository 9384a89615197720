"""Dense covariance from the Cholesky factor of its inverse: Σ⁻¹ = L Lᵀ.

>>> PrecisionCholesky(jnp.array([[2.0, 0.0], [0.0, 1.0]])).dense()
Array([[0.25, 0.  ],
       [0.  , 1.  ]], dtype=float32)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, Indices, log_normal
from gaussjax.covariances.scaled import Scaled
from gaussjax.linalg._kernels import small
from gaussjax.linalg.factor import half_triangle
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import logdet_of_triangle, solve


@structure
class PrecisionCholesky(Covariance):
    """Σ⁻¹ = L Lᵀ, `lower` `(..., d, d)` with a positive diagonal; entries above it are not read."""

    lower: Float[Array, "... d d"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Rows of `lower`."""
        return self.lower.shape[-1]

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻ᵀ ε. O(d²)"""
        return solve(self.lower, noise, transpose=True)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀ v. O(d²)"""
        return dot(jnp.tril(self.lower).T, vector)

    def logdet(self) -> Float[Array, ""]:
        """−2 Σ log Lᵢᵢ. O(d)"""
        return -2 * logdet_of_triangle(self.lower)

    def pivots(self) -> Array:
        """The diagonal of L."""
        return small.diagonal(self.lower)

    def precision_root(self) -> Float[Array, "d d"]:
        """L."""
        return self.lower

    def dense_precision(self) -> Float[Array, "d d"]:
        """L Lᵀ, without the detour over d products with the identity."""
        return gram(jnp.tril(self.lower))

    def precision_diagonal(self) -> Float[Array, " d"]:
        """Squared lengths of the rows of L. O(d²), not O(d³)."""
        return jnp.sum(jnp.square(jnp.tril(self.lower)), axis=1)

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v. O(d²), without the detour over a derivative of L⁻ᵀ ε"""
        return solve(self.lower, vector)

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """L Φ(Lᵀc), as for a factor of Σ. O(d³)"""
        lower = jnp.tril(self.lower)
        change = dot(lower, half_triangle(dot(lower.T, jnp.tril(cotangent.lower))))
        return PrecisionCholesky(change)

    def rescaled(self, factor: Array, /) -> Covariance:
        """diag(1/f) L, with columns turned so that its diagonal stays positive."""
        rows = 1 / jnp.broadcast_to(factor, (self.dim,))
        return PrecisionCholesky(rows[:, None] * jnp.tril(self.lower) * jnp.sign(rows)[None])

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional:
        """By QR of the kept rows of L: Λ restricted to them is the conditional's precision. O(d³)

        The mean is −Λₖₖ⁻¹ Λₖₘ v, and the density of what is given N(v; 0, Σₘₘ) by Schur complement:
        |Σₘₘ|⁻¹ = |Λ| / |Λₖₖ|, and vᵀΣₘₘ⁻¹v is the least (v, x)ᵀΛ(v, x) over x.
        """
        lower = jnp.tril(self.lower)
        cov = PrecisionCholesky(triangular_root(lower[kept]))
        mean = -cov.times(dot(lower[kept], dot(lower[given].T, values)))
        whole = jnp.zeros(self.dim, values.dtype).at[given].set(values).at[kept].set(mean)
        logdet = self.logdet() - cov.logdet()
        return Conditional(mean, cov, log_normal(self.inv_quad(whole), logdet, len(given)))

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """As `conditional`, with coordinates that are given cut off from the others. O(d³)"""
        lower, given = jnp.tril(self.lower), mask.astype(values.dtype)
        rows = jnp.concatenate([jnp.where(mask[:, None], 0.0, lower), jnp.diag(given)], axis=1)
        cov = PrecisionCholesky(triangular_root(rows))
        pull = jnp.where(mask, 0.0, -dot(lower, dot(lower.T, values)))
        mean = values + jnp.where(mask, 0.0, cov.times(pull))
        logdet = self.logdet() - cov.logdet()
        law = Scaled(cov, 1 - given)
        return Conditional(mean, law, log_normal(self.inv_quad(mean), logdet, jnp.sum(given)))

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Precisions add, by QR of both roots. O(d³)

        An improper prior (a zero on the diagonal of L) is allowed: the posterior is then as good as
        the sum is, and the evidence −∞ or NaN.
        """
        root = kept_precision_root(self, noise)
        if root is None:
            return None
        one = jnp.eye(self.dim, dtype=value.dtype)
        return posterior_of_precision(self, root, one, noise, value)


def kept_precision_root(prior: Covariance, noise: Covariance, /) -> Array | None:
    """L of a prior known by Σ⁻¹ = L Lᵀ alone, unless the noise has a root of too few columns.

    What singular noise leaves has no precision.
    """
    is_singular = noise.noise_dim < noise.dim
    is_known = prior.covariance_root() is None and not is_singular
    return prior.precision_root() if is_known else None


def posterior_of_precision(
    prior: Covariance,
    root: Float[Array, "d d"],
    matrix: Float[Array, "m d"],
    noise: Covariance,
    value: Float[Array, " m"],
    /,
) -> Conditional:
    """Law of x with precision L Lᵀ given that H x + e has this value. O((d + m) d²)

    The precisions L Lᵀ and HᵀΣₑ⁻¹H add by QR of [L, (Cₑ⁻¹H)ᵀ].
    """
    root, whitened = jnp.tril(root), jax.vmap(noise.whiten, 1, 1)(matrix)
    law = PrecisionCholesky(triangular_root(jnp.concatenate([root, whitened.T], axis=1)))
    mean = law.times(dot(whitened.T, noise.whiten(value)))
    # Twice more for what is left: products of precise observations are rounded like their size.
    for _ in range(2):
        pull = dot(whitened.T, noise.whiten(value - dot(matrix, mean)))
        mean = mean + law.times(pull - dot(root, dot(root.T, mean)))
    # log|HΣHᵀ + Σₑ| = log|Σₑ| + log|Σ| − log|posterior|, and the quadratic form is a least value
    logdet = noise.logdet() + prior.logdet() - law.logdet()
    distance = prior.inv_quad(mean) + noise.inv_quad(value - dot(matrix, mean))
    return Conditional(mean, law, log_normal(distance, logdet, len(value)))
