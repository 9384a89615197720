"""The Fisher-Rao distance: the length of the shortest path in the Fisher information metric."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax._lift import lift
from gaussjax._struct import exported
from gaussjax.covariances import Covariance, restricted
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.laws.divergence import divergence_of_roots
from gaussjax.linalg.laws.eigenvalues import squared_logs, squared_logs_of_diagonals
from gaussjax.linalg.ranges import length, quotient, root_of_square
from gaussjax.linalg.triangular import solve


@exported
class FisherRaoBounds(NamedTuple):
    """Result of `fisher_rao_bounds`, one entry of each field per pair.

    Attributes:
        lower: at most the distance, `(...)`.
        upper: at least the distance, `(...)`.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]


@lift
def fisher_rao_distance(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """Length of the shortest path from p to q in ds² = dμᵀΣ⁻¹dμ + ½ tr((Σ⁻¹dΣ)²). O(d³)

    Known in three cases, and NaN in all others, which `fisher_rao_bounds` covers:
    d = 1, 2√2 artanh √(((μp − μq)² + 2(σp − σq)²) / ((μp − μq)² + 2(σp + σq)²)); equal means,
    √(½ Σ log²λ) over the eigenvalues of Σq⁻¹Σp; equal arrays of covariances, 2√2 arsinh(Δ/√8) with
    the Mahalanobis distance Δ. √(δᵀFδ) as p → q; at p = q it is zero, with the subgradient zero.
    First derivatives hold for all changes, second ones for those that stay within the case; others
    are NaN. O(d) for diagonals. Infinite if one law is singular, NaN if both are.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Atkinson & Mitchell, Sankhyā A 43 (1981); Skovgaard, Scand. J. Statistics 11 (1984).

    >>> from gaussjax import from_scale, standard
    >>> print(f"{fisher_rao_distance(from_scale([0.0], [2.0]), standard(1)):.4f}")  # √2 log 2
    0.9803
    """
    shift = p.mean - q.mean
    (a, b), lost = _regular_roots(p.cov, q.cov)
    if p.dim == 1:
        return _in_half_planes(shift, p.cov.stddev(), q.cov.stddev())[0] + lost
    same_mean = jnp.all(shift == 0)
    squares = _between(a, b)
    # A change that leaves a case has, by reflection of the means, the derivative of zero or, where
    # the covariances are equal, of half the change in each; of second derivatives nothing is known.
    across = root_of_square(jnp.where(same_mean, squares, 1.0)) + _flat(shift, same_mean)
    apart = jnp.where(same_mean, 1.0, shift)  # no kink for the other case's derivatives
    level = 0.5 * (_level(a, apart) + _level(b, apart))
    level = level + _flat(a, ~same_mean) + _flat(b, ~same_mean)
    value = jnp.where(same_mean, across, jnp.where(squares == 0, level, jnp.nan))
    return jnp.where(jnp.any(jnp.isnan(shift)), jnp.nan, value) + lost


@lift
def fisher_rao_bounds(p: Gaussian, q: Gaussian) -> FisherRaoBounds:
    """Certified bounds on the Fisher-Rao distance, up to rounding; equal if it has a closed form.

    Below: the distance of (Σ + μμᵀ, μ; μᵀ, 1) among positive definite matrices, in which the
    Gaussians lie with their metric, or between diagonals that of one coordinate, if larger. Above:
    the least of some paths, with first the mean and then the covariance moved, the other way round,
    √J for `jeffreys_divergence`, and between diagonals the one that moves every coordinate alone.
    O(d³), from d × d arrays of any structure

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Calvo & Oller, J. Multivariate Analysis 35 (1990), theorem 3.1; Nielsen, Entropy 25
    (2023), §3.

    >>> from gaussjax import from_scale, standard
    >>> low, high = fisher_rao_bounds(from_scale([1.0, 0.0], [2.0, 1.0]), standard(2))
    >>> print(f"{low:.2f} {high:.2f}")
    1.19 1.19
    """
    shift = p.mean - q.mean
    roots, lost = _regular_roots(p.cov, q.cov)
    if p.dim == 1:
        exact = _in_half_planes(shift, p.cov.stddev(), q.cov.stddev())[0] + lost
        return FisherRaoBounds(exact, exact)
    a, b = (jnp.diag(x) if x.ndim == 1 else x for x in roots)
    there, back = jnp.stack([a, b]), jnp.stack([b, a])
    above = jnp.zeros((len(shift) + 1, 1), shift.dtype).at[0, 0].set(1.0)
    rows = [jnp.pad(x, ((1, 0), (0, 0))) for x in (a, a, b)]
    moved = above.at[1:, 0].set(shift)
    flat, first, second = (
        jnp.concatenate([column, x], axis=1)
        for column, x in zip((above, moved, above), rows, strict=True)
    )
    squares = jax.vmap(squared_logs, (0, None))(jnp.stack([flat, first]), second)
    between, lower = root_of_square(squares[0]), root_of_square(squares[1])
    levels = jax.vmap(_level, (0, None))(there, shift)
    jeffreys = 0.5 * jnp.sum(jax.vmap(divergence_of_roots, (0, 0, None))(there, back, shift))
    upper = jnp.minimum(jnp.min(levels) + between, root_of_square(jeffreys))
    if roots[0].ndim == 1:
        alone = _in_half_planes(shift, *roots)
        upper = jnp.minimum(upper, root_of_square(jnp.sum(jnp.square(alone))))
        lower = jnp.maximum(lower, jnp.max(alone, initial=0))
    return FisherRaoBounds(jnp.minimum(lower, upper) + lost, upper + lost)


def _regular_roots(a: Covariance, b: Covariance) -> tuple[list[Array], Array]:
    """Two diagonals, or two triangles; and what to add where one is singular, ∞, or both, NaN."""
    known = a.covariance_root(), b.covariance_root()
    roots = [r for r in known if r is not None and r.ndim == 1]
    if len(roots) < 2:
        roots = [restricted.triangle(c) for c in (a, b)]
    pivots = [r if r.ndim == 1 else jnp.diagonal(r) for r in roots]
    zero = [jnp.any(x == 0) for x in pivots]
    singular = zero[0] | zero[1]
    lost = jnp.where(zero[0] & zero[1], jnp.nan, jnp.where(singular, jnp.inf, 0.0))
    ones = [jnp.ones_like(r) if r.ndim == 1 else jnp.eye(len(r), dtype=r.dtype) for r in roots]
    safe = [jnp.where(singular, one, r) for one, r in zip(ones, roots, strict=True)]
    return safe, lost.astype(roots[0].dtype)


def _between(a: Array, b: Array) -> Array:
    """½ Σ log²λ."""
    return squared_logs_of_diagonals(a, b) if a.ndim == 1 else squared_logs(a, b)


def _level(root: Array, shift: Array) -> Array:
    """Between two means at one covariance."""
    whitened = quotient(shift, root) if root.ndim == 1 else solve(root, shift)
    return 2 * math.sqrt(2) * jnp.arcsinh(length(whitened) / math.sqrt(8))


def _in_half_planes(v: Array, s: Array, t: Array) -> Float[Array, " d"]:
    """Of each coordinate alone, in the half plane of (μ/√2, σ)."""
    near = jax.vmap(length)(jnp.stack([v, math.sqrt(2) * (s - t)], axis=1))
    # artanh √(n/f) = arsinh √(n/(f − n)), f − n = 8στ
    ratio = quotient(near, jnp.sqrt(s) * jnp.sqrt(t))
    return 2 * math.sqrt(2) * jnp.arcsinh(ratio / math.sqrt(8))


@jax.custom_jvp
def _flat(x: Array, unknown: Array) -> Array:
    """Zero with a zero gradient; NaN is its second derivative where that is unknown."""
    return jnp.zeros((), x.dtype)


@_flat.defjvp
def _(primals, tangents):
    return _flat(*primals), jnp.sum(_no_slope(*primals) * tangents[0])


@jax.custom_jvp
def _no_slope(x: Array, unknown: Array) -> Array:
    return jnp.zeros_like(x)


@_no_slope.defjvp
def _(primals, tangents):
    return _no_slope(*primals), jnp.where(primals[1], jnp.nan, 0.0) * tangents[0]
