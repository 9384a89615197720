"""Gaussians from what users have: a mean, and a covariance in some form.

Leading axes are batch and broadcast between mean and covariance; a mean that is one number stands
for all coordinates. Values are checked where they are known (a bad one is a ValueError); under
`jit` an element of a batch with a bad value is NaN.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._dtypes import common_dtype, result_dtype
from gaussjax._lift import compiled_once, lift
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
    PrecisionCholesky,
    Root,
    ShardedCholesky,
    Toeplitz,
)
from gaussjax.gaussian import Gaussian
from gaussjax.linalg import banded, cholesky, fourier, semidefinite, sharded

F = TypeVar("F", bound=Callable[..., Any])


def standard(dim: int, dtype: DTypeLike | None = None) -> Gaussian:
    """N(0, I) in `dim` dimensions. O(d)

    Raises:
        TypeError, ValueError: `dim` is not an integer, or negative.

    >>> from gaussjax import entropy
    >>> entropy(standard(1)).round(4)
    Array(1.4189, dtype=float32)
    """
    dim = _errors.dimension("dim", dim)
    dtype = jnp.dtype(float) if dtype is None else dtype
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return Gaussian(jnp.zeros(dim, dtype), Isotropic(jnp.ones((), dtype), dim))


def from_cholesky(mean: ArrayLike, lower: ArrayLike) -> Gaussian:
    """N(mean, L Lᵀ) from a lower Cholesky factor. O(d²)

    `lower` is `(..., d, d)` with a positive diagonal; what stands above it is dropped.

    Raises:
        ValueError: `lower` is not square, sizes differ, batch shapes do not broadcast, or (where
            the values are known) the diagonal is not positive. Under `jit` such an element of a
            batch is NaN.
        TypeError: an argument is not real.

    >>> from gaussjax import covariance
    >>> covariance(from_cholesky([0.0, 0.0], [[2.0, 0.0], [1.0, 1.0]]))
    Array([[4., 2.],
           [2., 2.]], dtype=float32)
    """
    mean, lower = _mean_and_matrix(mean, "lower", lower)
    is_triangle, valid, lower = _judged_triangle(lower)
    cure = "for a covariance matrix use from_covariance"
    _errors.all_true("lower must be a triangle", is_triangle, cure)
    cure = "for a singular law there is from_root"
    _errors.all_true("lower must be finite with a positive diagonal", valid, cure)
    return Gaussian(mean, Cholesky(lower))


def from_covariance(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Σ) from a covariance matrix, which is factorised here once. O(d³)

    `matrix` is `(..., d, d)`, symmetric within √ε of its diagonal (and symmetrised), positive
    definite to working precision.

    Raises:
        ValueError: `matrix` is not square, sizes differ, batch shapes do not broadcast, or (where
            the values are known) it is not symmetric or not positive definite. Under `jit` such an
            element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from_covariance([0.0, 0.0], [[4.0, 2.0], [2.0, 2.0]]).cov
    Cholesky(lower=Array([[2., 0.],
           [1., 1.]], dtype=float32))
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, Cholesky(_factor(matrix)))


def from_root(mean: ArrayLike, factor: ArrayLike) -> Gaussian:
    """N(mean, F Fᵀ) from any root of the covariance: the law of μ + F ε. O(d k)

    `factor` F is `(..., d, k)`. With fewer than d independent rows the law is singular.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) F
            is not finite. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from gaussjax import rank
    >>> g = from_root([0.0, 0.0], [[1.0], [2.0]])
    >>> rank(g)
    Array(1, dtype=int32)
    """
    mean, factor = _errors.real_arrays(mean=mean, factor=factor)
    _errors.rank_at_least("factor", factor, 2)
    mean = _of_size(mean, "factor", factor.shape[-2])
    batches = {"mean": mean.shape[:-1], "factor": factor.shape[:-2]}
    _errors.broadcastable(batches, between=True)
    valid = jnp.all(jnp.isfinite(factor), (-2, -1))
    _errors.all_true("factor must be finite", valid)
    return Gaussian(mean, Root(_nan_unless(valid, factor, 2)))


def from_semidefinite(
    mean: ArrayLike,
    matrix: ArrayLike,
    *,
    tolerance: float | None = None,
    rank: int | None = None,
) -> Gaussian:
    """N(mean, Σ) from a covariance matrix that may be singular, by its eigenvectors. O(d³)

    `matrix` is `(..., d, d)`, symmetric as for `from_covariance`. Eigenvalues of up to `tolerance`
    times the largest (d ε if it is not given) count as zero. The root has d columns, or `rank`: the
    number of eigenvalues to keep. Derivatives hold for changes within the range of Σ, and are
    finite where eigenvalues repeat.

    Raises:
        ValueError: `matrix` is not square, sizes differ, batch shapes do not broadcast, `rank` is
            not between 0 and d, `tolerance` is negative, or (where the values are known) Σ is not
            symmetric or has a negative eigenvalue. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    Source: Golub & Van Loan, Matrix Computations, §8.3.

    >>> from gaussjax import covariance
    >>> covariance(from_semidefinite([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], rank=1)).round(4)
    Array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    d = matrix.shape[-1]
    rank = d if rank is None else _errors.dimension("rank", rank)
    if rank > d:
        raise ValueError(f"rank must be at most {d}, the rows of matrix, got {rank}.")
    eps = d * float(jnp.finfo(matrix.dtype).eps)
    tolerance = eps if tolerance is None else float(_errors.numbers("tolerance", tolerance))
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}.")
    factor = _symmetric_factor(
        matrix,
        functools.partial(_semidefinite_root, tolerance=tolerance, rank=rank),
        "matrix must not have a negative eigenvalue",
    )
    return Gaussian(mean, Root(factor))


