"""Circulant: Σᵢⱼ depends on the distance of i and j around a circle; diagonal in Fourier space.

>>> Circulant(jnp.array([4.0, 2.0, 1.0, 2.0])).dense().round(2)
Array([[2.25, 0.75, 0.25, 0.75],
       [0.75, 2.25, 0.75, 0.25],
       [0.25, 0.75, 2.25, 0.75],
       [0.75, 0.25, 0.75, 2.25]], dtype=float32)
"""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gaussjax._struct import leaf, structure
from gaussjax.covariances.base import Conditional, Covariance, dtype_of, log_density
from gaussjax.linalg import fourier
from gaussjax.linalg._kernels import small
from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.laws.mixture import excess_of_ratio
from gaussjax.linalg.semidefinite import OnSupport
from gaussjax.linalg.triangular import logdet_of_diagonal


@structure
class Circulant(Covariance):
    """Σ = F⁻¹ diag(spectrum) F with the discrete Fourier transform F; `spectrum` `(..., d)`.

    The spectrum holds the eigenvalues of Σ, the `fft` of its first column, and is not negative.
    Since Σ is symmetric, λₖ = λ_d₋ₖ: entries past d // 2 are not read. O(d log d).
    """

    spectrum: Float[Array, "... d"] = leaf(rank=1)

    @property
    def dim(self) -> int:
        """Length of `spectrum`."""
        return self.spectrum.shape[-1]

    @property
    def num_parameters(self) -> int:
        """Half of the spectrum, which mirrors itself."""
        return self.dim // 2 + 1 if self.dim else 0

    def color(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ^{1/2} ε."""
        return self._filtered(jnp.sqrt(self._half), noise)

    def whiten(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ^{-1/2} v."""
        return self._filtered(1 / jnp.sqrt(self._regular), vector)

    def inv_quad(self, vector: Float[Array, " d"], /) -> Float[Array, ""]:
        """Σ xₖ²/λₖ by one transform x of v; ∞ where λ is zero and x is not, to rounding.

        Rounding of the vᵢ is that of the xₖ, on average over k; what the transform adds to that is
        log d. `NEAR` leaves room for both.
        """
        spectrum = self._mirrored(self._half)
        x = fourier.hartley(vector) / math.sqrt(max(self.dim, 1))
        near = small.NEAR * float(jnp.finfo(x.dtype).eps)
        size = jnp.sqrt(jnp.mean(spectrum)) + jnp.max(jnp.abs(vector), initial=0)
        zero = spectrum == 0
        is_off = jnp.any(zero & (jnp.abs(x) > near * size))
        root = jnp.sqrt(jnp.where(zero, 1.0, jnp.where(spectrum > 0, spectrum, jnp.nan)))
        return jnp.where(is_off, jnp.inf, jnp.sum(jnp.square(jnp.where(zero, 0.0, x / root))))

    def rank(self) -> Int[Array, ""]:
        """How many eigenvalues are not zero. O(d)"""
        return jnp.sum(self._mirrored(self._half) != 0)

    def on_support(self, vector: Float[Array, " d"], /) -> OnSupport:
        """Of those eigenvalues. O(d log d)"""
        spectrum = self._mirrored(self._half)
        logdet = logdet_of_diagonal(jnp.where(spectrum == 0, 1.0, spectrum))
        return OnSupport(self.inv_quad(vector), logdet, self.rank().astype(logdet.dtype))

    def logdet(self) -> Float[Array, ""]:
        """Σ log λₖ."""
        return logdet_of_diagonal(self._mirrored(self._half))

    def pivots(self) -> Array:
        """The spectrum."""
        return self._half

    def toeplitz_column(self) -> Float[Array, " d"]:
        """The inverse transform of the spectrum."""
        return fourier.column_of(self._mirrored(self._half))

    def inverse_diagonal_sums(self) -> Float[Array, " d"]:
        """The first column of Σ⁻¹, which is circulant too, times the diagonals' lengths."""
        lengths = jnp.arange(self.dim, 0, -1, dtype=dtype_of(self))
        return lengths * Circulant(1 / self._mirrored(self._half)).toeplitz_column()

    def divergence_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Σ (r − log(1 + r)) over the relative differences of eigenvalues, between two of these."""
        b = _eigenvalues(other)
        if b is None:
            return None
        a, b = self._mirrored(self._half), jnp.where(b > 0, b, jnp.nan)
        return jnp.sum(minus_log1p((a - b) / b, a / b))

    def skewed_to(
        self, other: Covariance, shift: Array, alpha: Array, beta: Array, /, *, inside: bool
    ) -> Float[Array, ""] | None:
        """Sum over eigenvalues, between two of these."""
        b = _eigenvalues(other)
        if b is None:
            return None
        a = self._mirrored(self._half)
        singular = jnp.any((a == 0) ^ (b == 0))
        a, b = (jnp.where(singular, 1.0, x) for x in (a, b))
        roots = jnp.sqrt(a), jnp.sqrt(b)
        r = (a - b) / (roots[1] * (roots[0] + roots[1]))
        value = jnp.sum(excess_of_ratio(r, roots[0] / roots[1], alpha, beta))
        known = singular | (value == jnp.inf)
        distance = Circulant(jnp.where(known, 1.0, beta * a + alpha * b)).inv_quad(shift)
        return jnp.where(known, jnp.inf, value + alpha * distance)

    def transport_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Squared differences of the roots of eigenvalues, between two of these."""
        b = _eigenvalues(other)
        if b is None:
            return None
        return jnp.sum(jnp.square(jnp.sqrt(self._mirrored(self._half)) - jnp.sqrt(b)))

    def trace_to(self, other: Covariance, /) -> Float[Array, ""] | None:
        """Sum of the ratios of eigenvalues, between two of these."""
        b = _eigenvalues(other)
        return None if b is None else jnp.sum(self._mirrored(self._half) / b)

    def fisher_solve(self, cotangent: Any, /) -> Covariance:
        """F = m/(2λ²) with the multiplicity m of an eigenvalue, 1 or 2."""
        k = jnp.arange(len(self._half))
        once = (k == 0) | (2 * k == self.dim)
        share = jnp.where(once, 2.0, 1.0).astype(dtype_of(self))
        change = share * jnp.square(self._half) * cotangent.spectrum[: len(share)]
        return Circulant(self._mirrored(change))

    def plus(self, other: Covariance, /) -> Covariance | None:
        """Spectra add; an isotropic one is constant."""
        eigenvalues = _eigenvalues(other)
        return None if eigenvalues is None else Circulant(self.spectrum + eigenvalues)

    def rescaled(self, factor: Array, /) -> Covariance | None:
        """Circulant again, if all coordinates are scaled alike."""
        return None if factor.ndim else Circulant(jnp.square(factor) * self.spectrum)

    def posterior(self, noise: Covariance, value: Array, /) -> Conditional | None:
        """Frequency by frequency (Wiener filter), if the noise is circulant or isotropic."""
        eigenvalues = _eigenvalues(noise)
        if eigenvalues is None:
            return None
        share = self._half / (self._half + eigenvalues[: len(self._half)])
        law = Circulant(self._mirrored(share) * eigenvalues)
        both = Circulant(self.spectrum + eigenvalues)
        return Conditional(self._filtered(share, value), law, log_density(both, value))

    def solve(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ⁻¹ v in one pass."""
        return self._filtered(1 / self._regular, vector)

    def color_transpose(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ^{1/2} is symmetric."""
        return self.color(vector)

    def times(self, vector: Float[Array, " d"], /) -> Float[Array, " d"]:
        """Σ v in one pass."""
        return self._filtered(self._half, vector)

    def variance(self) -> Float[Array, " d"]:
        """All alike: the mean of the spectrum. O(d), not d products."""
        return jnp.broadcast_to(jnp.mean(self._mirrored(self._half)), (self.dim,))

    def precision_diagonal(self) -> Float[Array, " d"]:
        """All alike: the mean of 1/λ. O(d), not d solves."""
        return jnp.broadcast_to(jnp.mean(1 / self._mirrored(self._regular)), (self.dim,))

    def diagonals(self, width: int, /) -> Float[Array, "w d"]:
        """Constant along each. O(d log d), not d products."""
        return constant_diagonals(self.toeplitz_column(), width)

    def color_symmetric(self, noise: Float[Array, " d"], /) -> Float[Array, " d"]:
        """The root that `color` takes is the symmetric one. O(d log d), not O(d³)."""
        return self.color(noise)

    @property
    def _half(self) -> Float[Array, " k"]:
        return self.spectrum[: self.dim // 2 + 1]

    @property
    def _regular(self) -> Float[Array, " k"]:
        """The same for what takes Σ⁻¹: NaN if there is none."""
        return jnp.where(jnp.any(self._half == 0), jnp.nan, self._half)

    def _mirrored(self, half: Array) -> Array:
        return jnp.concatenate([half, half[1 : (self.dim + 1) // 2][::-1]])

    def _filtered(self, response: Array, vector: Array) -> Array:
        return fourier.filtered(self._mirrored(response), vector)


def constant_diagonals(column: Float[Array, " d"], width: int, /) -> Float[Array, "w d"]:
    """`Covariance.diagonals` of the Toeplitz matrix with this first column."""
    d = column.shape[0]
    column = jnp.pad(column, (0, width + 1))[: width + 1]
    inside = jnp.arange(width + 1)[:, None] + jnp.arange(d)[None] < d
    return jnp.where(inside, column[:, None], 0.0)


def _eigenvalues(cov: Covariance) -> Float[Array, " d"] | None:
    """Spectrum of a covariance that is circulant, or isotropic."""
    if isinstance(cov, Circulant):
        return cov._mirrored(cov._half)
    root = cov.covariance_root()
    isotropic = root is not None and root.ndim == 1 and cov.toeplitz_column() is not None
    return jnp.square(root) if root is not None and isotropic else None
