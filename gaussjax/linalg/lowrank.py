"""Σ = diag(s²) + W Wᵀ with few columns r: everything in O(d r²), without Σ and without Σ⁻¹.

It is the law of x = s ⊙ e + W z for standard normal e and z, so all follows from the law of the
latent z given x. With V = W / s and the Cholesky factor R of I + VᵀV that law has precision R Rᵀ.

Where an entry of s is zero V is infinite. But Σ is only invertible if at most r of them are, so the
r rows with the smallest s are eliminated after the others: given those, they have the covariance
diag(s²) + (W R⁻ᵀ)(W R⁻ᵀ)ᵀ, which needs no division.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gaussjax.linalg.cholesky import factorise
from gaussjax.linalg.divergence import excess_of_logdet, minus_log1p
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.sharded_batch import over_batches, split_over_devices
from gaussjax.linalg.triangular import logdet_of_diagonal, solve


class Elimination(NamedTuple):
    """A factorisation of diag(s²) + W Wᵀ; the `last` rows are eliminated after the others."""

    scale: Float[Array, " d"]  # s, and 1 in the last rows
    ratio: Float[Array, "d r"]  # V = W / s, and 0 in the last rows
    root: Float[Array, "r r"]  # R with R Rᵀ = I + VᵀV
    last: Int[Array, " k"]
    last_scale: Float[Array, " k"]
    coupling: Float[Array, "k r"]  # W R⁻ᵀ in the last rows
    corner: Float[Array, "k k"]  # lower factor of the last rows' covariance given the others


def eliminate(scale: Float[Array, " d"], factor: Float[Array, "d r"]) -> Elimination:
    """Factorises diag(s²) + W Wᵀ, the r rows with the smallest s last. O(d r²)"""
    return _eliminate(scale, factor, _smallest(scale, factor.shape[1]))


def eliminate_by_leverage(scale: Float[Array, " d"], factor: Float[Array, "d r"]) -> Elimination:
    """The same with the r rows last that have the largest leverage h = 1 − s²(Σ⁻¹)ᵢᵢ. O(d r²)

    All leverages together are at most r, so that of any other row is at most r/(r + 1): nothing
    cancels in its 1 − h. The order comes from a first elimination, whose own digits suffice.
    """
    kept = jnp.square(scale) * _precision_diagonal(eliminate(scale, factor))
    return _eliminate(scale, factor, _smallest(kept, factor.shape[1]))


def _smallest(x: Array, count: int) -> Array:
    return _largest(min(x.shape[0], count))(-jax.lax.stop_gradient(x))


@functools.cache
def _largest(count: int) -> Callable[[Array], Array]:
    """Positions of the largest entries along the last axis."""

    def top(x: Array) -> Array:
        return jax.lax.top_k(x, count)[1]

    return over_batches(split_over_devices(top, "... i -> ... k", whole="ik"))


def _eliminate(scale: Array, factor: Array, last: Array) -> Elimination:
    scale = jnp.where(scale < 0, jnp.nan, scale)
    last_scale = scale[last]
    safe = scale.at[last].set(1.0)
    ratio = (factor / safe[:, None]).at[last].set(0.0)
    root = latent_root(ratio)
    coupling = solve(root, factor[last].T).T
    corner = triangular_root(jnp.concatenate([jnp.diag(last_scale), coupling], axis=1))
    return Elimination(safe, ratio, root, last, last_scale, coupling, corner)


def latent_root(ratio: Float[Array, "d r"]) -> Float[Array, "r r"]:
    """Lower R with R Rᵀ = I + VᵀV, the precision of z given x. O(d r²)"""
    return factorise(jnp.eye(ratio.shape[1], dtype=ratio.dtype) + dot(ratio.T, ratio))


# C = diag(s)(I + V (I + R)⁻¹Vᵀ) is a root, for with K = (I + R)⁻¹
#   K + Kᵀ + K VᵀV Kᵀ = K (Xᵀ + X + R Rᵀ − I) Kᵀ = K X Xᵀ Kᵀ = I,   X = I + R,
# and its inverse has the core K' = (I + R)⁻ᵀR⁻¹ in place of K.
def color(e: Elimination, noise: Float[Array, " d"]) -> Float[Array, " d"]:
    """C ε. O(d r)"""
    first = _placed(noise, e.last, 0.0)
    y = solve(_plus_identity(e.root), dot(e.ratio.T, first))
    x = e.scale * (first + dot(e.ratio, y))
    whitened = solve(e.root, dot(e.root, dot(_plus_identity(e.root).T, y)))  # R⁻¹Vᵀ(x / s)
    return _placed(x, e.last, dot(e.coupling, whitened) + dot(e.corner, noise[e.last]))


def whiten(e: Elimination, vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """C⁻¹ v. O(d r)"""
    scaled, whitened, corner = _eliminated(e, vector)
    y = solve(_plus_identity(e.root), whitened, transpose=True)
    return _placed(scaled - dot(e.ratio, y), e.last, corner)


def inv_quad(e: Elimination, vector: Float[Array, " d"]) -> Float[Array, ""]:
    """vᵀΣ⁻¹v = ‖v/s − V ẑ‖² + ‖ẑ‖²: it keeps its digits where V is large. O(d r)

    Both textbook forms, ‖v/s‖² − ‖R⁻¹Vᵀv/s‖² and the solve, cancel all of them there.
    """
    scaled, whitened, corner = _eliminated(e, vector)
    z = solve(e.root, whitened, transpose=True)
    residual = scaled - dot(e.ratio, z)
    return _squares(residual) + _squares(z) + _squares(corner)


def logdet(e: Elimination) -> Float[Array, ""]:
    """log|Σ| = Σ log s² + log|R Rᵀ| + log|the last rows'|. O(d)"""
    diagonals = [e.scale, jnp.diagonal(e.root), jnp.diagonal(e.corner)]
    return 2 * sum((logdet_of_diagonal(x) for x in diagonals), jnp.zeros((), e.scale.dtype))


