"""The mean M = βA + (1 − β)B of two covariances of any structures, and what it has in excess.

    skewed_divergence = (log|M| − β log|A| − (1 − β) log|B|) / β + (1 − β) vᵀM⁻¹v

is twice the Rényi divergence of order α = 1 − β of two Gaussians whose means are v apart.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.covariances import conditionals, pairs, restricted
from gaussjax.covariances.base import Covariance, dtype_of
from gaussjax.covariances.low_rank import LowRank
from gaussjax.linalg import low_rank
from gaussjax.linalg.laws.mixture import excess_of_mean, root_of_mean
from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import solve


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

    Exact however close A and B are, where their divergences are. Where β < 0 and no rule knows
    both, or where the sum of both has no structure, a d × d array is made.
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
    thin = a.thin_parts() is not None and b.thin_parts() is not None
    if not inside or (not thin and (pairs.is_dense(a) or pairs.is_dense(b))):
        root_a, root_b = restricted.triangle(a), restricted.triangle(b)
        return excess_of_mean(root_a, root_b, shift, alpha, beta, inside=inside)
    value = _of_structures(a, b, shift, alpha, beta)
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
    root = root_of_mean(lower_b, lower_a, alpha, beta, inside=inside)
    u = solve(root, solve(root, dot(lower_b, dot(lower_b.T, shift))), transpose=True)
    x, y = dot(lower_a.T, u), dot(lower_b.T, shift - beta * u)
    distance = beta * jnp.sum(jnp.square(x)) + jnp.sum(jnp.square(y)) / alpha
    return jnp.where(value == jnp.inf, value, value + alpha * distance)


# An M̃ in place of M adds D(M, M̃) alone to βD(A, M) + (1 − β)D(B, M), of second order in rounding.
# Where A and B are so close that this shows, the excess is, up to a relative O(t²) for the
# eigenvalues 1 + t of B⁻¹A,  (1 − β)((1 − β)D(A, B) + βD(B, A)).
def _of_structures(a: Covariance, b: Covariance, shift: Array, alpha: Array, beta: Array) -> Array:
    mean, distance = _mean(a, b, shift, alpha, beta)
    there, back = pairs.divergence(a, b), pairs.divergence(b, a)
    closely = alpha * (alpha * there + beta * back)
    eps = float(jnp.finfo(jnp.result_type(dtype_of(a), dtype_of(b))).eps)
    near = there < eps * math.sqrt(a.dim)
    return jnp.where(near, closely, mean) + alpha * distance


def _mean(
    a: Covariance, b: Covariance, shift: Array, alpha: Array, beta: Array
) -> tuple[Array, Array]:
    """The excess, and vᵀM⁻¹v, from M or from N as in `_of_precisions`, whichever is structured."""
    law = _of_banded(a, b, alpha, beta)
    if law is None:
        law = _sum(a, b, alpha, beta)
        parts = pairs.divergence(a, law), pairs.divergence(b, law)
        return parts[0] + alpha / beta * parts[1], law.inv_quad(shift)
    parts = pairs.divergence(law, b), pairs.divergence(law, a)  # D(N⁻¹, B) = D(B⁻¹, N)
    u = law.times(b.solve(shift))
    distance = beta * a.inv_quad(u) + b.inv_quad(shift - beta * u) / alpha
    return parts[0] + alpha / beta * parts[1], distance


# [√β W, √α V] and [βW + αV, √(αβ)(W − V)] are one matrix but for a rotation of their columns, and
# the latter is close to W and V where these are close.
def _sum(a: Covariance, b: Covariance, alpha: Array, beta: Array) -> Covariance:
    """βA + αB."""
    parts_a, parts_b = a.thin_parts(), b.thin_parts()
    roots = jnp.sqrt(beta), jnp.sqrt(alpha)
    if parts_a is None or parts_b is None:
        return pairs.add(restricted.rescaled(a, roots[0]), restricted.rescaled(b, roots[1]))
    scale = jnp.hypot(roots[0] * parts_a[0], roots[1] * parts_b[0])
    w, v = low_rank.of_one_rank(parts_a[1], parts_b[1])
    factor = jnp.concatenate([beta * w + alpha * v, roots[0] * roots[1] * (w - v)], axis=1)
    return LowRank(scale, factor)


def _of_banded(a: Covariance, b: Covariance, alpha: Array, beta: Array) -> Covariance | None:
    """N⁻¹, where both precisions are banded: a posterior's precision is the sum of two."""
    if a.precision_diagonals() is None or b.precision_diagonals() is None:
        return None
    zero = jnp.zeros(a.dim, dtype_of(a))
    one = restricted.rescaled(a, 1 / jnp.sqrt(alpha))
    other = restricted.rescaled(b, 1 / jnp.sqrt(beta))
    return conditionals.posterior(one, other, zero).cov
