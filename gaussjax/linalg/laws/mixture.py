"""What the mean M = βA + (1 − β)B of two covariances has in excess of theirs, from their roots:

    h = (log|M| − β log|A| − (1 − β) log|B|) / β ≥ 0,

twice the Rényi divergence of order α = 1 − β of two Gaussians with one mean. With A = L Lᵀ,
B = K Kᵀ, M = C Cᵀ, the divergence D of `divergence.py`, and since tr(M⁻¹M) = d, it is a sum of
terms that are not negative, one for 0 < β < 1 and one for β < 0, where M may be indefinite:

    h = D(A, M) + (1/β − 1) D(B, M) = D(A, B) + D(M, B) / |β|.

Nothing cancels when A is close to B as long as E = C⁻¹L − I and F = C⁻¹K − I have all their digits.
C₀ by QR has an error of u, which E and F show: C = C₀(I + X) to second order with X = Φ(T), the
lower triangle of T with half its diagonal, for what C₀ lacks,

    T = β(E + Eᵀ + E Eᵀ) + (1 − β)(F + Fᵀ + F Fᵀ).

For β < 0 it is C = K Z with Z Zᵀ = I + β(G + Gᵀ + G Gᵀ), G = K⁻¹L − I, mended in the same way.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.factor import factorise, half_triangle
from gaussjax.linalg.laws.divergence import divergence_of_roots
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import quotient, unit_of
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import inv_quad_lower, solve, solve_triangle


class Mean(NamedTuple):
    """A root C of M, with E = C⁻¹L − I and F = C⁻¹K − I of the roots of A and B."""

    root: Array
    first: Array
    second: Array


def excess_of_mean(
    a: Array, b: Array, shift: Float[Array, " d"], alpha: Array, beta: Array, *, inside: bool
) -> Float[Array, ""]:
    """H + α vᵀM⁻¹v of two triangular roots, or two diagonals of some. O(d) or O(d³)

    The weight α = 1 − β has digits of its own; derivatives are in β. It is 0 < β < 1 if `inside`,
    else β < 0, where the value is infinite if M is not positive definite.
    """
    if shift.shape[0] == 0:
        return jnp.zeros((), shift.dtype)
    if a.ndim == b.ndim == 1:
        return _of_diagonals(a, b, shift, alpha, beta)
    a, b = (jnp.diag(x) if x.ndim == 1 else jnp.tril(x) for x in (a, b))
    mean = _mean(a, b, alpha, beta, inside=inside)
    regular = jnp.all(jnp.diagonal(mean.root) > 0)  # false where it is NaN
    known = jnp.all(jnp.isfinite(a)) & jnp.all(jnp.isfinite(b)) & ~jnp.any(jnp.isnan(shift))
    lost = jnp.where(known & (not inside), jnp.inf, jnp.nan)
    one = jnp.eye(len(shift), dtype=mean.root.dtype)  # a value that is not used has derivatives too
    a, b, root = (jnp.where(regular, x, one) for x in (a, b, mean.root))
    first, second = (jnp.where(regular, x, 0.0) for x in (mean.first, mean.second))
    value = _excess(a, b, shift, alpha, beta, Mean(root, first, second), inside)
    return jnp.where(regular, value, lost)


def root_of_mean(
    a: Array, b: Array, alpha: Array, beta: Array, *, inside: bool
) -> Float[Array, "d d"]:
    """C, from two triangles; NaN where M is not positive definite."""
    return _mean(a, b, alpha, beta, inside=inside).root


# At fixed A, B and β, βD(A, M) + (1 − β)D(B, M) is least where M is the mean: what M changes by
# counts for nothing. The rest is the gradient of D, with tril(C⁻ᵀE) + diag(r/L) for its L. Of the
# distance it is 2uᵀdv − uᵀdM u with u = M⁻¹v. So one mean does for the value and the gradient, and
# only second derivatives need one of its own.
@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _excess(
    a: Array, b: Array, shift: Array, alpha: Array, beta: Array, mean: Mean, inside: bool
) -> Array:
    distance = inv_quad_lower(mean.root, shift)
    if inside:
        parts = [_divergence(*x, mean.root) for x in ((a, mean.first), (b, mean.second))]
        return parts[0] + alpha / beta * parts[1] + alpha * distance
    # Z − I, and the identity is the root of B beside it
    more = root_beside_identity(beta * _symmetric(_of_ratio(a, b)))
    diagonal = jnp.diagonal(more)
    value = _squares(more) + 2 * jnp.sum(minus_log1p(diagonal, 1 + diagonal))
    return divergence_of_roots(a, b, jnp.zeros_like(shift)) - value / beta + alpha * distance


@_excess.defjvp
def _(inside, primals, tangents):
    (a, b, shift, alpha, beta, mean), (da, db, dshift, dalpha, dbeta, _) = primals, tangents
    root, first, second = mean
    slopes = [
        solve_triangle(root, e, transpose=True) + jnp.diag(jnp.diagonal(e) / jnp.diagonal(x))
        for e, x in ((first, a), (second, b))
    ]
    moved = jnp.sum(slopes[0] * da) + alpha / beta * jnp.sum(slopes[1] * db)
    moved = 2 * moved - _divergence(b, second, root) / jnp.square(beta) * dbeta
    w = solve(root, shift)
    u = solve(root, w, transpose=True)
    x, y = dot(a.T, u), dot(b.T, u)
    change = beta * jnp.sum(x * dot(da.T, u)) + alpha * jnp.sum(y * dot(db.T, u))
    change = 2 * (jnp.sum(u * dshift) - change) - _squares(x) * dbeta - _squares(y) * dalpha
    return _excess(*primals, inside), moved + alpha * change + _squares(w) * dalpha


def _divergence(a: Array, e: Array, root: Array) -> Array:
    """D(A, M) from E = C⁻¹L − I."""
    r = jnp.diagonal(e)
    ratio = jnp.where(jnp.abs(r) < 0.5, 1 + r, jnp.diagonal(a) / jnp.diagonal(root))
    return _squares(e) + 2 * jnp.sum(minus_log1p(r, ratio))


def _mean(a: Array, b: Array, alpha: Array, beta: Array, *, inside: bool) -> Mean:
    if not inside:
        ratio = _of_ratio(a, b)
        change = root_beside_identity(beta * _symmetric(ratio))
        z = change + jnp.eye(len(a), dtype=a.dtype)
        first, second = (solve_triangle(z, x) for x in (ratio - change, -change))
        return Mean(jnp.tril(dot(b, z)), first, second)
    root = triangular_root(jnp.concatenate([jnp.sqrt(beta) * a, jnp.sqrt(alpha) * b], axis=1))
    first, second = (solve_triangle(root, x - root) for x in (a, b))
    lack = beta * _symmetric(first) + alpha * _symmetric(second)
    lack = lax.stop_gradient(half_triangle(lack))
    same = jnp.all(a == b)  # then E and F are zero, but their derivatives are not
    lacks = [jnp.where(same, lax.stop_gradient(e), lack) for e in (first, second)]
    return Mean(root, first - lacks[0], second - lacks[1])


def _of_ratio(a: Array, b: Array) -> Array:
    """K⁻¹L − I."""
    return solve_triangle(b, a - b)


def root_beside_identity(y: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Z − I with Z Zᵀ = I + Y, to full accuracy also where Y is small. O(d³)"""
    identity = jnp.eye(len(y), dtype=y.dtype)
    z = factorise(identity + y)
    change = z - identity
    left = lax.stop_gradient(solve(z, solve(z, y - _symmetric(change)).T))
    return change + lax.stop_gradient(dot(z, half_triangle(left)))


