"""Σ = diag(s²) + W Wᵀ with few columns r: everything in O(d r²), without Σ and without Σ⁻¹.

It is the law of x = s ⊙ e + W z for standard normal e and z, so everything follows from the law of
the latent z given x. With V = W / s that is the least squares problem

    xᵀΣ⁻¹x = min_z ‖x/s − V z‖² + ‖z‖²,    [Vᵀ, I] = L [G, N].

I + VᵀV = L Lᵀ squares the condition of the stack, so L comes from the stack itself, and right-hand
sides meet the same orthonormal rows [G, N]: with b = x/s the solution is z = NᵀG b, and b − GᵀG b
is the residual of b. Here N = L⁻¹ and G = L⁻¹Vᵀ.

V is large where s is small, and infinite where s is zero. But any r + 1 rows of W are dependent, so
all but r rows of V are shorter than the condition number of diag(s²) + W Wᵀ scaled to unit
diagonal. The r rows with the largest V are eliminated after the others: given those, they have the
covariance diag(s²) + (W Nᵀ)(W Nᵀ)ᵀ, which needs no division. With more zeros in s, or dependent
rows of W there, Σ is singular: it has a root, but no inverse.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gaussjax.linalg._kernels.devices import over_batches, split_over_devices
from gaussjax.linalg.excess import excess_of_logdet, minus_log1p
from gaussjax.linalg.orthonormal import orthonormal_rows
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.semidefinite import (
    OnSupport,
    coordinates,
    is_outside,
    support_of,
    valid_if,
    volume,
)
from gaussjax.linalg.triangular import logdet_of_diagonal, solve


class Elimination(NamedTuple):
    """A factorisation of diag(s²) + W Wᵀ; the `last` rows are eliminated after the others."""

    scale: Float[Array, " d"]  # s, and 1 in the last rows and those beyond
    factor: Float[Array, "d r"]  # W
    root: Float[Array, "r r"]  # L with L Lᵀ = I + VᵀV, where V is zero in the rows not first
    rows: Float[Array, "r d"]  # G = L⁻¹Vᵀ
    inverse: Float[Array, "r r"]  # N = L⁻¹
    last: Int[Array, " k"]
    is_last: Bool[Array, " d"]
    last_scale: Float[Array, " k"]
    coupling: Float[Array, "k r"]  # W Nᵀ in the last rows
    corner: Float[Array, "k k"]  # root of the last rows' covariance given the others
    beyond: Bool[Array, " d"]  # rows with s = 0 that are not among the last
    singular: Bool[Array, ""]


def eliminate(scale: Float[Array, " d"], factor: Float[Array, "d r"]) -> Elimination:
    """Factorises diag(s²) + W Wᵀ, the r rows with the largest V last. O(d r²)"""
    size = jnp.max(jnp.abs(factor), axis=1, initial=0)
    return _eliminate(scale, factor, -size / jnp.where(scale > 0, scale, 1.0))


def eliminate_by_leverage(scale: Float[Array, " d"], factor: Float[Array, "d r"]) -> Elimination:
    """The same with the r rows last that have the largest leverage h = 1 − s²(Σ⁻¹)ᵢᵢ. O(d r²)

    All leverages together are at most r, so that of any other row is at most r/(r + 1): nothing
    cancels in its 1 − h. The order comes from a first elimination, whose own digits suffice.
    """
    kept = jnp.square(scale) * _precision_diagonal(eliminate(scale, factor))
    return _eliminate(scale, factor, kept)


@functools.cache
def largest(count: int) -> Callable[[Array], Array]:
    """Positions of the largest entries along the last axis."""

    def top(x: Array) -> Array:
        return jax.lax.top_k(x, count)[1]

    return over_batches(split_over_devices(top, "... i -> ... k", whole="ik"))


def _eliminate(scale: Array, factor: Array, order: Array) -> Elimination:
    """The rows with s = 0 last, and then those where `order` is smallest."""
    d, r = factor.shape
    last = largest(min(d, r))(jax.lax.stop_gradient(-jnp.where(scale > 0, order, -jnp.inf)))
    valid = jnp.all((scale >= 0) & jnp.isfinite(scale)) & jnp.all(jnp.isfinite(factor))
    scale = jnp.where(valid, scale, jnp.nan)
    is_last = jnp.zeros_like(scale, bool).at[last].set(True)
    beyond = (scale == 0) & ~is_last
    is_first = ~(is_last | beyond)
    safe = jnp.where(is_first, scale, 1.0)
    ratio = jnp.where(is_first[:, None], factor / safe[:, None], 0.0)
    root, rows, inverse = _stacked(ratio)
    coupling = dot(factor[last], inverse.T)
    corner = triangular_root(jnp.concatenate([jnp.diag(scale[last]), coupling], axis=1))
    dependent = jnp.any(_are_dependent(scale[last], factor[last], corner))
    if d > r:  # one more row with s = 0 than columns, and Σ has another root
        corner = jnp.where(jnp.any(beyond), coupling, corner)
    return Elimination(
        safe, factor, root, rows, inverse, last, is_last, scale[last], coupling, corner,
        beyond, dependent | jnp.any(beyond),
    )  # fmt: skip


def _stacked(ratio: Array) -> tuple[Array, Array, Array]:
    """L, G and N of V."""
    d, r = ratio.shape
    one = jnp.eye(r, dtype=ratio.dtype)
    root, rows = orthonormal_rows(jnp.concatenate([ratio.T, one], axis=1))
    return root, rows[:, :d], rows[:, d:]


def _are_dependent(scale: Array, factor: Array, corner: Array) -> Array:
    """Whether a row of W where s is zero depends on those before it, to rounding."""
    rows, coupled = (jnp.max(jnp.abs(x), axis=1, initial=0) for x in (factor, corner))
    # W Nᵀ has the rounding of W, and its factor that of a row beside others of some condition.
    noise = len(scale) * jnp.finfo(factor.dtype).eps * jnp.maximum(rows, 8 * coupled)
    return (scale == 0) & (jnp.diagonal(corner) <= noise)


# [G, N] is part of an orthogonal matrix, of which the rest makes a root. With K = (I + N)⁻¹
#   C⁻¹ = (I − GᵀKᵀG) diag(1/s),   C = diag(s) + W K G.
# For I = GGᵀ + N Nᵀ gives  (I − GᵀKG)(I − GᵀKᵀG) = I − Gᵀ(K + Kᵀ − K (I − N Nᵀ) Kᵀ)G, and with
# X = I + N the bracket is K (Xᵀ + X − I + N Nᵀ) Kᵀ = K X Xᵀ Kᵀ = I, so that C⁻ᵀC⁻¹ = Σ⁻¹.
def color(e: Elimination, noise: Float[Array, " d"]) -> Float[Array, " d"]:
    """C ε, even if Σ is singular. O(d r)"""
    y = solve(_plus_identity(e.inverse), dot(e.rows, noise))
    along, last = dot(e.factor, y), noise[e.last]
    x = e.scale * noise + along
    if len(e.beyond) > len(y):  # where s is zero in more rows than W has columns, x is W z there
        x = jnp.where(e.beyond, along + dot(e.factor, dot(e.inverse.T, y + last)), x)
    return _placed(x, e.last, along[e.last] + dot(e.coupling, y) + dot(e.corner, last))


def whiten(e: Elimination, vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """C⁻¹ v. O(d r)"""
    scaled, whitened, corner = _eliminated(_regular(e), vector)
    y = solve(_plus_identity(e.inverse), whitened, transpose=True)
    return _placed(scaled - dot(e.rows.T, y), e.last, corner)


def inv_quad(e: Elimination, vector: Float[Array, " d"]) -> Float[Array, ""]:
    """vᵀΣ⁻¹v = ‖v/s − V ẑ‖² + ‖ẑ‖², the squared length of a residual. O(d r)

    Both textbook forms, ‖v/s‖² − ‖R⁻ᵀVᵀv/s‖² and the solve, cancel where V is large.
    """
    scaled, whitened, corner = _eliminated(_regular(e), vector)
    residual = scaled - dot(e.rows.T, whitened)
    return _squares(residual) + _squares(dot(e.inverse.T, whitened)) + _squares(corner)


def logdet(e: Elimination) -> Float[Array, ""]:
    """log|Σ| = Σ log s² + log|L Lᵀ| + log|the last rows'|, −∞ if Σ is singular. O(d)"""
    corner = jnp.where(e.singular, 1.0, jnp.diagonal(e.corner))
    diagonals = [e.scale, jnp.diagonal(e.root), corner]
    total = sum((logdet_of_diagonal(x) for x in diagonals), jnp.zeros((), e.scale.dtype))
    return jnp.where(e.singular, -jnp.inf, 0.0) + 2 * total


