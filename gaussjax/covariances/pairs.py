"""Operations on two covariances of any structures, for one pair.

Structures are compared through what both say of themselves; no rule here names one. The generic
rule takes d basis vectors a block at a time, so no d × d array appears unless an operand is one.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._mapping import all_of_batch
from gaussjax.covariances.base import BLOCK, Covariance, dtype_of, over_basis
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.sum import Sum
from gaussjax.linalg import low_rank
from gaussjax.linalg.laws.divergence import divergence_of_ratio, divergence_of_roots
from gaussjax.linalg.laws.trace import trace_of_roots


def shifted_divergence(
    a: Covariance, b: Covariance, shift: Float[Array, " d"], /
) -> Float[Array, ""]:
    """D(A, B) + vᵀB⁻¹v, where D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A|.

    Twice the KL divergence of two Gaussians whose means are v apart.
    """
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return divergence_of_roots(root_a, root_b, shift)
    distance, logdet = b.inv_quad_and_logdet(shift)
    logdets = a.logdet(), logdet
    value = _divergence(a, b, logdets) + distance
    singular = (logdet == -jnp.inf) & (logdets[0] > -jnp.inf)
    value = jnp.where(singular, jnp.inf, value)
    return jnp.where(a.is_valid() & b.is_valid(), value, jnp.nan)  # in products signs are lost


def shifted_trace(a: Covariance, b: Covariance, shift: Float[Array, " d"], /) -> Float[Array, ""]:
    """tr(B⁻¹A) + vᵀB⁻¹v; A may be singular."""
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return trace_of_roots(root_a, root_b, shift)
    return trace_solve(a, b) + b.inv_quad(shift)


def divergence(a: Covariance, b: Covariance, /) -> Float[Array, ""]:
    """D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A|, by the first rule that knows both.

    Exact however close A and B are, but for structures that share no rule. Where a d × d array is
    there already, or small, these have that of the ratio, else that of its columns.
    """
    return _divergence(a, b, (a.logdet(), b.logdet()))


def _divergence(a: Covariance, b: Covariance, logdets: tuple[Array, Array]) -> Array:
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
        return _thin_divergence(a, b, (parts_a, parts_b), logdets)
    same = _own_divergence(a, b)
    if same is not None:
        return same
    if is_dense(a) or is_dense(b) or a.dim <= BLOCK:
        ratio = jax.vmap(b.whiten, 1, 1)(a.dense_factor())
        return divergence_of_ratio(ratio, logdets[0] - logdets[1])
    return _divergence_by_columns(a, b, logdets)


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
    """tr(B⁻¹A), by the first rule that knows both; O(d) products and solves if none does.

    None takes a logarithm or a solve of A, which may be singular, or subtracts.
    """
    zero = jnp.zeros(a.dim, jnp.result_type(dtype_of(a), dtype_of(b)))
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return trace_of_roots(root_a, root_b, zero)
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
    root_a, root_b = a.precision_root(), b.precision_root()
    if root_a is not None and root_b is not None:
        return trace_of_roots(root_b, root_a, zero)
    known = a.trace_to(b)
    if known is not None:
        return known
    if is_dense(a) or is_dense(b):  # all columns at once: a d × d array is there already
        return jnp.sum(jax.vmap(b.inv_quad, 1)(a.dense_factor()))
    parts = b.thin_parts()
    if parts is not None:  # r products with A, not d solves
        return low_rank.trace_solve(low_rank.eliminate_by_leverage(*parts), a.variance(), a.times)
    return jnp.sum(over_basis(a, lambda e: b.inv_quad(a.color(e))))


def add(a: Covariance, b: Covariance, /) -> Covariance:
    """A + B in the structure that one of them finds for it, dense if one is dense, else a `Sum`."""
    total, root = a.plus(b), a.covariance_root()
    if total is None and (root is None or root.ndim == 1):  # a triangle stays one
        total = b.plus(a)
    if total is not None:
        return total
    both = Sum(a, b)
    return Cholesky(both.covariance_root()) if is_dense(a) or is_dense(b) else both


def _thin_divergence(
    a: Covariance, b: Covariance, parts: tuple[Any, Any], logdets: tuple[Array, Array]
) -> Array:
    close = low_rank.comparable(*parts)
    # A batch computes both branches, and neither may put a NaN into the other's gradient.
    safe_a, safe_b = ((jnp.where(close, s, 1.0), jnp.where(close, w, 0.0)) for s, w in parts)
    if safe_b[1].size == 0:  # both take less than a branch does
        closely = low_rank.divergence_to_diagonal(safe_a, safe_b[0])
        return jnp.where(close, closely, textbook(a, b, logdets))
    return jax.lax.cond(
        close,
        lambda: low_rank.divergence(safe_a, safe_b),
        lambda: textbook(a, b, logdets),
    )


def _own_divergence(a: Covariance, b: Covariance) -> Array | None:
    """D(A, B) by what A knows of B, or B of A."""
    known = a.divergence_to(b)
    return b.divergence_from(a) if known is None else known


# With S = CᵀB⁻¹C − I for a root C of A, and its eigenvalues t,
#   D(A, B) = Σ (t − log(1 + t)) = tr S²/2 − tr S³/3 + tr S⁴/4 − …
# The traces are inner products of Seᵢ, S²eᵢ and S³eᵢ, columns that are small when A is close to B,
# with no more memory than the columns. Up to tr S⁶ the series leaves out less than
#   Σ |t|⁷/7 ≤ (tr S⁴)^(7/4)/7,
# and takes over from the textbook formula where that is below d ε, the rounding of the latter.
def _divergence_by_columns(a: Covariance, b: Covariance, logdets: tuple[Array, Array]) -> Array:
    dtype = jnp.result_type(dtype_of(a), dtype_of(b))
    limit = (7 * a.dim * float(jnp.finfo(dtype).eps)) ** (2 / 7)  # of √tr S⁴, and D ≲ ½ √d of that
    known = textbook(a, b, logdets)
    far = ~(jax.lax.stop_gradient(known) < math.sqrt(a.dim) * limit)

    def change(v: Array) -> Array:
        return a.color_transpose(b.solve(a.color(v))) - v

    def fourth(e: Array) -> Array:
        return jnp.sum(jnp.square(change(change(e))))

    def terms(near: Array, e: Array) -> Array:
        x = change(jnp.where(near, e, 0.0))  # zero, and no infinity for a gradient, if not
        y = change(x)
        z = change(y)
        return jnp.sum(x * (x / 2 - y / 3) + y * (y / 4 - z / 5) + z * z / 6)

    def nearby() -> Array:
        moment = jax.lax.stop_gradient(jnp.sum(over_basis(a, fourth)))
        near = ~far & (moment <= limit**2)
        series = jnp.sum(over_basis(a, functools.partial(terms, near)))
        return jnp.where(near, series, known)

    return jax.lax.cond(all_of_batch(far), lambda: known, nearby)


def textbook(
    a: Covariance, b: Covariance, /, logdets: tuple[Array, Array] | None = None
) -> Float[Array, ""]:
    """tr(B⁻¹A) − d − log|B⁻¹A|, whose error is of the order of rounding times d."""
    logdet_a, logdet_b = (a.logdet(), b.logdet()) if logdets is None else logdets
    return trace_solve(a, b) - a.dim - (logdet_a - logdet_b)


def is_dense(cov: Covariance) -> bool:
    """Whether a structure holds as many numbers as a matrix, or has a root that does."""
    roots = cov.covariance_root(), cov.precision_root()
    return (
        any(root is not None and root.ndim == 2 for root in roots)
        or sum(leaf.size for leaf in jax.tree.leaves(cov)) >= cov.dim**2
    )
