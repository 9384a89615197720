"""Gaussian in, Gaussian out: linear maps, marginals, conditionals, sums.

The structure of the covariance is kept where the mathematics keeps it; otherwise the result is a
dense Cholesky factor, found from roots by QR and never by subtracting covariances.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from gaussjax import _errors
from gaussjax._dtypes import result_dtype
from gaussjax._lift import lift, lift_as_whole
from gaussjax.covariances import Cholesky, conditionals, pairs, restricted
from gaussjax.covariances.base import Indices
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.products import dot

# Maps --------------------------------------------------------------------------------------------


@lift
def affine(
    g: Gaussian, matrix: Float[Array, "... m d"], *, offset: Float[Array, "... m"] | None = None
) -> Gaussian:
    """Law of A x + b: N(A μ + b, A Σ Aᵀ), by QR of A C. O(m d²)

    `matrix` A is `(..., m, d)`, `offset` b `(..., m)` or zero. The result is dense in m dimensions:
    a `Cholesky` factor, or a `Root` if m > d (the result is then singular) or Σ is a `Root`. For a
    diagonal A use `scale_by`, which keeps the structure.

    Raises:
        ValueError: sizes differ, or batch shapes do not broadcast.

    Source: Bishop, Pattern Recognition and Machine Learning, eq. 2.115.

    >>> from gaussjax import from_scale, variance
    >>> variance(affine(from_scale([0.0, 0.0], [1.0, 2.0]), [[1.0, 1.0]])).round(3)
    Array([5.], dtype=float32)
    """
    mean = dot(matrix, g.mean)
    if offset is not None:
        _errors.same_dim("offset", offset.shape[0], offset.shape, len(mean), "A x")
        mean = mean + offset
    return Gaussian(mean, restricted.mapped(g.cov, matrix))


@lift
def shift(g: Gaussian, offset: Float[Array, "... d"]) -> Gaussian:
    """Law of x + b: N(μ + b, Σ). O(d)

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import standard
    >>> shift(standard(2), [1.0, 2.0]).mean
    Array([1., 2.], dtype=float32)
    """
    return Gaussian(g.mean + offset, g.cov)


def scale_by(g: Gaussian, factor: ArrayLike) -> Gaussian:
    """Law of f ⊙ x: N(f ⊙ μ, diag(f) Σ diag(f)), in the structure of Σ. O(d)

    `factor` is one number, or `(..., d)`, without zeros. Structures that are not closed under
    separate factors (Kronecker, Toeplitz, circulant) are wrapped, never made dense.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale
    >>> scale_by(from_scale([1.0, 1.0], [1.0, 2.0]), -2.0).cov
    Diagonal(scale=Array([2., 4.], dtype=float32))
    """
    _errors.instance("g", g, Gaussian, order="g, factor")
    factor = _errors.real_array("factor", factor, result_dtype(g))
    return (_scaled_alike if factor.ndim == 0 else _scaled)(g, factor)


@lift
def _scaled_alike(g: Gaussian, factor: Float[Array, "..."]) -> Gaussian:
    return Gaussian(factor * g.mean, restricted.rescaled(g.cov, factor))


@lift
def _scaled(g: Gaussian, factor: Float[Array, "... d"]) -> Gaussian:
    return Gaussian(factor * g.mean, restricted.rescaled(g.cov, factor))


# Parts -------------------------------------------------------------------------------------------


def marginal(g: Gaussian, indices: Any) -> Gaussian:
    """Marginal distribution of some coordinates: N(μᵢ, Σᵢᵢ). O(m) to O(m d²), by structure

    `indices` is static: integers (negative ones count from the end), one integer, a slice, or a
    mask of d booleans; or a JAX array of integers `(..., m)`, which may be traced: the result is
    NaN if an index is out of range or repeated. Diagonal and low-rank covariances keep their
    structure; so do blocks for indices that do not jump back, Toeplitz for even steps, and a chain
    for a segment.

    Raises:
        TypeError: an index is not an integer, or the mask a JAX array.
        ValueError: a static index is out of range or repeated.

    >>> from gaussjax import from_scale
    >>> marginal(from_scale([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), [0, 2]).mean
    Array([1., 3.], dtype=float32)
    """
    _errors.instance("g", g, Gaussian, order="g, indices")
    if _is_jax(indices):
        return _marginal_at(g, _positions(indices))
    return _marginal(g, indices=_errors.indices(indices, g.dim))


def condition(g: Gaussian, indices: Any, values: ArrayLike) -> Gaussian:
    """Conditional distribution given the coordinates at `indices`. O(d³), by structure

    The result is the law of the other coordinates, in order. `values` is `(..., m)`, or `(...)` for
    one integer; indices as in `marginal`. By QR of the rows of the factor, or rotations of its
    columns if it is small: [[A, 0], [B, C]] gives the mean μ₂ + B A⁻¹(v − μ₁) and the covariance C
    Cᵀ, so nothing is subtracted. Diagonal and low-rank covariances, blocks, precisions and chains
    keep their structure. No indices give g, all indices a Gaussian of dimension 0.
    `condition_where` takes a mask.

    Raises:
        ValueError: a static index is out of range or repeated, or sizes differ.

    Source: Bishop, Pattern Recognition and Machine Learning, eqs. 2.81-2.82.

    >>> from gaussjax import from_cholesky
    >>> g = from_cholesky([0.0, 0.0], [[2.0, 0.0], [1.0, 1.0]])
    >>> condition(g, [0], [2.0])
    Gaussian(mean=Array([1.], dtype=float32), cov=Cholesky(lower=Array([[1.]], dtype=float32)))
    """
    _errors.instance("g", g, Gaussian, order="g, indices, values")
    if not isinstance(values, jax.Array):
        values = _errors.real_array("values", values, result_dtype(g))
    if not isinstance(indices, slice | list | tuple | range) and np.ndim(indices) == 0:
        values = values[..., None]
    _errors.rank_at_least("values", values, 1)
    if _is_jax(indices):
        given = _positions(indices)
        _errors.one_each("values", values.shape, given.shape[-1])
        return _condition_at(g, given, values)
    static = _errors.indices(indices, g.dim)
    _errors.one_each("values", values.shape, len(static))
    return _condition(g, values, given=static)


@lift
def convolve(p: Gaussian, q: Gaussian) -> Gaussian:
    """Law of x + y for independent x ~ p, y ~ q: N(μp + μq, Σp + Σq). O(d) to O(d³)

    The covariance has the structure that `add` finds.

    Raises:
        ValueError: sizes differ or batch shapes do not broadcast.

    >>> from gaussjax import from_scale, variance
    >>> variance(convolve(from_scale([0.0], [3.0]), from_scale([0.0], [4.0])))
    Array([25.], dtype=float32)
    """
    return Gaussian(p.mean + q.mean, pairs.add(p.cov, q.cov))


@lift
def as_cholesky(g: Gaussian) -> Gaussian:
    """The same law with a `Cholesky` covariance. O(d³), by structure

    For the carry of a `scan`, `cond` or `while_loop`, whose structure must not change.
    `broadcast_to` does the same for its batch shape. A singular law is better carried as a `Root`:
    a triangle lacks some of its derivatives.

    >>> from gaussjax import from_scale
    >>> as_cholesky(from_scale([0.0, 0.0], [1.0, 2.0])).cov
    Cholesky(lower=Array([[1., 0.],
           [0., 2.]], dtype=float32))
    """
    return Gaussian(g.mean, Cholesky(restricted.triangle(g.cov)))


# One Gaussian ------------------------------------------------------------------------------------


@lift
def _marginal(g: Gaussian, *, indices: tuple[int, ...]) -> Gaussian:
    kept = np.asarray(indices, int)
    return Gaussian(g.mean[kept], restricted.marginal(g.cov, kept))


@lift
def _marginal_at(g: Gaussian, indices: Int[Array, "... m"]) -> Gaussian:
    indices, valid = _from_start(indices, g.dim)
    law = Gaussian(g.mean[indices], restricted.marginal(g.cov, indices))
    return jax.tree.map(lambda x: jnp.where(valid, x, jnp.nan), law)


@lift_as_whole
def _condition(g: Gaussian, values: Float[Array, "... m"], *, given: tuple[int, ...]) -> Gaussian:
    seen, order = np.sort(np.asarray(given, int)), np.argsort(np.asarray(given, int))
    return _conditioned(g, np.setdiff1d(np.arange(g.dim), seen), seen, values[order])


@lift_as_whole
def _condition_at(
    g: Gaussian, given: Int[Array, "... m"], values: Float[Array, "... m"]
) -> Gaussian:
    given, valid = _from_start(given, g.dim)
    free = jnp.ones(g.dim, bool).at[given].set(False)
    kept = jnp.argsort(~free)[: g.dim - given.shape[0]]  # stable: in their order
    law = _conditioned(g, kept, given, values)
    return jax.tree.map(lambda x: jnp.where(valid, x, jnp.nan), law)


def _is_jax(indices: Any) -> bool:
    """Whether positions are a JAX array, or hold one: their values may not be known."""
    items = indices if isinstance(indices, list | tuple) else [indices]
    return any(isinstance(i, jax.Array) for i in items)


def _positions(indices: Any) -> Array:
    array = jnp.atleast_1d(jnp.asarray(indices))
    if array.dtype == bool:
        raise TypeError(
            "indices must be static or integers, got a JAX array of booleans: for a mask that is "
            "traced there is condition_where."
        )
    return _errors.index_array("indices", array)


def _from_start(indices: Array, dim: int) -> tuple[Array, Array]:
    """Positions counted from the start, and whether all are in range and different."""
    indices = jnp.where(indices < 0, indices + dim, indices)
    inside = jnp.all((indices >= 0) & (indices < dim))
    hits = jnp.zeros(dim, int).at[indices].add(1)
    return indices, inside & jnp.all(hits <= 1)


def _conditioned(g: Gaussian, kept: Indices, given: Indices, values: Array) -> Gaussian:
    law = conditionals.conditional(g.cov, kept, given, values - g.mean[given])
    return Gaussian(g.mean[kept] + law.mean, law.cov)