def _symmetric(e: Array) -> Array:
    """(I + E)(I + E)ᵀ − I."""
    return e + e.T + gram(e)


def _squares(x: Array) -> Array:
    return jnp.sum(jnp.square(x))


def _of_diagonals(a: Array, b: Array, shift: Array, alpha: Array, beta: Array) -> Array:
    """Coordinate by coordinate; one that is known to both adds nothing if their means agree."""
    known = (a == 0) & (b == 0)
    one_a, one_b = (jnp.where(known, 1.0, x) for x in (a, b))
    ratio = quotient(one_a, one_b)
    value = excess_of_ratio(quotient(one_a - one_b, one_b), ratio, alpha, beta)
    unit = unit_of(jnp.maximum(one_a, one_b))
    mean = beta * jnp.square(one_a / unit) + alpha * jnp.square(one_b / unit)
    w = quotient(shift / unit, jnp.sqrt(jnp.where(mean > 0, mean, 1.0)))
    distance = jnp.where(mean > 0, jnp.square(w), jnp.inf)
    same = jnp.where(shift == 0, 0.0, jnp.inf).astype(shift.dtype)
    terms = value + alpha * distance
    terms = jnp.where((a == 0) ^ (b == 0), jnp.inf, jnp.where(known, same, terms))
    return jnp.sum(jnp.where((a >= 0) & (b >= 0), terms, jnp.nan))


