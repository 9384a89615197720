"""Two covariances with white noise in both: P = A + c²I, Q = B + c²I and their mean M = C Cᵀ.

From roots of A and B of one shape, A = F Fᵀ and B = K Kᵀ. Where A is close to B, F − K is exact;
the difference of roots of P and Q, which are rounded, is not. So with

    Y = C⁻¹(F + K),  Z = C⁻¹(F − K),
    P = C (I + N) Cᵀ,  Q = C (I − N) Cᵀ,  N = ¼ (Y Zᵀ + Z Yᵀ),

and with I ± N = (I + E)(I + E)ᵀ the divergences D(P, M) and D(Q, M) are sums of squares of E and
terms of its diagonal. Far from each other roots of C⁻¹P C⁻ᵀ and C⁻¹Q C⁻ᵀ take their place: N near
−I has no digits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.laws.mixture import excess_of_ratio, root_beside_identity
from gaussjax.linalg.products import dot
from gaussjax.linalg.ranges import quotient
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import solve


class Smoothed(NamedTuple):
    """What depends on P, Q and a shift v.

    Attributes:
        excess: log|M| − ½ log|P| − ½ log|Q| ≥ 0.
        ratio: log|P| − log|Q|.
        logdets: log|P/c²| and log|Q/c²|.
        distance: vᵀM⁻¹v.
    """

    excess: Float[Array, ""]
    ratio: Float[Array, ""]
    logdets: tuple[Array, Array]
    distance: Float[Array, ""]


def smoothed_diagonals(a: Array, b: Array, noise: Array, shift: Float[Array, " d"]) -> Smoothed:
    """Of two diagonal roots. O(d)"""
    p, q = jnp.hypot(a, noise), jnp.hypot(b, noise)
    r = quotient(a - b, q) * quotient(a + b, p + q)  # (p − q)/q
    half = jnp.full_like(noise, 0.5)
    excess = 0.5 * jnp.sum(excess_of_ratio(r, quotient(p, q), half, half))
    near = jnp.abs(r) < 0.5
    logs = jnp.where(near, jnp.log1p(jnp.where(near, r, 0.0)), jnp.log(quotient(p, q)))
    levels = [2 * jnp.sum(jnp.log(quotient(x, noise))) for x in (p, q)]
    distance = 2 * jnp.sum(jnp.square(quotient(shift, jnp.hypot(p, q))))
    return Smoothed(excess, 2 * jnp.sum(logs), (levels[0], levels[1]), distance)


def smoothed(
    a: Float[Array, "d k"], b: Float[Array, "d k"], change: Array, noise: Array, shift: Array
) -> Smoothed:
    """Of two roots, and their difference F − K. O(d²(d + k))"""
    one, half = jnp.eye(len(shift), dtype=shift.dtype), jnp.sqrt(jnp.full_like(noise, 0.5))
    root = triangular_root(jnp.concatenate([half * a, half * b, noise * one], axis=1))
    columns = [a, b, change, noise * one, shift[:, None]]
    f, k, z, white, v = _split(solve(root, jnp.concatenate(columns, axis=1)), columns)
    product = dot(f + k, z.T)
    n = 0.25 * (product + product.T)
    near = jnp.sum(jnp.square(n)) <= 0.25
    n = jnp.where(near, n, 0.0)  # a value that is not used has derivatives too
    wide = [jnp.concatenate([jnp.where(near, 0.0, x), white], axis=1) for x in (f, k)]

    def parts(n: Array, wide: Array) -> tuple[Array, Array]:
        """log|I + N|, and its divergence tr N − log|I + N|."""
        far = triangular_root(wide)
        e = jnp.where(near, root_beside_identity(n), far - one)
        r = jnp.diagonal(e)
        ratio = jnp.where(near, 1 + r, jnp.diagonal(far))
        logs = jnp.where(near, jnp.log1p(jnp.where(near, r, 0.0)), jnp.log(ratio))
        excess = jnp.sum(jnp.square(e)) + 2 * jnp.sum(minus_log1p(r, ratio))
        return 2 * jnp.sum(logs), excess

    logs, excesses = jax.vmap(parts)(jnp.stack([n, -n]), jnp.stack(wide))
    level = 2 * jnp.sum(jnp.log(quotient(jnp.diagonal(root), noise)))
    logdets = level + logs[0], level + logs[1]
    distance = jnp.sum(jnp.square(v))
    return Smoothed(0.5 * jnp.sum(excesses), logs[0] - logs[1], logdets, distance)


def _split(together: Array, like: list[Array]) -> list[Array]:
    """Columns as they were joined."""
    ends = [sum(x.shape[1] for x in like[: i + 1]) for i in range(len(like) - 1)]
    return jnp.split(together, ends, axis=1)