def precision_diagonal(
    scale: Float[Array, " d"], factor: Float[Array, "d r"]
) -> Float[Array, " d"]:
    """Diagonal of Σ⁻¹, (1 − h)/s² with the leverages h. O(d r²)"""
    return _precision_diagonal(eliminate_by_leverage(scale, factor))


def _precision_diagonal(e: Elimination) -> Array:
    """(1 − leverage)/s² of the rows eliminated first, and what the last ones add to it."""
    weights, reach = _regressions(e)
    alone = (1 - jnp.sum(jnp.square(weights), axis=0)) / jnp.square(e.scale)
    added = jnp.sum(jnp.square(reach), axis=0) / jnp.square(e.scale)
    corner = jnp.sum(jnp.square(inverse(e.corner)), axis=0)
    return (alone + added).at[e.last].set(corner)


def _regressions(e: Elimination) -> tuple[Array, Array]:
    """R⁻¹Vᵀ, and L⁻¹ Cov(last, rest) Cov(rest)⁻¹ diag(s) for the lower factor L of the corner."""
    weights = dot(inverse(e.root), e.ratio.T)
    return weights, dot(dot(inverse(e.corner), e.coupling), weights)


# For the rows eliminated first, with the mean Zx of z given them: their quadratic form is
# ‖(x − W Z x)/s‖² + ‖Zx‖², so the trace Σᵢ [(I − W Z) A (I − W Z)ᵀ]ᵢᵢ/sᵢ² + tr(Z A Zᵀ). The other
# rows, given those and whitened, are U x and add tr(U A Uᵀ).
def trace_solve(
    e: Elimination,
    variance: Float[Array, " d"],
    times: Callable[[Float[Array, " d"]], Float[Array, " d"]],
) -> Float[Array, ""]:
    """tr(Σ⁻¹A) from the diagonal of A and r + r products with it. O(d r²) and the products"""
    weights, reach = _regressions(e)
    z = dot(inverse(e.root).T, weights) / e.scale[None]
    u = (-reach / e.scale[None]).at[:, e.last].set(inverse(e.corner))
    az, au = jax.vmap(times)(z).T, jax.vmap(times)(u)
    core = dot(z, az)
    first = (variance / jnp.square(e.scale)).at[e.last].set(0.0)
    residual = first - 2 * jnp.sum(e.ratio * (az / e.scale[:, None]), axis=1)
    residual = residual + jnp.sum(e.ratio * dot(e.ratio, core), axis=1)
    return jnp.sum(residual) + jnp.trace(core) + jnp.sum(u * au)


def latent_posterior(
    e: Elimination, vector: Float[Array, " d"]
) -> tuple[Float[Array, " r"], Float[Array, "r r"]]:
    """Mean of z given x = v, and a root T of its covariance. O(d r)"""
    _, whitened, _ = _eliminated(e, vector)
    r, k = e.root.shape[0], len(e.last)
    # The last rows observe u = Rᵀz ~ N(whitened, I): root of the joint law of them and u.
    zero, one = jnp.zeros((r, k), vector.dtype), jnp.eye(r, dtype=vector.dtype)
    joint = triangular_root(jnp.block([[jnp.diag(e.last_scale), e.coupling], [zero, one]]))
    innovation = solve(joint[:k, :k], vector[e.last] - dot(e.coupling, whitened))
    mean = whitened + dot(joint[k:, :k], innovation)
    return solve(e.root, mean, transpose=True), solve(e.root, joint[k:, k:], transpose=True)


def _eliminated(e: Elimination, vector: Array) -> tuple[Array, Array, Array]:
    """v / s and R⁻¹Vᵀv/s of the rows eliminated first, and the whitened last rows."""
    scaled = _placed(vector / e.scale, e.last, 0.0)
    whitened = solve(e.root, dot(e.ratio.T, scaled))
    corner = solve(e.corner, vector[e.last] - dot(e.coupling, whitened))
    return scaled, whitened, corner


def _placed(vector: Array, rows: Array, values: Array | float) -> Array:
    return vector.at[rows].set(values, unique_indices=True)  # so that it has a transpose