def from_sharded_covariance(
    mean: ArrayLike, matrix: ArrayLike, *, axis: str | tuple[str, ...]
) -> Gaussian:
    """N(mean, Σ) from a covariance matrix whose rows several devices share. O(d³ / devices)

    As `from_covariance`, but no device ever holds more than its rows of Σ and of the factor, times
    a small number. `axis` is a name, or a tuple of names, of the mesh of `jax.set_mesh`; a matrix
    that is made elsewhere is best put there by
    `jax.device_put(matrix, NamedSharding(mesh, PartitionSpec(axis)))`.

    Raises:
        ValueError: as `from_covariance`, the mesh has no such axis, or the rows do not divide
            evenly among its devices.
        TypeError: an argument is not real.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(from_sharded_covariance([0.0], [[4.0]], axis="rows").cov.lower)
    [[2.]]
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    is_symmetric = functools.partial(sharded.is_symmetric, axis=axis)
    factorise = functools.partial(sharded.cholesky, axis=axis)
    return Gaussian(mean, ShardedCholesky(_factor(matrix, is_symmetric, factorise), axis))


def from_precision(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Λ⁻¹) from a precision matrix, which is factorised here once and not inverted. O(d³)

    Shapes and errors as in `from_covariance`.

    >>> from gaussjax import variance
    >>> variance(from_precision([0.0], [[4.0]]))
    Array([0.25], dtype=float32)
    """
    mean, matrix = _mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, PrecisionCholesky(_factor(matrix)))


