"""Toeplitz: Σᵢⱼ depends on |i − j| alone, as for a stationary process on an even grid.

>>> Toeplitz(jnp.array([2.0, 1.0, 0.5])).dense()
Array([[2. , 1. , 0.5],
       [1. , 2. , 1. ],
       [0.5, 1. , 2. ]], dtype=float32)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax._mapping import all_of_batch
from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Covariance, Indices, dtype_of
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.circulant import constant_diagonals
from gaussjax.linalg import fourier, toeplitz
from gaussjax.linalg.factor import cholesky


@structure
class Toeplitz(Covariance):
    """Σᵢⱼ = column[|i − j|], positive definite; `column` `(..., d)` is the first column of Σ.

    Samples and products cost O(d log d) by FFT. Densities, solves and divergences cost O(d²) time
    and O(d) memory by the recursion of Levinson and Durbin, and so do derivatives of densities and
    solves; derivatives of `color`, `whiten` and divergences store d² numbers. The error of the
    recursion is rounding times the condition number of Σ, as for a Cholesky factorisation of the
    matrix.

    If Σ is indefinite, or singular, these are NaN. Moments, marginals, products, sums, samples and
    the cross entropy of it are not: checking would cost most of them a higher order, and a smooth
    kernel is indefinite by rounding alone, while its sum with noise is not.

    Source: Cybenko, SIAM J. Sci. Stat. Comput. 1 (1980): the stability of Levinson and Durbin's.
    """

    column: Float[Array, "... d"] = leaf(rank=1)

    @property
    def dim(self) -> int:
        """Length of `column`."""
        return self.column.shape[-1]

    @property
    def has_root(self) -> bool:
        """No: the column holds entries of Σ."""
        return False

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L ε with the Cholesky factor L, which is not stored. O(d²)"""
        return toeplitz.color(self.column, noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v. O(d²)"""
        return toeplitz.whiten(self.column, vector)[0]

    def logdet(self) -> Float[Array, ""]:
        """Sum of the logarithms of the prediction errors. O(d²)"""
        return toeplitz.logdet(self.column)

    def dense_factor(self) -> Float[Array, "d d"]:
        """L as a matrix. O(d³), and less to compile than d runs of the recursion"""
        return cholesky(self.dense())

    def toeplitz_column(self) -> Float[Array, " d"]:
        """`column`."""
        return self.column

    def inverse_diagonal_sums(self) -> Float[Array, " d"]:
        """By the formula of Gohberg and Semencul. O(d²)"""
        return toeplitz.inverse_diagonal_sums(self.column)

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Step by step of the recursion, to any covariance that is Toeplitz. O(d²)"""
        column = other.toeplitz_column()
        return None if column is None else toeplitz.divergence(self.column, column)

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Columns add, if `other` is Toeplitz too."""
        column = other.toeplitz_column()
        return None if column is None else Toeplitz(self.column + column)

    def rescaled(self, factor: Array, /) -> Covariance | None:
        """Toeplitz again, if all coordinates are scaled alike."""
        return None if factor.ndim else Toeplitz(jnp.square(factor) * self.column)

    def marginal(self, indices: Indices, /) -> Covariance:
        """Toeplitz again for static indices in even steps, else a dense factor."""
        m = len(indices)
        steps = np.diff(indices) if isinstance(indices, np.ndarray) else np.array([])
        if m == 1 or (len(steps) and np.all(steps == steps[0])):
            step = abs(int(steps[0])) if len(steps) else 1
            return Toeplitz(self.column[: (m - 1) * step + 1 : step])
        distances = jnp.abs(indices[:, None] - indices[None])
        return Cholesky(cholesky(self.column[distances]))

    @property
    def noise_dim(self) -> int:
        """Size of the circulant matrix that has Σ in its corner."""
        return max(2 * self.dim - 2, min(self.dim, 1))

    def draw(self, noise: Float[Array, " n"], /) -> Float[Array, " d"]:
        """The corner of a circulant sample, O(d log d); L ε where that has no positive spectrum.

        Eigenvalues that are negative only by the rounding of the largest count as zero.
        """
        spectrum = toeplitz.spectrum_of(self.column)
        rounding = 10 * jnp.finfo(spectrum.dtype).eps * jnp.max(jnp.abs(spectrum), initial=0)
        valid = jax.lax.stop_gradient(jnp.all(spectrum >= -rounding))

        def embedded() -> Array:
            size = jnp.where(spectrum > 0, spectrum, 1.0)
            root = jnp.where(spectrum > 0, jnp.sqrt(size), 0.0)
            return fourier.filtered(root, noise)[: self.dim]

        def factored() -> Array:
            padded = jnp.pad(noise, (0, max(self.dim - noise.shape[0], 0)))
            return self.color(padded[: self.dim])

        def either() -> Array:
            return jnp.where(valid, embedded(), factored())

        return jax.lax.cond(all_of_batch(valid), embedded, either)

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """‖L⁻¹v‖², with a derivative that does not go through the recursion. O(d²)"""
        return toeplitz.inv_quad(self.column, vector)

    def inv_quad_and_logdet(self, vector: Float[Array, " d"], /) -> tuple[Array, Array]:
        """Both in one run of the recursion, not two."""
        return toeplitz.inv_quad_and_logdet(self.column, vector)

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """By the recursion of Levinson. O(d²)"""
        return toeplitz.solve(self.column, vector)

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀv = L⁻¹Σv. O(d²), without the d² numbers that a derivative of L ε keeps"""
        return self.whiten(self.times(vector))

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ v by FFT. O(d log d), not O(d²)"""
        return toeplitz.times(self.column, vector)

    def variance(self) -> Float[Array, " d"]:
        """All alike. O(d), not d products."""
        return jnp.broadcast_to(self.column[:1], (self.dim,))

    def precision_diagonal(self) -> Float[Array, " d"]:
        """By the formula of Gohberg and Semencul. O(d²), not O(d³)"""
        return toeplitz.inverse_diagonal(self.column)

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """Constant along each. O(d), not d products."""
        return constant_diagonals(self.column, width)

    def dense(self) -> Float[Array, "d d"]:
        """Σ itself. O(d²), not O(d³)"""
        positions = np.arange(self.dim)
        return self.column[np.abs(positions[:, None] - positions[None])].astype(dtype_of(self))
