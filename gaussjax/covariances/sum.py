"""The sum of two covariances that have no common structure.

Samples, products and variances stay as cheap as those of the two terms. Whatever needs a factor
(densities, solves, divergences) makes Σ dense.

>>> from gaussjax import Diagonal, Isotropic
>>> Sum(Diagonal(jnp.array([1.0, 2.0])), Isotropic(jnp.float32(1.0), 2)).variance()
Array([2., 5.], dtype=float32)
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._struct import nested, structure
from gaussjax.covariances.base import Covariance, any_root
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import lengths
from gaussjax.linalg.sums import (
    Parts,
    inv_quad_and_logdet,
    root_of_entries,
    root_of_sum,
    with_derivative,
)
from gaussjax.linalg.triangular import logdet_of_triangle, solve


@structure
class Sum(Covariance):
    """Σ = A + B of any two structures. Densities and solves are dense: O(d³), a `(d, d)` array."""

    first: Covariance = nested()
    second: Covariance = nested()

    @property
    def dim(self) -> int:
        """That of both."""
        return self.first.dim

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε. O(d³)"""
        return dot(self.covariance_root(), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v. O(d³)"""
        return solve(self.covariance_root(), vector)

    def logdet(self) -> Float[Array, ""]:
        """2 Σ log Lᵢᵢ. O(d³)"""
        return 2 * logdet_of_triangle(self.covariance_root())

    def covariance_root(self) -> Float[Array, "d d"]:
        """L with L Lᵀ = A + B: from the matrix, or the factors where that loses digits. O(d³)"""
        return self._nan_unless_valid(with_derivative(self._lower(), self._parts()))

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """Both by one root, with a derivative that does not go through it. O(d³)"""
        if self.dim == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
            return jnp.zeros((), vector.dtype), jnp.zeros((), vector.dtype)
        distance, logdet = inv_quad_and_logdet(self._lower(), self._parts(), vector)
        return self._nan_unless_valid(distance), self._nan_unless_valid(logdet)

    def _nan_unless_valid(self, value: Array) -> Array:
        return jnp.where(self.is_valid(), value, jnp.nan)  # the signs of factors are lost in Σ

    @property
    def noise_dim(self) -> int:
        """Independent noise for each term."""
        return self.first.noise_dim + self.second.noise_dim

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """A sum of samples, at the cost of both."""
        size = self.first.noise_dim
        return self.first.draw(noise[:size]) + self.second.draw(noise[size:])

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """A v + B v."""
        return self.first.times(vector) + self.second.times(vector)

    def variance(self) -> Float[Array, " d"]:
        """Sum of the variances."""
        return self.first.variance() + self.second.variance()

    def stddev(self) -> Float[Array, " d"]:
        """Lengths of pairs of deviations."""
        return lengths(jnp.stack([self.first.stddev(), self.second.stddev()], axis=1))

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """Sum of the diagonals."""
        return self.first.diagonals(width) + self.second.diagonals(width)

    def dense(self) -> Float[Array, "d d"]:
        """Sum of the matrices."""
        return self.first.dense() + self.second.dense()

    def rescaled(self, factor: Array, /) -> Covariance | None:
        """Each term in its own structure."""
        first, second = self.first.rescaled(factor), self.second.rescaled(factor)
        return None if first is None or second is None else Sum(first, second)

    def _lower(self) -> Float[Array, "d d"]:
        """L, a constant to derivatives."""
        known = jax.lax.stop_gradient(self)
        if self.has_root:
            return root_of_sum(known.dense(), _side_by_side(known._terms))
        return root_of_entries(known.dense(), lambda: _side_by_side(known._terms))

    def _parts(self) -> Parts:
        rooted = [term for term in self._terms if term.has_root]
        matrices = [term.dense() for term in self._terms if not term.has_root]
        return Parts(
            _side_by_side(rooted) if rooted else None,
            functools.reduce(jnp.add, matrices) if matrices else None,
        )

    @property
    def _terms(self) -> list[Covariance]:
        """Those of the terms, if they are sums."""
        both = (c._terms if isinstance(c, Sum) else [c] for c in (self.first, self.second))
        return list(itertools.chain(*both))


def _side_by_side(terms: list[Covariance]) -> Float[Array, "d k"]:
    """F with F Fᵀ the sum of the terms."""
    return jnp.concatenate([any_root(term) for term in terms], axis=1)