def from_scale(mean: ArrayLike, scale: ArrayLike) -> Gaussian:
    """N(mean, diag(scale²)) from standard deviations; a scalar `scale` is isotropic. O(d)

    `scale` is `(..., d)`, or `()`; for a batch of scalars there is `from_isotropic`. A zero makes
    the law singular: that coordinate is known.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) a
            scale is negative. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real.

    >>> from_scale([0.0, 0.0], [1.0, 2.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, scale = _mean_and_vector(mean, "scale", scale)
    return Gaussian(mean, _diagonal(_not_negative("scale", scale), mean.shape[-1]))


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
    return Gaussian(mean, Isotropic(_not_negative("scale", scale, 0), mean.shape[-1]))


def from_variance(mean: ArrayLike, variance: ArrayLike) -> Gaussian:
    """N(mean, diag(variance)) from variances; a scalar is isotropic. O(d)

    `variance` is `(..., d)`, or `()`. Zeros and errors as in `from_scale`; the gradient in a
    variance of zero is zero here, and the true one in a scale of zero there.

    >>> from_variance([0.0, 0.0], [1.0, 4.0]).cov
    Diagonal(scale=Array([1., 2.], dtype=float32))
    """
    mean, variance = _mean_and_vector(mean, "variance", variance)
    scale = _safe_sqrt(_not_negative("variance", variance))
    return Gaussian(mean, _diagonal(scale, mean.shape[-1]))


def from_low_rank(mean: ArrayLike, variance: ArrayLike, factor: ArrayLike) -> Gaussian:
    """N(mean, diag(variance) + W Wᵀ) from variances and a factor with few columns. O(dr)

    `variance` is `(..., d)` and not negative, `factor` W `(..., d, r)`, with dependent columns or
    not. Any number of variances may be zero, which is exact. Where W Wᵀ does not make up for them
    (more than r, or dependent rows of W there) the law is singular: it has samples, moments, sums
    and posteriors, an entropy of −∞, and densities and solves that are NaN.

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
    mean = _of_size(mean, "variance", variance.shape[-1])
    _errors.rank_at_least("factor", factor, 2)
    _errors.same_rows("factor", factor.shape, mean.shape[-1], "mean")
    batches = {"mean": mean.shape[:-1], "variance": variance.shape[:-1]}
    _errors.broadcastable({**batches, "factor": factor.shape[:-2]}, between=True)
    valid = jnp.all((variance >= 0) & jnp.isfinite(variance), axis=-1)
    _errors.all_true("variance must be finite and not negative", valid)
    _errors.all_true("factor must be finite", jnp.all(jnp.isfinite(factor), (-2, -1)))
    return Gaussian(mean, LowRank(_safe_sqrt(_nan_unless(valid, variance, 1)), factor))


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


def from_circulant(mean: ArrayLike, column: ArrayLike) -> Gaussian:
    """N(mean, Σ) from the first column of a circulant Σ, which mirrors itself. O(d log d)

    `column` is `(..., d)` with columnₖ = column_d₋ₖ and a positive transform.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or (where the values are known) the
            column does not mirror itself or has no positive transform. Under `jit` such an element
            of a batch is NaN.

    >>> from gaussjax import precision
    >>> from_circulant([0.0, 0.0], [2.0, 1.0]).cov
    Circulant(spectrum=Array([3., 1.], dtype=float32))
    """
    mean, column = _mean_and_column(mean, column)
    mirrored = jnp.roll(column[..., ::-1], 1, axis=-1)
    size = jnp.max(jnp.abs(column), axis=-1, keepdims=True, initial=0)
    tolerance = float(jnp.finfo(column.dtype).eps) ** 0.5 * size
    symmetric = jnp.all(jnp.abs(column - mirrored) <= tolerance, axis=-1)
    _errors.all_true("column must mirror itself, entry k equal to entry d − k", symmetric)
    spectrum = _spectrum_of(0.5 * (column + mirrored))
    valid = symmetric & jnp.all(spectrum > 0, axis=-1)
    _errors.all_true("column must have a positive Fourier transform", valid)
    return Gaussian(mean, Circulant(_nan_unless(valid, spectrum, 1)))


def from_toeplitz(mean: ArrayLike, column: ArrayLike) -> Gaussian:
    """N(mean, Σ) with Σᵢⱼ = column[|i − j|], as of a stationary process on an even grid. O(d)

    `column` is `(..., d)`. That Σ is positive definite is not checked here, which would cost
    O(d²): densities of one that is not are NaN.

    Raises:
        ValueError: sizes differ, batch shapes do not broadcast, or a value is not finite.

    >>> from gaussjax import covariance
    >>> covariance(from_toeplitz([0.0, 0.0], [2.0, 1.0]))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    mean, column = _mean_and_column(mean, column)
    _errors.all_true("column must be finite", jnp.all(jnp.isfinite(column), axis=-1))
    return Gaussian(mean, Toeplitz(column))


def from_banded_precision(mean: ArrayLike, diagonals: ArrayLike) -> Gaussian:
    """N(mean, Λ⁻¹) from the diagonals of a banded precision Λ, a Gaussian Markov chain. O(db²)

    `diagonals` is `(..., b + 1, d)`: row k holds Λᵢ,ᵢ₊ₖ at i, and what stands past the end is not
    read (the lower form of `scipy.linalg.solveh_banded`).

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
    mean = _fitting(mean, "diagonals", diagonals, 2)
    with jax.debug_nans(False):  # a failure has its sentence
        lower = _banded_cholesky(diagonals)
    works = ~jnp.any(jnp.isnan(lower), (-2, -1))
    _errors.all_true("diagonals must be those of a positive definite matrix", works)
    return Gaussian(mean, BandedPrecision(lower))


