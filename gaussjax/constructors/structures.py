"""Gaussians from fewer numbers than a matrix has: scales, factors, blocks, columns, bands."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from gaussjax import _errors
from gaussjax._dtypes import common_dtype, result_dtype
from gaussjax._lift import lift
from gaussjax.constructors._arguments import (
    fitting,
    mean_and_column,
    mean_and_vector,
    of_size,
    square,
)
from gaussjax.constructors._values import factor_of, nan_unless, not_negative
from gaussjax.covariances import (
    BandedPrecision,
    BlockDiagonal,
    Cholesky,
    Circulant,
    Covariance,
    Diagonal,
    Isotropic,
    Kronecker,
    LowRank,
    Toeplitz,
)
from gaussjax.gaussian import Gaussian
from gaussjax.linalg import banded, fourier


def from_scale(mean: ArrayLike, scale: ArrayLike) -> Gaussian:
    """N(mean, diag(scale²)) from standard deviations; a scalar `scale` is isotropic. O(d)

    `scale` is `(..., d)`, or `()`; `from_isotropic` takes a batch of scalars. A zero makes the law
    singular: that coordinate is known.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) a
            scale is negative. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from_scale([0.0, 0.0], [1.0, 2.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, scale = mean_and_vector(mean, "scale", scale)
    return Gaussian(mean, _diagonal(not_negative("scale", scale), mean.shape[-1]))


def from_isotropic(mean: ArrayLike, scale: ArrayLike) -> Gaussian:
    """N(mean, scale² I) from one standard deviation each. O(d)

    `mean` is `(..., d)` and `scale` `(...)`, a batch of scalars. Errors as in `from_scale`.

    >>> from gaussjax import variance
    >>> variance(from_isotropic([[0.0, 0.0], [1.0, 1.0]], [1.0, 3.0]))
    Array([[1., 1.],
           [9., 9.]], dtype=float32)
    """
    mean, scale = _errors.real_arrays(mean=mean, scale=scale)
    _errors.rank_at_least("mean", mean, 1)
    _errors.broadcastable({"mean": mean.shape[:-1], "scale": scale.shape}, between=True)
    return Gaussian(mean, Isotropic(not_negative("scale", scale, 0), mean.shape[-1]))


def from_variance(mean: ArrayLike, variance: ArrayLike) -> Gaussian:
    """N(mean, diag(variance)) from variances; a scalar is isotropic. O(d)

    `variance` is `(..., d)`, or `()`. Zeros and errors as in `from_scale`, but the gradient at a
    variance of zero is set to zero; at a scale of zero it is the true one.

    >>> from_variance([0.0, 0.0], [1.0, 4.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, variance = mean_and_vector(mean, "variance", variance)
    scale = _safe_sqrt(not_negative("variance", variance))
    return Gaussian(mean, _diagonal(scale, mean.shape[-1]))


def _diagonal(scale: Array, size: int) -> Covariance:
    return Diagonal(scale) if scale.ndim else Isotropic(scale, size)


def from_low_rank(mean: ArrayLike, variance: ArrayLike, factor: ArrayLike) -> Gaussian:
    """N(mean, diag(variance) + W Wᵀ) from variances and a factor with few columns. O(dr)

    `variance` is `(..., d)` and not negative, `factor` W `(..., d, r)`; its columns may be
    dependent. Any number of variances may be zero, exactly. Where W Wᵀ does not make up for them
    (more than r zeros, or dependent rows of W there) the law is singular: it has samples, moments,
    sums and posteriors, its entropy is −∞, and its densities and solves are NaN.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) a
            variance is negative. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from gaussjax import variance
    >>> variance(from_low_rank([0.0, 0.0], [1.0, 1.0], [[1.0], [2.0]]))
    Array([2., 5.], dtype=float32)
    """
    mean, variance, factor = _errors.real_arrays(mean=mean, variance=variance, factor=factor)
    _errors.rank_at_least("variance", variance, 1)
    mean = of_size(mean, "variance", variance.shape[-1])
    _errors.rank_at_least("factor", factor, 2)
    _errors.same_rows("factor", factor.shape, mean.shape[-1], "mean")
    batches = {"mean": mean.shape[:-1], "variance": variance.shape[:-1]}
    _errors.broadcastable({**batches, "factor": factor.shape[:-2]}, between=True)
    valid = jnp.all((variance >= 0) & jnp.isfinite(variance), axis=-1)
    _errors.all_true("variance must be finite and not negative", valid)
    _errors.all_true("factor must be finite", jnp.all(jnp.isfinite(factor), (-2, -1)))
    return Gaussian(mean, LowRank(_safe_sqrt(nan_unless(valid, variance, 1)), factor))


def _safe_sqrt(values: Array) -> Array:
    """√v with the derivative zero, not infinite, where v is zero."""
    positive = values > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1.0)), values)


def from_kronecker(mean: ArrayLike, covs: Sequence[Covariance | ArrayLike]) -> Gaussian:
    """N(mean, Σ₁ ⊗ Σ₂ ⊗ …) from two or more structures or covariance matrices. O(Σ dᵢ³)

    With two, the rows of the matrix `mean.reshape(d₁, d₂)` have covariance Σ₁ and its columns Σ₂.

    Raises:
        ValueError: the sizes do not multiply to the dimension of the mean, or as `from_covariance`.

    >>> from gaussjax import variance
    >>> variance(from_kronecker([0.0, 0.0], [[[4.0]], Diagonal(jnp.array([1.0, 2.0]))]))
    Array([ 4., 16.], dtype=float32)
    """
    return _composed(mean, "covs", Kronecker(_structures(mean, covs)))


def from_block_diagonal(mean: ArrayLike, blocks: Sequence[Covariance | ArrayLike]) -> Gaussian:
    """N(mean, diag(Σ₁, Σ₂, …)) from structures or covariance matrices. O(Σ dᵢ³)

    Raises:
        ValueError: the sizes do not add up to the dimension of the mean, or as `from_covariance`.

    >>> from gaussjax import variance
    >>> variance(from_block_diagonal([0.0, 0.0], [[[4.0]], [[9.0]]]))
    Array([4., 9.], dtype=float32)
    """
    return _composed(mean, "blocks", BlockDiagonal(_structures(mean, blocks)))


def _structures(mean: Any, items: Sequence[Covariance | ArrayLike]) -> tuple[Covariance, ...]:
    if not isinstance(items, list | tuple) or len(items) == 0:
        raise ValueError(
            f"A list or tuple of one or more covariances is needed, got {type(items).__name__}."
        )
    dtype = common_dtype([mean, *(x for item in items for x in _leaves_of(item))])
    return tuple(
        item if isinstance(item, Covariance) else Cholesky(factor_of(square("matrix", item, dtype)))
        for item in items
    )


def _leaves_of(item: Any) -> list[Any]:
    return jax.tree.leaves(item) if isinstance(item, Covariance) else [item]


def _composed(mean: Any, name: str, cov: Kronecker | BlockDiagonal) -> Gaussian:
    mean = _errors.real_array("mean", mean, result_dtype(cov))
    parts = cov.factors if isinstance(cov, Kronecker) else cov.blocks
    g = Gaussian(of_size(mean, f"{name} of sizes {[part.dim for part in parts]}", cov.dim), cov)
    _errors.batch_shape("g", g)
    return g


def from_circulant(mean: ArrayLike, column: ArrayLike) -> Gaussian:
    """N(mean, Σ) from the first column of a symmetric circulant Σ. O(d log d)

    `column` is `(..., d)` with columnₖ = column_d₋ₖ and a positive Fourier transform.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) the
            column does not mirror itself or has no positive transform. Under `jit` such an element
            of a batch is NaN.

    >>> from gaussjax import precision
    >>> from_circulant([0.0, 0.0], [2.0, 1.0]).cov
    Circulant(spectrum=Array([3., 1.], dtype=float32))
    """
    mean, column = mean_and_column(mean, column)
    mirrored = jnp.roll(column[..., ::-1], 1, axis=-1)
    size = jnp.max(jnp.abs(column), axis=-1, keepdims=True, initial=0)
    tolerance = float(jnp.finfo(column.dtype).eps) ** 0.5 * size
    symmetric = jnp.all(jnp.abs(column - mirrored) <= tolerance, axis=-1)
    _errors.all_true("column must mirror itself, entry k equal to entry d − k", symmetric)
    spectrum = _spectrum_of(0.5 * (column + mirrored))
    valid = symmetric & jnp.all(spectrum > 0, axis=-1)
    _errors.all_true("column must have a positive Fourier transform", valid)
    return Gaussian(mean, Circulant(nan_unless(valid, spectrum, 1)))


def from_toeplitz(mean: ArrayLike, column: ArrayLike) -> Gaussian:
    """N(mean, Σ) with Σᵢⱼ = column[|i − j|], as of a stationary process on an even grid. O(d)

    `column` is `(..., d)`. Whether Σ is positive definite is not checked, which would cost O(d²);
    if it is not, densities are NaN.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or a value is not finite.

    >>> from gaussjax import covariance
    >>> covariance(from_toeplitz([0.0, 0.0], [2.0, 1.0]))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    mean, column = mean_and_column(mean, column)
    _errors.all_true("column must be finite", jnp.all(jnp.isfinite(column), axis=-1))
    return Gaussian(mean, Toeplitz(column))


