"""Gaussian Markov chains: Σ⁻¹ = L Lᵀ where L has few subdiagonals.

A random walk with unit steps, started with unit variance, has Σ⁻¹ᵢᵢ = 2 and Σ⁻¹ᵢ,ᵢ₊₁ = −1:

>>> from gaussjax import from_banded_precision
>>> walk = from_banded_precision(jnp.zeros(3), [[2.0, 2.0, 1.0], [-1.0, -1.0, 0.0]])
>>> walk.cov.variance().round(4)
Array([1., 2., 3.], dtype=float32)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, Indices, log_normal
from gaussjax.covariances.scaled import Scaled
from gaussjax.linalg import banded
from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.ranges import unit_of
from gaussjax.linalg.triangular import solve


@structure
class BandedPrecision(Covariance):
    """Σ⁻¹ = L Lᵀ, `lower` `(..., b + 1, d)`: row k holds Lᵢ₊ₖ,ᵢ at i, nothing past the end is read.

    Everything costs O(db²), a marginal O(db³), and nothing stores more than O(db).
    """

    lower: Float[Array, "... w d"] = leaf(rank=2)

    @property
    def dim(self) -> int:
        """Columns of `lower`."""
        return self.lower.shape[-1]

    @property
    def num_parameters(self) -> int:
        """Entries on d long and b shorter diagonals."""
        width = min(self.lower.shape[-2], self.dim)
        return self.dim * width - width * (width - 1) // 2

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻ᵀ ε. O(db²)"""
        return banded.solve_transpose(self.lower, noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Lᵀ v. O(db)"""
        return banded.times_transpose(self.lower, vector)

    def logdet(self) -> Float[Array, ""]:
        """−2 Σ log Lᵢᵢ. O(d)"""
        return -2 * banded.logdet(self.lower)

    def pivots(self) -> Array:
        """The diagonal of L."""
        return self.lower[0]

    def precision_diagonals(self) -> Float[Array, "w d"]:
        """Diagonals of L Lᵀ. O(db²)"""
        return banded.gram(self.lower)

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Between two of these. O(db²)

        As for roots of precisions, D = 2 Σ (r − log(1 + r)) + ‖L⁻¹(L' − L)‖² with r the relative
        differences on the diagonal. A column x of L' − L has ‖L⁻¹x‖² = xᵀΣx, and as x has b + 1
        entries that takes only the b + 1 diagonals of Σ.
        """
        if not isinstance(other, BandedPrecision):
            return None
        width = max(self.lower.shape[0], other.lower.shape[0])
        a, b = _widened(self.lower, width), _widened(other.lower, width)
        change, sigma = b - a, self.diagonals(width - 1)
        first = jnp.where((a[0] > 0) & (b[0] > 0), a[0], jnp.nan)
        quadratic = jnp.zeros((), change.dtype)
        for k in range(width):
            for j in range(width - k):
                products = change[j] * change[j + k] * banded.earlier(sigma[k], j)
                quadratic = quadratic + (2 if k else 1) * jnp.sum(products)
        return jnp.sum(2 * minus_log1p(change[0] / first, b[0] / first)) + quadratic

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """Column by column, with Σ of the b + 1 coordinates that it reaches. O(db³)

        As in `divergence_to`, a column x of dL has the metric xᵀΣx + (xⱼ/Lⱼⱼ)².
        """
        w, d = self.lower.shape
        sigma = jnp.pad(banded.cleaned(self.diagonals(w - 1)), ((0, 0), (0, w)))
        inside = jnp.arange(w)[:, None] + jnp.arange(d)[None] < d  # rows of each column

        def column(j: Array, rows: Array, pivot: Array, c: Array) -> Array:
            row, col = np.indices((w, w))
            window = sigma[np.abs(row - col), j + np.minimum(row, col)]
            both = rows[:, None] & rows[None]
            matrix = jnp.where(both, window, jnp.eye(w, dtype=window.dtype))
            first = (jnp.arange(w) == 0).astype(window.dtype) / pivot
            root = factorise(matrix + jnp.outer(first, first))
            return jnp.where(rows, solve(root, solve(root, c), transpose=True), 0.0)

        change = jnp.where(inside, cotangent.lower, 0.0)
        columns = jax.vmap(column, (0, 1, 0, 1), 1)
        return BandedPrecision(columns(jnp.arange(d), inside, self.lower[0], change))

    def rescaled(self, factor: Array, /) -> Covariance:
        """diag(1/f) L, with columns turned so that its diagonal stays positive."""
        rows = 1 / jnp.broadcast_to(factor, (self.dim,))
        shifted = jnp.stack([banded.earlier(rows, k) for k in range(self.lower.shape[0])])
        return BandedPrecision(shifted * self.lower * jnp.sign(rows)[None])

    def marginal(self, indices: Indices, /) -> Covariance | None:
        """Banded again for static indices without a gap: a segment of a chain is a chain. O(db³)

        Column i of its L is Σ⁻¹e₀/√(Σ⁻¹)₀₀ for the covariance Σ of i and the b that follow it.
        """
        static = isinstance(indices, np.ndarray)
        if not static or np.any(np.diff(indices) != 1):
            return None
        w, n = self.lower.shape[0], len(indices)
        sigma = banded.cleaned(self.diagonals(w - 1)[:, indices])

        def column(window: Array) -> Array:  # window[k, j]: entry (j, j + k)
            row, col = np.indices((w, w))
            matrix = window[np.abs(row - col), np.minimum(row, col)]
            unit = (jnp.arange(w) == w - 1).astype(matrix.dtype)
            # reversed, so that the first coordinate is the last to be eliminated
            return solve(factorise(matrix[::-1, ::-1]), unit, transpose=True)[::-1]

        padded = jnp.pad(sigma, ((0, 0), (0, w - 1)))
        padded = padded.at[0, n:].set(1.0)
        windows = jnp.stack([padded[:, j : j + n] for j in range(w)], axis=1)
        return BandedPrecision(jax.vmap(column, 2, 1)(windows))

    def conditional(self, kept: Indices, given: Indices, values: Array, /) -> Conditional:
        """Banded again, for rising `kept`: Σ⁻¹ restricted to them is its precision. O(db²)"""
        diagonals = banded.cleaned(self.precision_diagonals())
        rows = jnp.stack([self._restricted(diagonals, kept, k) for k in range(len(diagonals))])
        cov = BandedPrecision(banded.cholesky(rows))
        whole = jnp.zeros(self.dim, values.dtype).at[given].set(values)
        mean = -cov.times(banded.symmetric_times(diagonals, whole)[kept])
        logdet = self.logdet() - cov.logdet()
        distance = self.inv_quad(whole.at[kept].set(mean))
        return Conditional(mean, cov, log_normal(distance, logdet, len(given)))

    def conditional_where(self, mask: Array, values: Array, /) -> Conditional:
        """As `conditional`, with the given coordinates decoupled from the others. O(db²)"""
        diagonals = banded.cleaned(self.precision_diagonals())
        rows = []
        for k, row in enumerate(diagonals):
            cut = mask | banded.earlier(mask, k)
            rows.append(jnp.where(cut, 0.0 if k else 1.0, row))
        cov = BandedPrecision(banded.cholesky(jnp.stack(rows)))
        pull = jnp.where(mask, 0.0, -banded.symmetric_times(diagonals, values))
        mean = values + jnp.where(mask, 0.0, cov.times(pull))
        count = jnp.sum(mask, dtype=values.dtype)
        logdet = self.logdet() - cov.logdet()
        law = Scaled(cov, jnp.where(mask, 0.0, jnp.ones_like(values)))
        return Conditional(mean, law, log_normal(self.inv_quad(mean), logdet, count))

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Precisions add, if that of the noise is banded too. O(db²)"""
        other = noise.precision_diagonals()
        if other is None:
            return None
        own = self.precision_diagonals()
        width = max(len(own), len(other))
        cov = BandedPrecision(banded.cholesky(_widened(own, width) + _widened(other, width)))
        mean = cov.times(banded.symmetric_times(other, value))
        logdet = self.logdet() + noise.logdet() - cov.logdet()
        distance = self.inv_quad(mean) + noise.inv_quad(value - mean)
        return Conditional(mean, cov, log_normal(distance, logdet, self.dim))

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L Lᵀ v. O(db)"""
        return banded.times(self.lower, self.whiten(vector))

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """L⁻¹ v. O(db²)"""
        return banded.solve(self.lower, vector)

    def variance(self) -> Float[Array, " d"]:
        """By Takahashi's recursion. O(db²), not d products"""
        return banded.selected_inverse(self.lower)[0]

    def stddev(self) -> Float[Array, " d"]:
        """Of the chain in units of its conditional deviations 1/Lᵢᵢ, whose squares may overflow."""
        units = unit_of(jnp.abs(self.lower[0]))
        return jnp.sqrt(self.rescaled(units).variance()) / units

    def precision_diagonal(self) -> Float[Array, " d"]:
        """Diagonal of L Lᵀ. O(db)"""
        return self.precision_diagonals()[0]

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """By Takahashi's recursion. O(db²), not d products"""
        wide = _widened(self.lower, max(width + 1, self.lower.shape[0]))
        return banded.selected_inverse(wide)[: width + 1]

    def _restricted(self, diagonals: Array, kept: Indices, k: int) -> Array:
        """Entries (j, j + k) of Σ⁻¹ restricted to `kept`."""
        n = len(kept)
        later = jnp.asarray(kept)[jnp.minimum(jnp.arange(n) + k, n - 1)]
        offset = later - kept
        inside = (jnp.arange(n) + k < n) & (offset < len(diagonals))
        entries = diagonals[jnp.minimum(offset, len(diagonals) - 1), kept]
        return jnp.where(inside, entries, 0.0)


def _widened(lower: Array, width: int) -> Array:
    """The same band with zero diagonals up to that width, and zeros past the end."""
    return jnp.pad(banded.cleaned(lower), ((0, width - lower.shape[0]), (0, 0)))