# With T = C⁻¹W_K Nᵀ for the last rows K and their corner C, Σ⁻¹ has in the rows of K and the others
#   u_K = C⁻ᵀC⁻¹(v_K − W_K Nᵀ G v/s),        u = (v/s − Gᵀ y) / s,  y = G v/s + Tᵀ Cᵀu_K,
#   (Σ⁻¹W)_K = C⁻ᵀ T N,                      Σ⁻¹W = diag(1/s) Gᵀ (I − TᵀT) N,
# and WᵀΣ⁻¹v = Nᵀ y is the mean of the latent z. Nothing of it cancels as s becomes small.
@jax.custom_jvp
def inv_quad_and_logdet(
    scale: Float[Array, " d"], factor: Float[Array, "d r"], vector: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """vᵀΣ⁻¹v and log|Σ|, whose derivatives take no derivative of the factorisation. O(d r²)"""
    e = eliminate(scale, factor)
    return inv_quad(e, vector), logdet(e)


@inv_quad_and_logdet.defjvp
def _(primals, tangents):
    (scale, factor, vector), (dscale, dfactor, dvector) = primals, tangents
    e = eliminate(scale, factor)
    values, e = (inv_quad(e, vector), logdet(e)), _regular(e)
    scaled, whitened, corner = _eliminated(e, vector)
    reach, own = solve(e.corner, e.coupling), solve(e.corner, corner, transpose=True)
    y = whitened + dot(reach.T, corner)
    u = ((scaled - dot(e.rows.T, y)) / e.scale).at[e.last].set(own)
    rest = e.inverse - dot(reach.T, dot(reach, e.inverse))
    both = dot(e.rows.T, rest) / e.scale[:, None]
    both = both.at[e.last].set(solve(e.corner, dot(reach, e.inverse), transpose=True))
    distance = dvector - scale * u * dscale - dot(dfactor, dot(e.inverse.T, y))
    volume = jnp.sum(scale * _precision_diagonal(e) * dscale) + jnp.sum(both * dfactor)
    return values, (2 * jnp.sum(u * distance), 2 * volume)


# Where s is zero x is W z: with W = diag(sizes) U T there, T of independent rows, it is known by
# y = T z alone, of no more coordinates than W has columns. With the other rows that is a regular
# law, of s and W in those rows and of 0 and T in y.
def on_support(
    scale: Float[Array, " d"], factor: Float[Array, "d r"], vector: Float[Array, " d"]
) -> OnSupport:
    """Squared distance, log-determinant and dimension within the support. O(d r²)"""
    zero = scale == 0
    known, rest = jnp.where(zero[:, None], factor, 0.0), jnp.where(zero, vector, 0.0)
    support = support_of(known)
    y, rows = coordinates(support, rest), coordinates(support, known)
    scales = jnp.where(zero, 1.0, scale), jnp.where(support.kept, 0.0, 1.0).astype(scale.dtype)
    factors = jnp.where(zero[:, None], 0.0, factor), rows
    e = eliminate(jnp.concatenate(scales), jnp.concatenate(factors))
    distance = inv_quad(e, jnp.concatenate([jnp.where(zero, 0.0, vector), y]))
    is_off = is_outside(rest / support.sizes, dot(support.basis, y))
    distance = jnp.where(is_off, jnp.inf, distance)
    valid = jnp.all((scale >= 0) & jnp.isfinite(scale)) & jnp.all(jnp.isfinite(factor))
    count = jnp.sum(~zero) + jnp.sum(support.kept)
    return valid_if(valid, distance, logdet(e) + volume(support), count)


def rank(scale: Float[Array, " d"], factor: Float[Array, "d r"]) -> Int[Array, ""]:
    """How many scales are not zero, and independent rows of W where one is. O(d r²)"""
    zero = scale == 0
    known = support_of(jnp.where(zero[:, None], factor, 0.0))
    return jnp.sum(~zero) + jnp.sum(known.kept)


def precision_diagonal(
    scale: Float[Array, " d"], factor: Float[Array, "d r"]
) -> Float[Array, " d"]:
    """Diagonal of Σ⁻¹, (1 − h)/s² with the leverages h. O(d r²)"""
    return _precision_diagonal(eliminate_by_leverage(scale, factor))


def _precision_diagonal(e: Elimination) -> Array:
    """(1 − leverage)/s² of the rows eliminated first, and what the last ones add to it."""
    e = _regular(e)
    corner = inverse(e.corner)
    reach = dot(dot(corner, e.coupling), e.rows)
    share = 1 - jnp.sum(jnp.square(e.rows), axis=0) + jnp.sum(jnp.square(reach), axis=0)
    last = jnp.sum(jnp.square(corner), axis=0)
    return (share / jnp.square(e.scale)).at[e.last].set(last)


# For the rows eliminated first, with B = A between their x/s, the trace of their quadratic form is
#   tr (I − GᵀG) B (I − GᵀG) + tr NᵀG B GᵀN.
# The other rows, given those and whitened, are U x and add tr U A Uᵀ.
def trace_solve(
    e: Elimination,
    variance: Float[Array, " d"],
    times: Callable[[Float[Array, " d"]], Float[Array, " d"]],
) -> Float[Array, ""]:
    """tr(Σ⁻¹A) from the diagonal of A and r + r products with it. O(d r²) and the products"""
    e = _regular(e)
    corner, g = inverse(e.corner), e.rows
    reach = dot(dot(corner, e.coupling), g)
    u = (-reach / e.scale[None]).at[:, e.last].set(corner)
    az, au = jax.vmap(times)(g / e.scale[None]) / e.scale[None], jax.vmap(times)(u)
    core = dot(g, az.T)
    first = jnp.where(e.is_last, 0.0, variance / jnp.square(e.scale))
    residual = first + jnp.sum(g * (dot(core, g) - 2 * az), axis=0)
    return jnp.sum(residual) + jnp.sum(dot(core, e.inverse) * e.inverse) + jnp.sum(u * au)


def latent_posterior(
    e: Elimination, vector: Float[Array, " d"]
) -> tuple[Float[Array, " r"], Float[Array, "r r"]]:
    """Mean of z given x = v, and a root T of its covariance. O(d r)"""
    e = _regular(e)
    _, whitened, _ = _eliminated(e, vector)
    r, k = e.root.shape[0], len(e.last)
    # The last rows observe u = Lᵀz ~ N(whitened, I): root of the joint law of them and u.
    zero, one = jnp.zeros((r, k), vector.dtype), jnp.eye(r, dtype=vector.dtype)
    joint = triangular_root(jnp.block([[jnp.diag(e.last_scale), e.coupling], [zero, one]]))
    innovation = solve(joint[:k, :k], vector[e.last] - dot(e.coupling, whitened))
    mean = whitened + dot(joint[k:, :k], innovation)
    return dot(e.inverse.T, mean), dot(e.inverse.T, joint[k:, k:])


def _eliminated(e: Elimination, vector: Array) -> tuple[Array, Array, Array]:
    """v / s and G v/s of the rows eliminated first, and the whitened last rows."""
    scaled = jnp.where(e.is_last, 0.0, vector / e.scale)
    whitened = dot(e.rows, scaled)
    corner = solve(e.corner, vector[e.last] - dot(e.coupling, whitened))
    return scaled, whitened, corner


def _regular(e: Elimination) -> Elimination:
    """The same for what takes Σ⁻¹: NaN if there is none."""
    scale, last_scale, corner = (
        jnp.where(e.singular, jnp.nan, x) for x in (e.scale, e.last_scale, e.corner)
    )
    return e._replace(scale=scale, last_scale=last_scale, corner=corner)


def _placed(vector: Array, rows: Array, values: Array) -> Array:
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
    w_a, w_b = of_one_rank(w_a, w_b)
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
    rank_b = w_b.shape[1]  # G_b, G and N have no more rows: others of a padded W_b are those of I
    change = jnp.subtract(*of_one_rank(w_a, w_b))
    padded = functools.partial(_with_rows, rows=change.shape[1])

    # D(C, B). With 1 + t = s_a²/s_b², τ = t/(1 + t), leverages h = squared columns of G_b and
    # Z = G_b diag(τ) G_bᵀ:  Σ (t − log(1 + t)) − Σ t τ h + (−tr Z − log|I − Z|).
    _, g, inverse_b = _stacked(w_b / s_b[:, None])
    ratio, t = jnp.square(s_a / s_b), (s_a - s_b) * (s_a + s_b) / jnp.square(s_b)
    tau = t / ratio
    leverages = jnp.sum(t * tau * jnp.sum(jnp.square(g), axis=0))
    scales = jnp.sum(minus_log1p(t, ratio)) - leverages + excess_of_logdet(-dot(g * tau[None], g.T))

    # D(A, C). With E = (W_a − W_b)ᵀ/s_a, V = W_b/s_a = GᵀLᵀ, N = L⁻¹, F = N E, ζ = NᵀG Eᵀ and
    # Y = G Fᵀ + F Gᵀ + F Fᵀ:  (tr Y − log|I + Y|) + ‖E − E GᵀG‖² + ‖ζ‖² − ‖F‖².
    _, rows, inverse_c = _stacked(w_b / s_a[:, None])
    e = (change / s_a[:, None]).T
    along, f = dot(rows, e.T), jnp.concatenate([dot(inverse_c, e[:rank_b]), e[rank_b:]])
    rest, zeta, cross = e - dot(along.T, rows), dot(inverse_c.T, along), padded(dot(rows, f.T))
    y = cross + cross.T + dot(f, f.T)
    factors = excess_of_logdet(y) + _squares(rest) + _squares(zeta) - _squares(f)

    # tr((A − C)(B⁻¹ − C⁻¹)) = tr((W_b E' + E'ᵀW_bᵀ + E'ᵀE') C⁻¹ diag(s_a² − s_b²) B⁻¹), E' = E s_a.
    e_b = e * (s_a / s_b)[None]
    rest_b = e_b - dot(dot(e_b, g.T), g)
    beside = padded(dot(inverse_b.T, g)) * rest
    beside += rest_b * (rest + padded(dot(inverse_c.T, rows)))
    return scales + factors + jnp.sum((t * (s_b / s_a))[None] * beside)


def divergence_to_diagonal(a: Parts, scale: Float[Array, " d"]) -> Float[Array, ""]:
    """`divergence` to diag(σ²). O(d r²)

    With E = W/s and 1 + t = s²/σ² it is Σ (t − log(1 + t)) + (tr EᵀE − log|I + EᵀE|) + Σ t E².
    """
    s, w = a
    ratio, t = jnp.square(s / scale), (s - scale) * (s + scale) / jnp.square(scale)
    e = w / s[:, None]
    scales = jnp.sum(minus_log1p(t, ratio)) + jnp.sum(t[:, None] * jnp.square(e))
    return scales + excess_of_logdet(dot(e.T, e))


def _with_rows(x: Array, *, rows: int) -> Array:
    return jnp.pad(x, ((0, rows - x.shape[0]), (0, 0)))


def of_one_rank(*factors: Array) -> list[Array]:
    """Factors with zero columns added to those that have fewer."""
    rank = max(w.shape[1] for w in factors)
    return [jnp.pad(w, ((0, 0), (0, rank - w.shape[1]))) for w in factors]


def inverse(root: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """R⁻¹: with many right-hand sides one small inverse and a product beat a substitution. O(r³)"""
    return solve(root, _plus_identity(jnp.zeros_like(root)))  # a constant would not be batched
