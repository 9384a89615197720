"""Kronecker product of smaller covariances: Σ = Σ₁ ⊗ Σ₂ ⊗ …

With two factors it is the law of a matrix whose rows have covariance Σ₁ and columns Σ₂ (matrix
normal); coordinates run through it row by row.

>>> from gaussjax import Diagonal
>>> cov = Kronecker((Diagonal(jnp.array([1.0, 2.0])), Diagonal(jnp.array([1.0, 3.0]))))
>>> cov.variance()
Array([ 1.,  9.,  4., 36.], dtype=float32)
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gaussjax._struct import nested, structure
from gaussjax.covariances import pairs, restricted
from gaussjax.covariances.base import Covariance, any_root, dtype_of
from gaussjax.covariances.kronecker_plus_diagonal import KroneckerPlusDiagonal
from gaussjax.covariances.transport import transport
from gaussjax.linalg import kronecker, semidefinite
from gaussjax.linalg.laws.products_mixture import excess_of_products
from gaussjax.linalg.semidefinite import OnSupport


@structure
class Kronecker(Covariance):
    """Σ = ⊗ Σᵢ of two or more `factors` of any structures, of sizes dᵢ; d = Π dᵢ.

    Everything costs d/dᵢ times what it costs in each factor, instead of O(d³).
    """

    factors: tuple[Covariance, ...] = nested()

    @property
    def dim(self) -> int:
        """Product of the sizes."""
        return math.prod(self._sizes)

    @property
    def num_parameters(self) -> int:
        """Those of the factors, which share one scale."""
        shared = len(self.factors) - 1
        return sum(f.num_parameters for f in self.factors) - shared

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Cᵢ ε: each factor along its own axis."""
        return self._along_axes([f.color for f in self.factors], noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Cᵢ⁻¹ v."""
        return self._along_axes([f.whiten for f in self.factors], vector)

    def logdet(self) -> Float[Array, ""]:
        """Σ (d/dᵢ) log|Σᵢ|."""
        return sum(
            ((self.dim // max(f.dim, 1)) * f.logdet() for f in self.factors),
            jnp.zeros((), dtype_of(self)),
        )

    def rank(self) -> Int[Array, ""]:
        """Product of the ranks of the factors. O(Σ dᵢ³)"""
        ranks = [semidefinite.rank(any_root(f)) for f in self.factors]
        return functools.reduce(jnp.multiply, ranks)

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """By the ranges of the factors. O(Σ dᵢ³ + d Σ dᵢ)"""
        return kronecker.on_support(tuple(any_root(f) for f in self.factors), vector)

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """From those of the factors, if both have factors of the same sizes.

        With Dᵢ = D(Aᵢ, Bᵢ), ℓᵢ = log|Bᵢ⁻¹Aᵢ| and mᵢ = (Dᵢ + ℓᵢ)/dᵢ, the trace is d Π(1 + mᵢ) and so
            D/d = Σ Dᵢ/dᵢ + (Π(1 + mᵢ) − 1 − Σ mᵢ),
        where the last part is a sum of products of two or more of the mᵢ: nothing cancels.
        """
        if not isinstance(other, Kronecker) or self._sizes != other._sizes:
            return None
        total = product = jnp.zeros((), dtype_of(self))  # product = Π(1 + mᵢ) − 1 so far
        for a, b in zip(self.factors, other.factors, strict=True):
            size = max(a.dim, 1)
            divergence = pairs.divergence(a, b) / size
            m = divergence + pairs.log_ratio(a, b) / size
            total = total + divergence + product * m
            product = product + m + product * m
        return self.dim * total

    def transport_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """From those of the factors, if both have factors of the same sizes.

        With aligned roots F and H = F − Δ of two pairs it is, as ‖F ⊗ F' − H ⊗ H'‖²,
            ‖Δ‖²‖F'‖² + ‖H‖²‖Δ'‖² + 2⟨Δ, H⟩⟨F', Δ'⟩,
        where ⟨Δ, H⟩ and ⟨F', Δ'⟩ follow from traces and ‖Δ‖².
        """
        if not isinstance(other, Kronecker) or self._sizes != other._sizes:
            return None
        one = jnp.ones((), dtype_of(self))
        total, f, h = jnp.zeros_like(one), one, one
        for a, b in zip(self.factors, other.factors, strict=True):
            d, f_a, h_b = transport(a, b), jnp.sum(a.variance()), jnp.sum(b.variance())
            cross = 0.5 * (f - h - total) * (f_a - h_b + d)
            total = jnp.maximum(total * f_a + h * d + cross, 0.0)
            f, h = f * f_a, h * h_b
        return total

    def skewed_to(
        self, other: Covariance, shift: Array, alpha: Array, beta: Array, /, *, inside: bool
    ) -> Float[Array, ""] | None:
        """By joint eigenvectors of the factors, if `other` has factors of the same sizes.

        Or is isotropic, which is such a product too. O(Σ dᵢ³ + d Σ dᵢ)
        """
        root = other.covariance_root()
        if isinstance(other, Kronecker) and self._sizes == other._sizes:
            second = tuple(restricted.triangle(f) for f in other.factors)
        elif root is not None and root.ndim == 1 and other.toeplitz_column() is not None:
            first, *rest = (jnp.eye(f.dim, dtype=root.dtype) for f in self.factors)
            second = (jnp.max(root, initial=0) * first, *rest)
        else:
            return None
        first = tuple(restricted.triangle(f) for f in self.factors)
        return excess_of_products(first, second, shift, alpha, beta, inside=inside)

    def fisher_solve(self, cotangent: Any, /) -> Covariance | None:
        """One of many, as cᵢ may be moved from a factor to another; None if a factor has none.

        With the own Fᵢ of a factor and ℓᵢ = log|Σᵢ|, the metric is
            (d/dᵢ) Fᵢ on the diagonal and ½ d/(dᵢdⱼ) ∇ℓᵢ∇ℓⱼᵀ beside it.
        For δᵢ with the yᵢ and tᵢ that solve Fᵢyᵢ = cᵢ and Fᵢtᵢ = ∇ℓᵢ it asks that Σ ∇ℓⱼ·δⱼ/dⱼ is
        τ/d for τ = tᵢ·cᵢ, what a common scale changes, and that is shared equally here.
        """
        count, shares, found = len(self.factors), [], []
        for f, c in zip(self.factors, cotangent.factors, strict=True):
            way, scaling = f.fisher_solve(c), f.fisher_solve(jax.grad(lambda f: f.logdet())(f))
            if way is None or scaling is None:
                return None
            leaves = zip(jax.tree.leaves(scaling), jax.tree.leaves(c), strict=True)
            shares.append(sum(jnp.sum(x * y) for x, y in leaves))
            found.append((f.dim, way, scaling))
        common = 0.5 * (count - 1) / count**2 * sum(shares)
        whole = max(self.dim, 1)

        def step(size: int, way: Covariance, scaling: Covariance) -> Covariance:
            return jax.tree.map(lambda y, t: (size * y - common * t) / whole, way, scaling)

        return Kronecker(tuple(step(*each) for each in found))

    def trace_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Product of the factors' traces, if both have factors of the same sizes."""
        if not isinstance(other, Kronecker) or self._sizes != other._sizes:
            return None
        together = zip(self.factors, other.factors, strict=True)
        return functools.reduce(jnp.multiply, [pairs.trace_solve(a, b) for a, b in together])

    def plus(self, other: Covariance, /) -> Covariance | None:
        """With what is isotropic, or a product of diagonals of these sizes, in closed form."""
        root = other.covariance_root()
        if root is not None and root.ndim == 1 and other.toeplitz_column() is not None:
            return KroneckerPlusDiagonal(self, other)
        if not isinstance(other, Kronecker) or self._sizes != other._sizes:
            return None
        roots = [f.covariance_root() for f in other.factors]
        diagonal = all(r is not None and r.ndim == 1 for r in roots)
        return KroneckerPlusDiagonal(self, other) if diagonal else None

    def rescaled(self, factor: Array, /) -> Covariance | None:
        """Through the first factor, if all coordinates are scaled alike."""
        if factor.ndim:
            return None
        return Kronecker((restricted.rescaled(self.factors[0], factor), *self.factors[1:]))

    @property
    def noise_dim(self) -> int:
        """Product of the factors' noises."""
        return math.prod(f.noise_dim for f in self.factors)

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """By each factor's cheapest root."""
        sizes = tuple(f.noise_dim for f in self.factors)
        return kronecker.along_axes([f.draw for f in self.factors], noise.reshape(sizes))

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Cᵢᵀ v."""
        return self._along_axes([f.color_transpose for f in self.factors], vector)

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Σᵢ⁻¹ v, by each factor's own solve."""
        return self._along_axes([f.solve for f in self.factors], vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Σᵢ v, by each factor's own product."""
        return self._along_axes([f.times for f in self.factors], vector)

    def variance(self) -> Float[Array, " d"]:
        """Products of the factors' variances. O(d), not O(d²)."""
        return kronecker.outer([f.variance() for f in self.factors])

    def stddev(self) -> Float[Array, " d"]:
        """Products of the factors' deviations. O(d)"""
        return kronecker.outer([f.stddev() for f in self.factors])

    def precision_diagonal(self) -> Float[Array, " d"]:
        """Products of the factors'. O(d), not O(d²)."""
        return kronecker.outer([f.precision_diagonal() for f in self.factors])

    def dense(self) -> Float[Array, "d d"]:
        """⊗ Σᵢ. O(d²), not O(d³)"""
        return functools.reduce(jnp.kron, [f.dense() for f in self.factors])

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """⊗ Σᵢ^{1/2} ε: the symmetric root of a product is the product of them. No d × d array."""
        return self._along_axes([f.color_symmetric for f in self.factors], noise)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(f.dim for f in self.factors)

    def _along_axes(self, maps: list[Callable[[Array], Array]], vector: Array) -> Array:
        return kronecker.along_axes(maps, vector.reshape(self._sizes))
