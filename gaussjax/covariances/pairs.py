"""Operations on two covariances of any structures, for one pair.

Structures are compared through what both say of themselves; no rule here names one. The generic
rule takes d basis vectors a block at a time, so no d × d array appears unless an operand is one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.covariances.base import Covariance, dtype_of, over_basis
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.sum import Sum
from gaussjax.linalg import lowrank, small
from gaussjax.linalg.divergence import divergence_of_ratio, divergence_of_roots


def shifted_divergence(
    a: Covariance, b: Covariance, shift: Float[Array, " d"], /
) -> Float[Array, ""]:
    """D(A, B) + vᵀB⁻¹v, where D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A|.

    Twice the KL divergence of two Gaussians whose means are v apart.
    """
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return divergence_of_roots(root_a, root_b, shift)
    return divergence(a, b) + b.inv_quad(shift)


def divergence(a: Covariance, b: Covariance, /) -> Float[Array, ""]:
    """D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A|, by the first rule that knows both.

    The first four are exact however close A and B are; the last is the textbook formula.
    """
    zero = jnp.zeros(a.dim, jnp.result_type(dtype_of(a), dtype_of(b)))
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return divergence_of_roots(root_a, root_b, zero)
    # D(A, B) = D(B⁻¹, A⁻¹): the trace and the determinant of B⁻¹A = (A⁻¹)⁻¹B⁻¹ up to similarity.
    root_a, root_b = a.precision_root(), b.precision_root()
    if root_a is not None and root_b is not None:
        return divergence_of_roots(root_b, root_a, zero)
    parts_a, parts_b = a.thin_parts(), b.thin_parts()
    if parts_a is not None and parts_b is not None:
        return _thin_divergence(a, b, parts_a, parts_b)
    same = _own_divergence(a, b)
    if same is not None:
        return same
    if _is_dense(a) or _is_dense(b) or a.dim <= small.LIMIT:
        ratio = jax.vmap(b.whiten, 1, 1)(a.dense_factor())
        return divergence_of_ratio(ratio, a.logdet() - b.logdet())
    return _textbook(a, b)


def log_ratio(a: Covariance, b: Covariance, /) -> Float[Array, ""]:
    """log|A| − log|B|, exact between triangular roots that are close. O(d) for those"""
    for root_a, root_b, sign in (
        (a.covariance_root(), b.covariance_root(), 2),
        (a.precision_root(), b.precision_root(), -2),
    ):
        if root_a is not None and root_b is not None:
            x, y = (r if r.ndim == 1 else jnp.diagonal(r) for r in (root_a, root_b))
            r = (x - y) / y
            near = jnp.abs(r) < 0.5
            logs = jnp.where(near, jnp.log1p(jnp.where(near, r, 0.0)), jnp.log(x / y))
            return sign * jnp.sum(logs)
    return a.logdet() - b.logdet()


def trace_solve(a: Covariance, b: Covariance, /) -> Float[Array, ""]:
    """tr(B⁻¹A), by the first rule that knows both; O(d) products and solves if none does."""
    bands = b.precision_diagonals()
    if bands is not None:  # Σ over the bands of B⁻¹ alone: O(dw), not d solves
        twice = jnp.where(jnp.arange(len(bands)) > 0, 2.0, 1.0).astype(bands.dtype)
        return jnp.sum(twice[:, None] * bands * a.diagonals(len(bands) - 1))
    parts = a.thin_parts()
    if parts is not None:  # s² against diag(B⁻¹), and r quadratic forms: not d solves
        scale, factor = parts
        columns = jax.vmap(b.inv_quad, 1)(factor)
        return jnp.sum(jnp.square(scale) * b.precision_diagonal()) + jnp.sum(columns)
    column, sums = a.toeplitz_column(), b.inverse_diagonal_sums()
    if column is not None and sums is not None:  # sums over diagonals: not d solves
        return 2 * jnp.sum(column * sums) - jnp.sum(column[:1] * sums[:1])
    same = _own_divergence(a, b)
    if same is not None:
        return same + a.dim + log_ratio(a, b)
    if _is_dense(a) or _is_dense(b):  # all columns at once: a d × d array is there already
        return jnp.sum(jax.vmap(b.inv_quad, 1)(a.dense_factor()))
    parts = b.thin_parts()
    if parts is not None:  # r products with A, not d solves
        return lowrank.trace_solve(lowrank.eliminate_by_leverage(*parts), a.variance(), a.times)
    return jnp.sum(over_basis(a, lambda e: b.inv_quad(a.color(e))))


def add(a: Covariance, b: Covariance, /) -> Covariance:
    """A + B in the structure that one of them finds for it, dense if one is dense, else a `Sum`."""
    for one, other in ((a, b), (b, a)):
        total = one.plus(other)
        if total is not None:
            return total
    both = Sum(a, b)
    return Cholesky(both.covariance_root()) if _is_dense(a) or _is_dense(b) else both


def _thin_divergence(
    a: Covariance, b: Covariance, parts_a: tuple[Array, Array], parts_b: tuple[Array, Array]
) -> Array:
    close = lowrank.comparable(parts_a, parts_b)
    # A batch computes both branches, and neither may put a NaN into the other's gradient.
    safe_a, safe_b = (
        (jnp.where(close, s, 1.0), jnp.where(close, w, 0.0)) for s, w in (parts_a, parts_b)
    )
    return jax.lax.cond(close, lambda: lowrank.divergence(safe_a, safe_b), lambda: _textbook(a, b))


def _own_divergence(a: Covariance, b: Covariance) -> Array | None:
    """D(A, B) by what A knows of B, or B of A."""
    known = a.divergence_to(b)
    return b.divergence_from(a) if known is None else known


def _textbook(a: Covariance, b: Covariance) -> Array:
    return trace_solve(a, b) - a.dim - (a.logdet() - b.logdet())


def _is_dense(cov: Covariance) -> bool:
    """Whether a structure holds as many numbers as a matrix."""
    return sum(leaf.size for leaf in jax.tree.leaves(cov)) >= cov.dim**2
