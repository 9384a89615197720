"""The mean M = βA + (1 − β)B of two covariances of any structures, and what it has in excess.

    skewed_divergence = (log|M| − β log|A| − (1 − β) log|B|) / β + (1 − β) vᵀM⁻¹v

is twice the Rényi divergence of order α = 1 − β of two Gaussians whose means are v apart.
"""

import functools
import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from gaussjax.covariances import pairs, restricted
from gaussjax.covariances.banded_precision import BandedPrecision
from gaussjax.covariances.base import Covariance, dtype_of
from gaussjax.covariances.low_rank import LowRank
from gaussjax.covariances.toeplitz import Toeplitz
from gaussjax.linalg import banded, low_rank
from gaussjax.linalg.excess import excess_of_logdet
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.laws.mixture import excess_of_mean, root_of_mean
from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import inv_quad_lower, solve

T = TypeVar("T")


class Excess(NamedTuple):
    """What M has in excess, vᵀM⁻¹v, and whether M is positive definite; if not, any numbers."""

    value: Float[Array, ""]
    distance: Float[Array, ""]
    regular: Bool[Array, ""]


def skewed_divergence(
    a: Covariance,
    b: Covariance,
    shift: Float[Array, " d"],
    alpha: Float[Array, ""],
    beta: Float[Array, ""],
    /,
    *,
    inside: bool,
) -> Float[Array, ""]:
    """By the first rule that knows both; 0 < β < 1 if `inside`, else β < 0.

    Exact however close A and B are, where their divergences are. Where M has no structure, a d × d
    array is made.
    """
    root_a, root_b = a.covariance_root(), b.covariance_root()
    if root_a is not None and root_b is not None:
        return excess_of_mean(root_a, root_b, shift, alpha, beta, inside=inside)
    root_a, root_b = a.precision_root(), b.precision_root()
    if root_a is not None and root_b is not None:
        return _of_precisions(root_a, root_b, shift, alpha, beta, inside)
    own = a.skewed_to(b, shift, alpha, beta, inside=inside)
    if own is None and inside:  # of B and A it is β/α times that of A and B
        other = b.skewed_to(a, shift, beta, alpha, inside=True)
        own = None if other is None else alpha / beta * other
    if own is not None:
        return own
    if not _has_structure(a, b, inside):
        root_a, root_b = restricted.triangle(a), restricted.triangle(b)
        return excess_of_mean(root_a, root_b, shift, alpha, beta, inside=inside)
    value = _of_structures(a, b, shift, alpha, beta, inside)
    singular = jnp.isneginf(a.logdet()) ^ jnp.isneginf(b.logdet())
    value = jnp.where(singular, jnp.inf, value)
    return jnp.where(a.is_valid() & b.is_valid(), value, jnp.nan)


# M = A N B with the mean N = βB⁻¹ + (1 − β)A⁻¹ of the precisions, and its excess is that of N. Of
# all x + y = v, x = βA M⁻¹v = βN⁻¹B⁻¹v gives the stationary xᵀA⁻¹x/β + yᵀB⁻¹y/(1 − β) = vᵀM⁻¹v.
def _of_precisions(
    root_a: Array, root_b: Array, shift: Array, alpha: Array, beta: Array, inside: bool
) -> Float[Array, ""]:
    value = excess_of_mean(root_b, root_a, jnp.zeros_like(shift), alpha, beta, inside=inside)
    lower_a, lower_b = (jnp.diag(x) if x.ndim == 1 else jnp.tril(x) for x in (root_a, root_b))
    regular = inside | (value < jnp.inf)
    one = jnp.eye(len(shift), dtype=shift.dtype)  # for the derivatives of what is not used
    lower_a, lower_b = (jnp.where(regular, x, one) for x in (lower_a, lower_b))
    root = root_of_mean(lower_b, lower_a, alpha, beta, inside=inside)
    u = solve(root, solve(root, dot(lower_b, dot(lower_b.T, shift))), transpose=True)
    x, y = dot(lower_a.T, u), dot(lower_b.T, shift - beta * u)
    distance = beta * jnp.sum(jnp.square(x)) + jnp.sum(jnp.square(y)) / alpha
    return jnp.where(regular, value + alpha * distance, value)


def _has_structure(a: Covariance, b: Covariance, inside: bool) -> bool:
    """Whether M, or N as in `_of_precisions`, follows from what both store."""
    if _thin(a, b) is not None:
        return True
    if inside:
        return not (pairs.is_dense(a) or pairs.is_dense(b))
    return _bands(a, b) is not None or _columns(a, b) is not None


# An M̃ in place of M adds D(M, M̃) alone to βD(A, M) + (1 − β)D(B, M), of second order in rounding.
# Where A and B are so close that this shows, the excess is, up to a relative O(β²t²) for the
# eigenvalues 1 + t of B⁻¹A,  (1 − β)((1 − β)D(A, B) + βD(B, A)).
def _of_structures(
    a: Covariance, b: Covariance, shift: Array, alpha: Array, beta: Array, inside: bool
) -> Array:
    thin, bands = _thin(a, b), _bands(a, b)
    if thin is not None and not inside:
        mean = _of_thin_difference(a, b, thin, shift, alpha, beta)
    elif bands is not None:
        mean = _of_banded(a, b, bands, shift, alpha, beta)
    else:
        mean = _of_sum(a, b, shift, alpha, beta)
    there, back = pairs.divergence(a, b), pairs.divergence(b, a)
    closely = alpha * (alpha * there + beta * back)
    eps = float(jnp.finfo(jnp.result_type(dtype_of(a), dtype_of(b))).eps)
    near = there * jnp.maximum(1.0, jnp.square(beta)) < eps * math.sqrt(a.dim)
    value = jnp.where(near, closely, mean.value) + alpha * mean.distance
    return jnp.where(mean.regular, value, there + jnp.inf)  # NaN stays NaN


