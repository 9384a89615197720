"""Gaussians from a matrix: the covariance, its inverse, or a root of one."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift
from gaussjax.constructors._arguments import mean_and_matrix, of_size
from gaussjax.constructors._values import factor_of, judged_triangle, nan_unless, symmetric_factor
from gaussjax.covariances import Cholesky, Isotropic, PrecisionCholesky, Root, ShardedCholesky
from gaussjax.gaussian import Gaussian
from gaussjax.linalg import semidefinite, sharded


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

    `lower` is `(..., d, d)` with a positive diagonal; entries above it are dropped.

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
    mean, lower = mean_and_matrix(mean, "lower", lower)
    is_triangle, valid, lower = judged_triangle(lower)
    cure = "for a covariance matrix use from_covariance"
    _errors.all_true("lower must be a triangle", is_triangle, cure)
    cure = "for a singular law there is from_root"
    _errors.all_true("lower must be finite with a positive diagonal", valid, cure)
    return Gaussian(mean, Cholesky(lower))


def from_covariance(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Σ) from a covariance matrix, which is factorised once, here. O(d³)

    `matrix` is `(..., d, d)`, symmetric to √ε of its diagonal (it is symmetrised), and positive
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
    mean, matrix = mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, Cholesky(factor_of(matrix)))


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
    mean = of_size(mean, "factor", factor.shape[-2])
    batches = {"mean": mean.shape[:-1], "factor": factor.shape[:-2]}
    _errors.broadcastable(batches, between=True)
    valid = jnp.all(jnp.isfinite(factor), (-2, -1))
    _errors.all_true("factor must be finite", valid)
    return Gaussian(mean, Root(nan_unless(valid, factor, 2)))


def from_semidefinite(
    mean: ArrayLike,
    matrix: ArrayLike,
    *,
    tolerance: float | None = None,
    rank: int | None = None,
) -> Gaussian:
    """N(mean, Σ) from a covariance matrix that may be singular, by its eigenvectors. O(d³)

    `matrix` is `(..., d, d)`, symmetric as for `from_covariance`. Eigenvalues of up to `tolerance`
    times the largest (default: d ε) count as zero. `rank` is the number of eigenvalues to keep, and
    of columns of the root (default: d). Derivatives hold for changes within the range of Σ, and are
    finite where eigenvalues repeat.

    Raises:
        ValueError: `matrix` is not square, sizes differ, batch shapes do not broadcast, `rank` is
            not between 0 and d, `tolerance` is negative, or (where the values are known) Σ is not
            symmetric or has a negative eigenvalue. Under `jit` such an element of a batch is NaN.
        TypeError: an argument is not real, or `tolerance` is not one static number.

    Source: Golub & Van Loan, Matrix Computations, §8.3.

    >>> from gaussjax import covariance
    >>> covariance(from_semidefinite([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], rank=1)).round(4)
    Array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    mean, matrix = mean_and_matrix(mean, "matrix", matrix)
    d = matrix.shape[-1]
    rank = d if rank is None else _errors.dimension("rank", rank)
    if rank > d:
        raise ValueError(f"rank must be at most {d}, the rows of matrix, got {rank}.")
    eps = d * float(jnp.finfo(matrix.dtype).eps)
    tolerance = eps if tolerance is None else _errors.number("tolerance", tolerance)
    factor = symmetric_factor(
        matrix,
        functools.partial(_semidefinite_root, tolerance=tolerance, rank=rank),
        "matrix must not have a negative eigenvalue",
    )
    return Gaussian(mean, Root(factor))


def from_sharded_covariance(
    mean: ArrayLike, matrix: ArrayLike, *, axis: str | tuple[str, ...]
) -> Gaussian:
    """N(mean, Σ) from a covariance matrix whose rows are sharded over devices. O(d³ / devices)

    As `from_covariance`, but each device holds only a small multiple of its rows of Σ and of the
    factor. `axis` is a name, or a tuple of names, of the mesh of `jax.set_mesh`. To shard a matrix:
    `jax.device_put(matrix, NamedSharding(mesh, PartitionSpec(axis)))`.

    Raises:
        ValueError: as `from_covariance`, the mesh has no such axis, or the rows do not divide
            evenly among its devices.
        TypeError: an argument is not real.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    ...     print(from_sharded_covariance([0.0], [[4.0]], axis="rows").cov.lower)
    [[2.]]
    """
    mean, matrix = mean_and_matrix(mean, "matrix", matrix)
    is_symmetric = functools.partial(sharded.is_symmetric, axis=axis)
    factorise = functools.partial(sharded.cholesky, axis=axis)
    return Gaussian(mean, ShardedCholesky(factor_of(matrix, is_symmetric, factorise), axis))


def from_precision(mean: ArrayLike, matrix: ArrayLike) -> Gaussian:
    """N(mean, Λ⁻¹) from a precision matrix, which is factorised once, here, not inverted. O(d³)

    Shapes and errors as in `from_covariance`.

    >>> from gaussjax import variance
    >>> variance(from_precision([0.0], [[4.0]]))
    Array([0.25], dtype=float32)
    """
    mean, matrix = mean_and_matrix(mean, "matrix", matrix)
    return Gaussian(mean, PrecisionCholesky(factor_of(matrix)))


@lift
def _semidefinite_root(
    matrix: Float[Array, "... d d"], *, tolerance: float, rank: int
) -> Float[Array, "... d k"]:
    return semidefinite.semidefinite_root(0.5 * (matrix + matrix.T), tolerance, rank)