def from_banded_precision(mean: ArrayLike, diagonals: ArrayLike) -> Gaussian:
    """N(mean, Λ⁻¹) from the diagonals of a banded precision Λ, a Gaussian Markov chain. O(db²)

    `diagonals` is `(..., b + 1, d)`: row k holds Λᵢ,ᵢ₊ₖ at i, and entries past the end are not read
    (the lower form of `scipy.linalg.solveh_banded`).

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) Λ
            is not positive definite. Under `jit` such an element of a batch is NaN.

    Source: Rue & Held, Gaussian Markov Random Fields, §2.4.

    >>> from gaussjax import precision
    >>> precision(from_banded_precision([0.0, 0.0], [[2.0, 2.0], [-1.0, 0.0]])).round(4)
    Array([[ 2., -1.],
           [-1.,  2.]], dtype=float32)
    """
    mean, diagonals = _errors.real_arrays(mean=mean, diagonals=diagonals)
    _errors.rank_at_least("diagonals", diagonals, 2)
    if diagonals.shape[-2] == 0:
        raise ValueError(f"diagonals must have at least one row, got shape {diagonals.shape}.")
    mean = fitting(mean, "diagonals", diagonals, 2)
    with jax.debug_nans(False):  # a failure raises its own error
        lower = _banded_cholesky(diagonals)
    works = ~jnp.any(jnp.isnan(lower), (-2, -1))
    _errors.all_true("diagonals must be those of a positive definite matrix", works)
    return Gaussian(mean, BandedPrecision(lower))


_spectrum_of = lift(fourier.spectrum_of)


_banded_cholesky = lift(banded.cholesky)