def _structures(mean: Any, items: Sequence[Covariance | ArrayLike]) -> tuple[Covariance, ...]:
    if not isinstance(items, list | tuple) or len(items) == 0:
        raise ValueError(
            f"A list or tuple of one or more covariances is needed, got {type(items).__name__}."
        )
    dtype = common_dtype([mean, *(x for item in items for x in _leaves_of(item))])
    return tuple(
        item if isinstance(item, Covariance) else Cholesky(_factor(_square("matrix", item, dtype)))
        for item in items
    )


def _leaves_of(item: Any) -> list[Any]:
    return jax.tree.leaves(item) if isinstance(item, Covariance) else [item]


def _square(name: str, matrix: Any, dtype: Any) -> Array:
    matrix = _errors.real_array(name, matrix, dtype)
    _errors.square(name, matrix)
    return matrix


def _composed(mean: Any, name: str, cov: Kronecker | BlockDiagonal) -> Gaussian:
    mean = _errors.real_array("mean", mean, result_dtype(cov))
    parts = cov.factors if isinstance(cov, Kronecker) else cov.blocks
    g = Gaussian(_of_size(mean, f"{name} of sizes {[part.dim for part in parts]}", cov.dim), cov)
    _errors.batch_shape("g", g)
    return g


_spectrum_of = lift(fourier.spectrum_of)
_banded_cholesky = lift(banded.cholesky)


@lift
def _semidefinite_root(
    matrix: Float[Array, "... d d"], *, tolerance: float, rank: int
) -> Float[Array, "... d k"]:
    return semidefinite.semidefinite_root(0.5 * (matrix + matrix.T), tolerance, rank)


def _safe_sqrt(values: Array) -> Array:
    """√v with the derivative zero, not infinite, where v is zero."""
    positive = values > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1.0)), values)


def _mean_and_matrix(mean: Any, name: str, matrix: Any) -> tuple[Array, Array]:
    mean, matrix = _errors.real_arrays(**{"mean": mean, name: matrix})
    _errors.square(name, matrix)
    return _fitting(mean, name, matrix, 2), matrix


def _mean_and_vector(mean: Any, name: str, vector: Any) -> tuple[Array, Array]:
    mean, vector = _errors.real_arrays(**{"mean": mean, name: vector})
    if vector.ndim == 0:
        _errors.rank_at_least("mean", mean, 1)
        return mean, vector
    return _fitting(mean, name, vector, 1), vector


def _mean_and_column(mean: Any, column: Any) -> tuple[Array, Array]:
    mean, column = _errors.real_arrays(mean=mean, column=column)
    _errors.rank_at_least("column", column, 1)
    return _fitting(mean, "column", column, 1), column


def _fitting(mean: Array, name: str, factor: Array, rank: int) -> Array:
    """The mean, of the event size of the factor and a batch shape that broadcasts with its."""
    mean = _of_size(mean, name, factor.shape[-1])
    batches = {"mean": mean.shape[:-1], name: factor.shape[: factor.ndim - rank]}
    _errors.broadcastable(batches, between=True)
    return mean


def _of_size(mean: Array, whose: str, size: int) -> Array:
    """A mean of that many entries: one number stands for all of them."""
    if mean.ndim == 0:
        return jnp.broadcast_to(mean, (size,))
    _errors.same_dim("mean", mean.shape[-1], mean.shape, size, whose)
    return mean


def _diagonal(scale: Array, size: int) -> Covariance:
    return Diagonal(scale) if scale.ndim else Isotropic(scale, size)


def _not_negative(name: str, values: Array, rank: int | None = None) -> Array:
    """Scales or variances; an event with one that is negative or not finite is NaN."""
    rank = min(values.ndim, 1) if rank is None else rank
    valid, values = _judged_scales(values, rank=rank)
    _errors.all_true(f"{name} must be finite and not negative", valid)
    return values