@jax.custom_jvp
def excess_of_ratio(r: Array, ratio: Array, alpha: Array, beta: Array) -> Array:
    """(log(1 + βt) − β log(1 + t)) / β ≥ 0 with 1 + t = ratio² = (1 + r)²; ∞ if βt ≤ −1."""
    valid, x, whole, parts = _of_ratios(r, ratio, alpha, beta)
    inside = parts[0] + alpha / beta * parts[1]
    outside = jnp.square(r) + 2 * minus_log1p(r, ratio)
    outside = outside - (jnp.square(x) + 2 * minus_log1p(x, whole)) / beta
    value = jnp.where(beta > 0, inside, outside)
    return jnp.where(valid, value, jnp.where(jnp.isnan(ratio), jnp.nan, jnp.inf))


@excess_of_ratio.defjvp
def _(primals, tangents):  # of t: 1/(1 + βt) − 1/(1 + t) = (1 − β) t / ((1 + βt)(1 + t))
    (r, ratio, alpha, beta), (dr, _, _, dbeta) = primals, tangents
    valid, _, whole, parts = _of_ratios(r, ratio, alpha, beta)
    slope = 2 * alpha * (r / whole) * ((2 + r) / whole) / ratio
    slope = jnp.where(valid, slope, jnp.where(jnp.isnan(ratio), jnp.nan, 0.0))
    moved = slope * dr - parts[1] / jnp.square(beta) * dbeta
    return excess_of_ratio(r, ratio, alpha, beta), moved


def _of_ratios(
    r: Array, ratio: Array, alpha: Array, beta: Array
) -> tuple[Array, Array, Array, list[Array]]:
    """Whether 1 + βt > 0, x and 1 + x with (1 + x)² = 1 + βt, D(1 + t, 1 + βt) and D(1, 1 + βt)."""
    # Far from 1 + t = 1, whose square may leave the range, 1 + βt = (1 + t)(β + (1 − β)/(1 + t)).
    far = ratio > 2
    share = beta + alpha * jnp.square(1 / jnp.where(far, ratio, 1.0))
    r_near = jnp.where(far, 0.0, r)
    y = beta * r_near * (2 + r_near)
    valid = jnp.where(far, share > 0, y > -1)
    y, share = jnp.where(valid, y, 0.0), jnp.where(valid & far, share, 1.0)
    whole = jnp.where(far, ratio * jnp.sqrt(share), jnp.sqrt(1 + y))
    x = jnp.where(far, whole - 1, y / (1 + jnp.sqrt(1 + y)))
    parts = []
    for e, rest in (((r - x) / whole, ratio / whole), (-x / whole, 1 / whole)):
        parts.append(jnp.square(e) + 2 * minus_log1p(e, rest))
    return valid, x, whole, parts
