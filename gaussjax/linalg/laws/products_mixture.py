"""What the mean of two Kronecker products has in excess of theirs, from their factors' roots.

With Aᵢ = Lᵢ Lᵢᵀ, Bᵢ = Kᵢ Kᵢᵀ and joint eigenvectors Tᵢ, TᵢᵀAᵢTᵢ = diag(λᵢ) and TᵢᵀBᵢTᵢ = I, the
product T = ⊗ Tᵢ turns ⊗ Aᵢ into ⊗ λᵢ, ⊗ Bᵢ into I, and so their mean M = βA + (1 − β)B:

    h = Σ (log(1 + βt) − β log(1 + t)) / β,  1 + t = ⊗ λᵢ,   vᵀM⁻¹v = Σ (Tᵀv)² / (1 + βt).

Eigenvectors have no derivative where values repeat, but what is made of them here has:

    dh = 2 Σᵢ ⟨Tᵢ diag(gᵢ/λᵢ) TᵢᵀLᵢ, dLᵢ⟩ − 2 Σᵢ ⟨Tᵢ diag(gᵢ) TᵢᵀKᵢ, dKᵢ⟩,

with gᵢ the sum of ∂h/∂log(1 + t) over all axes but the i-th. A second derivative takes the dense
matrices.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg.kronecker import Factors, along_axes
from gaussjax.linalg.laws.eigenvalues import spectrum
from gaussjax.linalg.laws.mixture import excess_of_mean, excess_of_ratio
from gaussjax.linalg.products import dot
from gaussjax.linalg.triangular import solve, solve_triangle


class Spectrum(NamedTuple):
    """Log λᵢ, Tᵢ, TᵢᵀLᵢ and TᵢᵀKᵢ."""

    logs: Array
    vectors: Array
    first: Array
    second: Array


Joint = list[Spectrum]


def excess_of_products(
    a: Factors, b: Factors, shift: Float[Array, " d"], alpha: Array, beta: Array, *, inside: bool
) -> Float[Array, ""]:
    """h + α vᵀM⁻¹v as in `excess_of_mean`, of two products of factors alike. O(Σ dᵢ³ + d Σ dᵢ)

    Zero where the factors are equal, with a zero gradient.
    """
    if shift.shape[0] == 0:
        return jnp.zeros((), shift.dtype)
    regular = [_all(jnp.diagonal(x) > 0 for x in factors) for factors in (a, b)]
    both = regular[0] & regular[1]
    safe = [
        tuple(jnp.where(both, jnp.tril(x), jnp.eye(len(x), dtype=x.dtype)) for x in factors)
        for factors in (a, b)
    ]
    finite = _all(jnp.isfinite(x) for x in (*a, *b)) & ~jnp.any(jnp.isnan(shift))
    lost = jnp.where(finite & (regular[0] ^ regular[1]), jnp.inf, jnp.nan).astype(shift.dtype)
    joint = _joint(*lax.stop_gradient(safe))
    return jnp.where(both, _excess(*safe, shift, alpha, beta, joint, inside), lost)


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _excess(
    a: Factors, b: Factors, shift: Array, alpha: Array, beta: Array, joint: Joint, inside: bool
) -> Array:
    logs = _sums([x.logs for x in joint])
    value = _of_logs(logs, alpha, beta)
    distance = jnp.sum(jnp.square(_turned(joint, shift)) / _mean(logs, alpha, beta))
    return jnp.where(value == jnp.inf, value, value + alpha * distance)


@_excess.defjvp
def _(inside, primals, tangents):
    value, gradients = _excess(*primals, inside), _gradients(*primals, inside)
    gradients = [jnp.where(value == jnp.inf, 0.0, g) for g in jax.tree.leaves(gradients)]
    together = zip(gradients, jax.tree.leaves(tangents[:5]), strict=True)
    return value, sum(jnp.sum(g * t) for g, t in together)


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _gradients(
    a: Factors, b: Factors, shift: Array, alpha: Array, beta: Array, joint: Joint, inside: bool
) -> tuple[Factors, Factors, Array, Array, Array]:
    logs = _sums([x.logs for x in joint])
    slopes, slope = jax.grad(_of_logs, (0, 2))(logs, alpha, beta)
    shaped = slopes.reshape([len(x) for x in a])
    every = range(len(a))
    sums = [jnp.sum(shaped, axis=tuple(j for j in every if j != i)) for i in every]
    weighted = _turned(joint, shift) / _mean(logs, alpha, beta)
    u = _times([x.vectors for x in joint], weighted)  # M⁻¹v

    def squares(a: Factors, b: Factors, alpha: Array, beta: Array) -> Array:  # uᵀM u
        parts = [jnp.sum(jnp.square(_times([x.T for x in c], u))) for c in (a, b)]
        return beta * parts[0] + alpha * parts[1]

    of_a, of_b, of_alpha, of_beta = jax.grad(squares, (0, 1, 2, 3))(a, b, alpha, beta)
    first = tuple(
        2 * dot(x.vectors * (g * jnp.exp(-x.logs))[None], x.first) - alpha * c
        for x, g, c in zip(joint, sums, of_a, strict=True)
    )
    second = tuple(
        -2 * dot(x.vectors * g[None], x.second) - alpha * c
        for x, g, c in zip(joint, sums, of_b, strict=True)
    )
    distance = squares(a, b, alpha, beta)
    return first, second, 2 * alpha * u, distance - alpha * of_alpha, slope - alpha * of_beta


@_gradients.defjvp
def _(inside, primals, tangents):
    def dense(a: Factors, b: Factors, shift: Array, alpha: Array, beta: Array) -> Array:
        first, second = (functools.reduce(jnp.kron, [jnp.tril(x) for x in c]) for c in (a, b))
        return excess_of_mean(first, second, shift, alpha, beta, inside=inside)

    gradients = jax.grad(dense, (0, 1, 2, 3, 4))
    return _gradients(*primals, inside), jax.jvp(gradients, primals[:5], tangents[:5])[1]


def _joint(a: Factors, b: Factors) -> Joint:
    found = []
    for x, y in zip(a, b, strict=True):
        logs, turn = spectrum(x, y)
        vectors = solve(y, turn, transpose=True)
        found.append(Spectrum(logs, vectors, dot(turn.T, solve_triangle(y, x)), turn.T))
    return found


def _of_logs(logs: Array, alpha: Array, beta: Array) -> Array:
    """Of log(1 + t), h."""
    return jnp.sum(excess_of_ratio(jnp.expm1(0.5 * logs), jnp.exp(0.5 * logs), alpha, beta))


def _mean(logs: Array, alpha: Array, beta: Array) -> Array:
    """1 + βt."""
    return beta * jnp.exp(logs) + alpha


def _turned(joint: Joint, vector: Array) -> Array:
    """Tᵀv."""
    return _times([x.vectors.T for x in joint], vector)


def _times(matrices: list[Array], vector: Array) -> Array:
    maps = [functools.partial(dot, x) for x in matrices]
    return along_axes(maps, vector.reshape([len(x) for x in matrices]))


def _sums(vectors: list[Array]) -> Float[Array, " d"]:
    """The sums of one entry of each."""
    return functools.reduce(lambda x, y: (x[:, None] + y[None]).ravel(), vectors)


def _all(each: Iterable[Array]) -> Array:
    return functools.reduce(jnp.logical_and, [jnp.all(x) for x in each])