def _judging(function: F, *, static: tuple[str, ...] = ()) -> F:
    """Compiled once; a NaN for what is wrong has its sentence, under `jax_debug_nans` too."""
    compiled = compiled_once(function, static=static)

    @functools.wraps(function)
    def judged(*args: Any, **kwargs: Any) -> Any:
        with jax.debug_nans(False):
            return compiled(*args, **kwargs)

    return cast(F, judged)


@functools.partial(_judging, static=("rank",))
def _judged_scales(values: Array, rank: int) -> tuple[Array, Array]:
    """Whether they are finite and not negative, and what is; the others are NaN."""
    valid = (values >= 0) & jnp.isfinite(values)
    valid = jnp.all(valid, axis=-1) if rank else valid
    return valid, _nan_unless(valid, values, rank)


@_judging
def _judged_triangle(matrix: Array) -> tuple[Array, Array, Array]:
    """Whether it is no symmetric matrix, and whether its lower triangle is a factor; that, or NaN.

    A diagonal matrix is a triangle.
    """
    is_symmetric = jnp.all(matrix == jnp.swapaxes(matrix, -1, -2), (-2, -1))
    is_lower = jnp.all(jnp.triu(matrix, 1) == 0, (-2, -1))
    lower = jnp.tril(matrix)
    diagonal = jnp.diagonal(lower, axis1=-2, axis2=-1)
    valid = jnp.all(jnp.isfinite(lower), (-2, -1)) & jnp.all(diagonal > 0, -1)
    return is_lower | ~is_symmetric, valid, _nan_unless(valid, lower, 2)


def _nan_unless(valid: Array, values: Array, rank: int) -> Array:
    return jnp.where(jnp.expand_dims(valid, tuple(range(-rank, 0))), values, jnp.nan)


def _factor(
    matrix: Array,
    is_symmetric: Callable[[Array], Array] | None = None,
    factorise: Callable[[Array], Array] = cholesky,
) -> Array:
    """Cholesky factor of a matrix that should be symmetric positive definite; NaN if not."""
    problem = "matrix must be positive definite to working precision"
    cure = "for a singular one there are from_semidefinite and from_root"
    return _symmetric_factor(matrix, factorise, problem, cure, is_symmetric)


def _symmetric_factor(
    matrix: Array,
    factorise: Callable[[Array], Array],
    problem: str,
    cure: str = "",
    is_symmetric: Callable[[Array], Array] | None = None,
) -> Array:
    """Factor of a matrix that should be symmetric; NaN if not, or if it has none."""
    judge = _judged if is_symmetric is None else functools.partial(_judge, is_symmetric)
    with jax.debug_nans(False):  # a failure has its sentence
        finite, symmetric, matrix = judge(matrix)
        _errors.all_true("matrix must be finite", finite)
        _errors.all_true("matrix must be symmetric", symmetric)
        factor = factorise(matrix)
    _errors.all_true(problem, _has_no_nan(factor), cure)
    return factor


def _judge(is_symmetric: Callable[[Array], Array], matrix: Array) -> tuple[Array, Array, Array]:
    """Whether it is finite, and symmetric; the matrix, or NaN."""
    symmetric = is_symmetric(matrix)
    finite = jnp.all(jnp.isfinite(matrix), (-2, -1))
    return finite, symmetric, _nan_unless(symmetric, matrix, 2)


@_judging
def _judged(matrix: Array) -> tuple[Array, Array, Array]:
    return _judge(_is_symmetric, matrix)


@_judging
def _has_no_nan(matrix: Array) -> Array:
    return ~jnp.any(jnp.isnan(matrix), (-2, -1))


def _is_symmetric(matrix: Array) -> Array:
    """|Aᵢⱼ − Aⱼᵢ| ≤ √ε √(Aᵢᵢ Aⱼⱼ): a tolerance that does not depend on units."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(matrix, axis1=-2, axis2=-1)))
    tolerance = (
        float(jnp.finfo(matrix.dtype).eps) ** 0.5 * scale[..., :, None] * scale[..., None, :]
    )
    return jnp.all(jnp.abs(matrix - jnp.swapaxes(matrix, -1, -2)) <= tolerance, (-2, -1))
