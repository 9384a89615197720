"""The LogDet (Burg) divergence tr(B⁻¹A) − d − log|B⁻¹A| of two covariances, from their roots.

With A = L Lᵀ, B = K Kᵀ, E = K⁻¹(L − K) and rᵢ = Eᵢᵢ it is a sum of terms that are not negative:

    D(A, B) = Σᵢ (rᵢ² + 2(rᵢ − log(1 + rᵢ))) + ‖strictly lower(E)‖²,

since K⁻¹L = I + E has the squared norm d + 2Σrᵢ + ‖E‖² and the determinant Π(1 + rᵢ). Nothing
cancels when A is close to B: L − K is exact there, and D is exactly zero when they are equal.
Twice a KL divergence is D plus the squared length ‖K⁻¹v‖² of the shift v between the means; the
two share a solve and a gradient, so they are one function here.

A root is an array of one Gaussian: `(d, d)` a lower triangle, `(d,)` the diagonal of one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.linalg._kernels import limits, small
from gaussjax.linalg._kernels.batch import kernel
from gaussjax.linalg._kernels.limits import TILE
from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.products import product_with_transpose
from gaussjax.linalg.ranges import divided, quotient
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import inv_quad_lower, solve, solve_triangle


def divergence_of_roots(a: Array, b: Array, shift: Float[Array, " d"]) -> Float[Array, ""]:
    """D(A, B) + ‖K⁻¹v‖² of two triangular roots. O(d²) where K is a diagonal, else O(d³)"""
    if a.ndim == b.ndim == 1:
        return _of_diagonals(a, b) + jnp.sum(jnp.square(divided(shift, b)))
    if shift.shape[0] == 0:  # JAX returns derivatives of the wrong rank for empty batched inputs
        return jnp.zeros((), shift.dtype)
    if b.ndim == 1:
        return _to_diagonal(a, b, shift)
    a = jnp.diag(a) if a.ndim == 1 else a
    if a.shape[-1] <= limits.SHIFTED:
        return _divergence(a, b, shift)
    regular = small.is_regular(b)  # else the divergence is infinite or NaN
    distance = jnp.where(regular, inv_quad_lower(b, shift), 0.0)
    return _divergence(a, b, jnp.zeros_like(shift)) + distance


# Where K is a diagonal, K⁻¹ divides rows: E = (L − K) / K. The derivatives are those of that form;
# for values a kernel is faster.
@jax.custom_jvp
def _to_diagonal(a: Array, b: Array, shift: Array) -> Array:
    small_enough = len(b) <= limits.WRITTEN
    return _value_by_rows(a, b, shift) if small_enough else _value(a, jnp.diag(b), shift)


@_to_diagonal.defjvp
def _(primals, tangents):
    return _to_diagonal(*primals), jax.jvp(_by_rows, primals, tangents)[1]


def _by_rows(a: Array, b: Array, shift: Array) -> Array:
    b = jnp.where(jnp.all(b != 0), b, jnp.nan)
    below = quotient(jnp.tril(a, -1), b[:, None])
    value = _of_diagonals(jnp.diagonal(a), b) + jnp.sum(jnp.square(below))
    return value + jnp.sum(jnp.square(quotient(shift, b)))


def _fused_by_rows(a: Array, b: Array, shift: Array) -> Array:
    total = jnp.zeros((), a.dtype)
    for i, unit in enumerate(1 / b):
        row = [(a[i, i] - b[i]) * unit, *(x * unit for x in a[i, :i]), shift[i] * unit]
        excess = minus_log1p(row[0], a[i, i] * unit)
        total = total + (_sum_of_squares(row, a) + 2 * excess)
    total = jnp.where(small.all_of(b >= 0), total, jnp.nan)
    return _infinite_between(a, jnp.diag(b), total)


_value_by_rows = kernel(
    "d d, d, d -> ()", written=_fused_by_rows, tile=None, fused=limits.WRITTEN
)(_fused_by_rows)  # fmt: skip


def _infinite_between(a: Array, b: Array, value: Array) -> Array:
    """Infinity where B is singular and A is not; NaN where both are: no rule knows more."""
    singular = jnp.where(small.is_regular(a), jnp.inf, jnp.nan).astype(value.dtype)
    return jnp.where(small.is_regular(b), value, singular)


def divergence_of_ratio(ratio: Float[Array, "d d"], logdet: Array) -> Float[Array, ""]:
    """D(A, B) from M = B^{-½}A^{½}, any two roots, and log|A| − log|B|. O(d³)

    ‖M‖² − d − log|MᵀM| cancels near A = B, where the triangle of M = QR takes its place: its
    distance from the identity is E. Far from there the logarithm that is known is the better one.
    """
    d = ratio.shape[-1]
    lower = jnp.where(jnp.isnan(logdet), jnp.nan, triangular_root(ratio.T))  # a sign is lost
    near = jnp.all(jnp.abs(jnp.diagonal(lower) - 1) < 0.5)
    one, zero = jnp.ones(d, lower.dtype), jnp.zeros(d, lower.dtype)
    far_value = jnp.sum(jnp.square(ratio)) - d - logdet
    return jnp.where(near, divergence_of_roots(lower, one, zero), far_value)


# The differential is 2⟨G_A, dL⟩ + 2⟨G_B, dK⟩ + 2⟨u, dv⟩, with H = K⁻ᵀE, M = I + E, u = K⁻ᵀw:
#   G_A = tril(K⁻ᵀM) − diag(1/L)              = tril(H) + diag(r / L)
#   G_B = diag(1/K) − tril(K⁻ᵀM Mᵀ + u wᵀ)    = −tril(H Mᵀ + u wᵀ) − diag(r / K),
# the right-hand forms again free of cancellation and zero when A = B.
@jax.custom_jvp
def _divergence(a: Array, b: Array, shift: Array) -> Array:
    return _value(a, b, shift)


@_divergence.defjvp
def _(primals, tangents):
    products = [jnp.sum(g * t) for g, t in zip(_gradients(*primals), tangents, strict=True)]
    return _divergence(*primals), 2 * (products[0] + products[1] + products[2])


def _fused(a: Array, b: Array, shift: Array) -> Array:
    columns, w = small.relative(a, b, shift)
    total = _sum_of_squares(w, a)
    for i, column in enumerate(columns):  # one by one: the rounding of one long sum would show
        excess = minus_log1p(column[0], a[i, i] / b[i, i])
        total = total + (_sum_of_squares(column, a) + 2 * excess)
    return _infinite_between(a, b, total)


@kernel("d d, d d, d -> ()", written=_fused, tile=None, native="divergence", fused=limits.WRITTEN)
def _value(a: Array, b: Array, shift: Array) -> Array:
    strict = jnp.sum(jnp.square(jnp.tril(_relative(a, b), -1)))
    value = _of_diagonals(jnp.diagonal(a), jnp.diagonal(b)) + strict
    regular = small.is_regular(b)  # else the divergence is infinite or NaN
    distance = jnp.where(regular, inv_quad_lower(b, shift), 0.0)
    return _infinite_between(a, b, value) + distance


@jax.custom_jvp
def _gradients(a: Array, b: Array, shift: Array) -> tuple[Array, Array, Array]:
    return _gradients_of_batch(a, b, shift)


@_gradients.defjvp
def _(primals, tangents):
    return _gradients(*primals), jax.jvp(_gradients_by_solves, primals, tangents)[1]


def _gradients_by_solves(a: Array, b: Array, shift: Array) -> tuple[Array, Array, Array]:
    """In matrix operations, whose derivatives do not scatter."""
    e, w = _relative(a, b), solve(b, shift)
    u = solve(b, w, transpose=True)
    grad_a, grad_b = _gradients_from(a, b, e, solve_triangle(b, e, transpose=True))
    return grad_a, grad_b - jnp.tril(jnp.outer(u, w)), u


_gradients_of_batch = kernel(
    "d d, d d, d -> d d, d d, d",
    written=small.divergence_gradients, tile=TILE, native="divergence_gradients",
)(_gradients_by_solves)  # fmt: skip


def _gradients_from(a: Array, b: Array, e: Array, h: Array) -> tuple[Array, Array]:
    r = jnp.diagonal(e)
    grad_b = -(product_with_transpose(h, e) + h) - jnp.diag(r / jnp.diagonal(b))
    return h + jnp.diag(r / jnp.diagonal(a)), grad_b


def _relative(a: Array, b: Array) -> Array:
    """E = K⁻¹(L − K)."""
    return solve_triangle(b, a - b)


def _sum_of_squares(scalars: list[Array], like: Array) -> Array:
    return sum((jnp.square(x) for x in scalars), jnp.zeros((), like.dtype))


@jax.custom_jvp
def _of_diagonals(a: Array, b: Array) -> Array:
    """Σ (rᵢ² + 2(rᵢ − log(1 + rᵢ))); NaN where b is negative: two wrong signs look right.

    A coordinate that is zero in both adds nothing, one that is zero in one of them infinity.
    """
    r, ratio = _differences(a, b)
    value = jnp.square(r) + 2 * minus_log1p(r, ratio)
    return jnp.sum(jnp.where((b == 0) & (a > 0), jnp.inf, value))


@_of_diagonals.defjvp
def _(primals, tangents):  # in logarithms of a and b, so that no square leaves the range
    (a, b), (da, db) = primals, tangents
    r, ratio = _differences(a, b)
    slope = 2 * r * (1 + ratio)
    one_a, one_b = (jnp.where(x == 0, 1.0, x) for x in primals)
    slopes = jnp.where(a == 0, 0.0, quotient(slope, one_a)), quotient(slope, one_b)
    return _of_diagonals(a, b), jnp.sum(slopes[0] * da - slopes[1] * db)


def _differences(a: Array, b: Array) -> tuple[Array, Array]:
    """(a − b) / b and a / b; 0 and 1 where b is zero and a is not negative."""
    zero = (b == 0) & (a >= 0)
    a, b = jnp.where(zero, 1.0, a), jnp.where(zero, 1.0, jnp.where(b > 0, b, jnp.nan))
    return quotient(a - b, b), quotient(a, b)