def _of_sum(a: Covariance, b: Covariance, shift: Array, alpha: Array, beta: Array) -> Excess:
    """From M in a structure."""
    thin, columns = _thin(a, b), _columns(a, b)
    if thin is not None:
        law, regular = _thin_sum(thin, alpha, beta), jnp.ones((), bool)
    elif columns is not None:
        first, second = columns
        column = beta * first + alpha * second
        regular = jnp.isfinite(Toeplitz(lax.stop_gradient(column)).logdet())
        a, b, law = (Toeplitz(x) for x in (first, second, jnp.where(regular, column, second)))
    else:
        parts = restricted.rescaled(a, jnp.sqrt(beta)), restricted.rescaled(b, jnp.sqrt(alpha))
        law, regular = pairs.add(*parts), jnp.ones((), bool)
    parts = pairs.divergence(a, law), pairs.divergence(b, law)
    return Excess(parts[0] + alpha / beta * parts[1], law.inv_quad(shift), regular)


def _of_banded(
    a: Covariance, b: Covariance, bands: list[Array], shift: Array, alpha: Array, beta: Array
) -> Excess:
    """From N⁻¹, as the mean of two banded precisions is banded."""
    width = max(map(len, bands))
    first, second = (jnp.pad(x, ((0, width - len(x)), (0, 0))) for x in bands)
    mean = alpha * first + beta * second
    regular = jnp.all(jnp.isfinite(banded.cholesky(lax.stop_gradient(mean))[0]))
    one = (jnp.arange(width) == 0).astype(mean.dtype)[:, None]
    law = BandedPrecision(banded.cholesky(jnp.where(regular, mean, one)))
    parts = pairs.divergence(law, b), pairs.divergence(law, a)  # D(N⁻¹, B) = D(B⁻¹, N)
    u = law.times(b.solve(shift))
    distance = beta * a.inv_quad(u) + b.inv_quad(shift - beta * u) / alpha
    return Excess(parts[0] + alpha / beta * parts[1], distance, regular)


# [√β W, √α V] and [βW + αV, √(αβ)(W − V)] are one matrix but for a rotation of their columns, and
# the latter is close to W and V where these are close.
def _thin_sum(thin: list[tuple[Array, Array]], alpha: Array, beta: Array) -> LowRank:
    """βA + αB."""
    (s, w), (t, v) = thin
    w, v = low_rank.of_one_rank(w, v)
    factor = jnp.concatenate([beta * w + alpha * v, jnp.sqrt(alpha * beta) * (w - v)], axis=1)
    return LowRank(jnp.hypot(jnp.sqrt(beta) * s, jnp.sqrt(alpha) * t), factor)


# For β < 0 the latter columns are subtracted: M = N − F Fᵀ, F = √(−αβ)(W − V), and with Y = FᵀN⁻¹F,
#   βD(A, M) + αD(B, M) = βD(A, N) + αD(B, N) + tr Y + log|I − Y|.
# A row may have more noise in −βA than in αB, if V makes up for that: in no more rows than V has
# columns. What those lose is a column of F.
def _of_thin_difference(
    a: Covariance,
    b: Covariance,
    thin: list[tuple[Array, Array]],
    shift: Array,
    alpha: Array,
    beta: Array,
) -> Excess:
    (s, w), (t, v) = thin
    gained, lost = alpha * jnp.square(t), -beta * jnp.square(s)
    few = low_rank.largest(min(v.shape))(lax.stop_gradient(jnp.where(lost > 0, lost / gained, 0.0)))
    is_few = jnp.arange(a.dim, dtype=few.dtype)[:, None] == few[None]
    moved = jnp.any(is_few, axis=1) & (lost > 0.75 * gained)
    variance = jnp.where(moved, gained, gained - lost)
    positive, possible = variance > 0, jnp.all(variance >= 0)
    scale = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
    w, v = low_rank.of_one_rank(w, v)
    law = LowRank(jnp.where(possible, scale, 1.0), beta * w + alpha * v)
    seen = low_rank.eliminate(law.scale, law.factor)
    possible &= low_rank.logdet(seen) > -jnp.inf
    spikes = jnp.where(is_few, jnp.where(moved, s, 0.0)[:, None], 0.0)
    columns = [jnp.sqrt(-alpha * beta) * (w - v), jnp.sqrt(-beta) * spikes]
    white = functools.partial(low_rank.whiten, seen)
    whitened = jax.vmap(white, 1, 1)(jnp.concatenate(columns, axis=1))
    y, one = dot(whitened.T, whitened), jnp.eye(whitened.shape[1], dtype=whitened.dtype)
    regular = possible & jnp.all(jnp.isfinite(factorise(one - lax.stop_gradient(y))))
    y = jnp.where(regular, y, 0.0)
    parts = pairs.divergence(a, law), pairs.divergence(b, law)
    value = parts[0] + alpha / beta * parts[1] - excess_of_logdet(-y) / beta
    along = inv_quad_lower(factorise(one - y), dot(whitened.T, white(shift)))
    return Excess(value, low_rank.inv_quad(seen, shift) + along, regular)


def _thin(*covs: Covariance) -> list[tuple[Array, Array]] | None:
    return _all([c.thin_parts() for c in covs])


def _bands(*covs: Covariance) -> list[Array] | None:
    return _all([c.precision_diagonals() for c in covs])


def _columns(*covs: Covariance) -> list[Array] | None:
    return _all([c.toeplitz_column() for c in covs])


def _all(found: list[T | None]) -> list[T] | None:
    known = [x for x in found if x is not None]
    return known if len(known) == len(found) else None