def _plus_identity(root: Array) -> Array:
    return root + jnp.eye(root.shape[0], dtype=root.dtype)


def _squares(x: Array) -> Array:
    return jnp.sum(jnp.square(x))


Parts = tuple[Float[Array, " d"], Float[Array, "d r"]]
"""`(s, W)`"""


def comparable(a: Parts, b: Parts) -> Array:
    """Whether the terms of `divergence` are of the order of d at most: it subtracts some. O(d r)"""
    (s_a, w_a), (s_b, w_b) = a, b
    w_a, w_b = _of_one_rank(w_a, w_b)
    ratio, t = jnp.square(s_a / s_b), (s_a - s_b) * (s_a + s_b) / jnp.square(s_b)
    size = jnp.sum(jnp.square(w_b), axis=1)
    leverages = jnp.sum(jnp.square(t) / ratio * (size / (jnp.square(s_b) + size)))  # a bound
    spread = jnp.sum(jnp.sum(jnp.square(w_a - w_b), axis=1) / jnp.square(s_a))
    return jnp.all(s_a > 0) & jnp.all(s_b > 0) & (leverages + spread <= s_a.shape[0])


def divergence(a: Parts, b: Parts) -> Float[Array, ""]:
    """D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A| of two `(s, W)` that are `comparable`. O(d r²)

    By way of C = diag(s_a²) + W_b W_bᵀ, with the three-point identity of Bregman divergences
        D(A, B) = D(A, C) + D(C, B) + tr((A − C)(B⁻¹ − C⁻¹)).
    Each term is of second order in A − B, and is computed from the differences s_a − s_b and
    W_a − W_b, which are exact when the two are close.
    """
    (s_a, w_a), (s_b, w_b) = a, b
    w_a, w_b = _of_one_rank(w_a, w_b)

    # D(C, B). With 1 + t = s_a²/s_b², τ = t/(1 + t), leverages h = rows of G = V_b R_b⁻ᵀ and
    # Z = Gᵀ diag(τ) G:  Σ (t − log(1 + t)) − Σ t τ h + (−tr Z − log|I − Z|).
    v_b = w_b / s_b[:, None]
    root_b = latent_root(v_b)
    inverse_b = inverse(root_b)
    g = dot(v_b, inverse_b.T)
    ratio, t = jnp.square(s_a / s_b), (s_a - s_b) * (s_a + s_b) / jnp.square(s_b)
    tau = t / ratio
    z = dot(g.T, tau[:, None] * g)
    leverages = _inner(g, (t * tau)[:, None] * g)
    scales = jnp.sum(minus_log1p(t, ratio)) - leverages + excess_of_logdet(-z)

    # D(A, C). With E = (W_a − W_b)/s_a, V = W_b/s_a, M = I + VᵀV = R Rᵀ, ζ = M⁻¹VᵀE and
    # Y = R⁻¹(VᵀE + EᵀV + EᵀE)R⁻ᵀ:  (tr Y − log|I + Y|) + ‖E − Vζ‖² + ‖ζ‖² − ‖E R⁻ᵀ‖².
    root = dot(root_b, factorise(jnp.eye(len(z), dtype=z.dtype) - z))
    inverse_c = inverse(root)
    v, e = w_b / s_a[:, None], (w_a - w_b) / s_a[:, None]
    cross, square = dot(v.T, e), dot(e.T, e)
    zeta = dot(inverse_c.T, dot(inverse_c, cross))
    y = dot(dot(inverse_c, cross + cross.T + square), inverse_c.T)
    rest = e - dot(v, zeta)
    spread = _inner(rest, rest) + _squares(zeta) - _inner(inverse_c.T, dot(square, inverse_c.T))
    factors = excess_of_logdet(y) + spread

    # tr((A − C)(B⁻¹ − C⁻¹)) = tr((W_b E'ᵀ + E'W_bᵀ + E'E'ᵀ) C⁻¹ diag(s_a² − s_b²) B⁻¹), E' = s_a E.
    e_b = e * (s_a / s_b)[:, None]
    rest_b = e_b - dot(g, dot(inverse_b, dot(v_b.T, e_b)))
    weighted = (t * (s_b / s_a))[:, None] * rest
    moved = _inner(dot(g, inverse_b), weighted) + _inner(rest_b, weighted)
    weighted = (t * (s_b / s_a))[:, None] * v
    moved = moved + _inner(dot(rest_b.T, weighted), dot(inverse_c.T, inverse_c))
    return scales + factors + moved


def _of_one_rank(*factors: Array) -> list[Array]:
    rank = max(w.shape[1] for w in factors)
    return [jnp.pad(w, ((0, 0), (0, rank - w.shape[1]))) for w in factors]


def _inner(x: Array, y: Array) -> Array:
    """Σ xᵢⱼ yᵢⱼ as the trace of a product, which takes half the time of a sum."""
    return jnp.trace(dot(x.T, y))


def inverse(root: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """R⁻¹: with many right-hand sides one small inverse and a product beat a substitution. O(r³)"""
    return solve(root, jnp.eye(root.shape[0], dtype=root.dtype))
