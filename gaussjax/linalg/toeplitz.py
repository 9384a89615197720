"""Symmetric positive definite Toeplitz matrices, from their first column t.

Products go through the circulant matrix that they are a corner of, by FFT. Factors come from the
recursion of Levinson and Durbin, which finds for each k the filter a (a₀ = 1) that predicts the
k-th value of a process with covariances t from those before it, and its error e:

    (T₁…ₖ₊₁) a reversed = e · (0, …, 0, 1).

It never stores more than the filter, so it costs O(d²) time and O(d) memory.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gaussjax.linalg import fourier
from gaussjax.linalg.excess import minus_log1p
from gaussjax.linalg.products import dot


def of_points(empty: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a process at no points has no first value to start from; `empty` is its result."""

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def of_some(column: Array, *more: Array) -> Any:
            return function(column, *more) if column.shape[0] else empty(column, *more)

        return of_some

    return decorate


def _zero(column: Array, *_: Array) -> Array:
    return jnp.zeros((), column.dtype)


class Filter(NamedTuple):
    """State of the recursion before step k: all arrays zero from k + 1 on."""

    forward: Float[Array, " n"]  # a
    backward: Float[Array, " n"]  # a reversed: entry j is aₖ₋ⱼ
    error: Float[Array, ""]  # e


def spectrum_of(column: Float[Array, " d"]) -> Float[Array, " n"]:
    """Eigenvalues of the circulant matrix of size 2d − 2 that has T in its corner. O(d log d)"""
    return fourier.spectrum_of(embedded(column))


def embedded(column: Float[Array, " d"]) -> Float[Array, " n"]:
    """First column (t₀, …, t_d₋₁, t_d₋₂, …, t₁) of that circulant matrix."""
    return jnp.concatenate([column, column[-2:0:-1]])


def times(column: Float[Array, " d"], vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """T v. O(d log d)"""
    d, spectrum = column.shape[0], spectrum_of(column)
    padded = jnp.pad(vector, (0, spectrum.shape[0] - d))
    return fourier.filtered(spectrum, padded)[:d]


@of_points(lambda column, vector: (vector, column))
def whiten(
    column: Float[Array, " d"], vector: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """L⁻¹v for the Cholesky factor L of T, and the prediction errors e, Lₖₖ = √eₖ. O(d²)"""
    padded = _reversed_and_padded(vector)

    def visit(k: Array, state: Filter, carry: None) -> tuple[None, tuple[Array, Array]]:
        residual = dot(state.forward, _past(padded, k, state.forward))
        return carry, (residual / jnp.sqrt(state.error), state.error)

    values, errors = _recursion(column, visit, None)[2]
    return _nan_unless_positive(values, errors), errors


@of_points(lambda _, noise: noise)
def color(column: Float[Array, " d"], noise: Float[Array, " d"]) -> Float[Array, " d"]:
    """L ε. O(d²)"""
    d = column.shape[0]
    empty = jnp.zeros(2 * d, noise.dtype)  # the process so far, reversed: entry d − 1 − k is xₖ

    def visit(k: Array, state: Filter, past: Array) -> tuple[Array, tuple[Array, Array]]:
        predicted = -dot(state.forward, _past(past, k, state.forward))  # x_k itself is zero yet
        value = predicted + jnp.sqrt(state.error) * noise[k]
        return lax.dynamic_update_index_in_dim(past, value, d - 1 - k, 0), (value, state.error)

    values, errors = _recursion(column, visit, empty)[2]
    return _nan_unless_positive(values, errors)


@of_points(lambda _, rhs: rhs)
def solve(column: Float[Array, " d"], rhs: Float[Array, " d"]) -> Float[Array, " d"]:
    """T⁻¹ b, whose derivatives are solves and products again. O(d²)"""
    return lax.custom_linear_solve(
        lambda x: times(column, x), rhs, solve=lambda _, b: _levinson(column, b), symmetric=True
    )


def _levinson(column: Array, rhs: Array) -> Array:
    padded = _reversed_and_padded(rhs)

    # T₁…ₖ₊₁ (0 … 0 1)-column is the reversed filter over e: it makes the k-th equation hold.
    def visit(k: Array, state: Filter, x: Array) -> tuple[Array, None]:
        residual = dot(state.forward, _past(padded, k, state.forward))
        n = state.forward.shape[0]
        return x.at[:n].add(residual / state.error * state.backward), None

    return _recursion(column, visit, jnp.zeros_like(rhs))[1]


@jax.custom_jvp
def inverse_column(column: Float[Array, " d"]) -> Float[Array, " d"]:
    """First column of T⁻¹: the last filter over its error. O(d²)"""
    state, _, errors = _recursion(column, lambda k, state, _: (None, state.error), None)
    return state.forward / errors[-1]


@inverse_column.defjvp
def _(primals, tangents):  # d(T⁻¹e₀) = −T⁻¹ dT T⁻¹e₀
    (column,), (dcolumn,) = primals, tangents
    x = inverse_column(column)
    return x, -solve(column, times(dcolumn, x))


# With x = T⁻¹e₀ and y = (0, x_d₋₁, …, x₁), Gohberg and Semencul: T⁻¹ = (L(x)L(x)ᵀ − L(y)L(y)ᵀ)/x₀,
# L(·) the lower triangular Toeplitz matrix of a column. The k-th diagonal of L(x)L(x)ᵀ has the
# entries Σ_{p ≤ i} x_p x_{p+k}, and the sum Σ_p x_p x_{p+k} (d − p − k).
@of_points(lambda column: column)
def inverse_diagonal_sums(column: Float[Array, " d"]) -> Float[Array, " d"]:
    """Σᵢ (T⁻¹)ᵢ,ᵢ₊ₖ for every k. O(d²), of which O(d log d) for the sums"""
    x = inverse_column(column)
    d = x.shape[0]
    weights = jnp.arange(d, 0, -1, dtype=x.dtype)
    y = _reflected(x)
    return (_correlation(x, weights * x) - _correlation(y, weights * y)) / x[0]


@of_points(lambda column: column)
def inverse_diagonal(column: Float[Array, " d"]) -> Float[Array, " d"]:
    """Diagonal of T⁻¹. O(d²), of which O(d) for the sums"""
    x = inverse_column(column)
    return jnp.cumsum(jnp.square(x) - jnp.square(_reflected(x))) / x[0]


@of_points(_zero)
def logdet(column: Float[Array, " d"]) -> Float[Array, ""]:
    """log|T| = Σ log eₖ; NaN where T is not positive definite. O(d²)"""
    return _logdet(column)


@jax.custom_jvp
def _logdet(column: Array) -> Array:
    _, _, errors = _recursion(column, lambda k, state, _: (None, state.error), None)
    return _sum_of_logs(errors)


@_logdet.defjvp
def _(primals, tangents):  # d log|T| = tr(T⁻¹ dT), a sum over diagonals
    (column,), (dcolumn,) = primals, tangents
    sums = inverse_diagonal_sums(column)
    return logdet(column), 2 * jnp.sum(sums * dcolumn) - sums[0] * dcolumn[0]


@of_points(_zero)
def inv_quad(column: Float[Array, " d"], vector: Float[Array, " d"]) -> Float[Array, ""]:
    """vᵀT⁻¹v. O(d²)"""
    return _inv_quad(column, vector)


@jax.custom_jvp
def _inv_quad(column: Array, vector: Array) -> Array:
    return jnp.sum(jnp.square(whiten(column, vector)[0]))


@_inv_quad.defjvp
def _(primals, tangents):
    (column, vector), (dcolumn, dvector) = primals, tangents
    x = solve(column, vector)
    return inv_quad(column, vector), dot(x, 2 * dvector - times(dcolumn, x))


@of_points(lambda column, _: (_zero(column), _zero(column)))
def inv_quad_and_logdet(
    column: Float[Array, " d"], vector: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Both at once, in one run of the recursion. O(d²)"""
    return _inv_quad_and_logdet(column, vector)


@jax.custom_jvp
def _inv_quad_and_logdet(column: Array, vector: Array) -> tuple[Array, Array]:
    whitened, errors = whiten(column, vector)
    return jnp.sum(jnp.square(whitened)), _sum_of_logs(errors)


@_inv_quad_and_logdet.defjvp
def _(primals, tangents):
    (column, vector), (dcolumn, _) = primals, tangents
    _, dquad = jax.jvp(inv_quad, primals, tangents)
    _, dlogdet = jax.jvp(logdet, (column,), (dcolumn,))
    return inv_quad_and_logdet(column, vector), (dquad, dlogdet)


@of_points(_zero)
def divergence(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, ""]:
    """D(A, B) = tr(B⁻¹A) − d − log|B⁻¹A| of two columns, by the chain rule. O(d²)

    Predicting a process of A by the filters g of B instead of A's own g + η gives the step errors
    e_A + ηᵀAη, and so with r = (e_A − e_B)/e_B

        D(A, B) = Σₖ (r − log(1 + r)) + ηᵀAη / e_B.

    The recursion is run for B, for the difference to A, and for u = Aη; differences of the columns
    are exact when they are close, and nothing else is subtracted.
    """
    d = a.shape[0]
    tails = [_reversed_and_padded(x) for x in (a, a - b, b)]
    unit = (jnp.arange(d) == 0).astype(a.dtype)
    zero = jnp.zeros_like(a)

    def step(carry: tuple[Array, ...], k: Array) -> tuple[tuple[Array, ...], Array]:
        g, g_back, eta, eta_back, u, u_back, error, error_a, change = carry
        value = minus_log1p(change / error, error_a / error) + dot(eta, u) / error

        past_a, past_change, past_b = (_past(t, k + 1, g) for t in tails)
        reach, tail = dot(g, past_a), dot(eta, past_a)
        rho = dot(g, past_b) / error
        drho = (tail + dot(g, past_change) - rho * change) / error_a
        rho_a = rho + drho

        # One more equation: A(x, 0) = (A x, tail), and A of the reversed vector is its reverse.
        here, last = jnp.arange(d) == 0, jnp.arange(d) == k + 1
        g_shift, eta_shift = _shift(g_back), _shift(eta_back)
        with_u = jnp.where(last, tail, u)
        with_u_back = jnp.where(here, tail, _shift(u_back))
        # and A g = error_a e₀ − A η
        with_g = jnp.where(last, reach, jnp.where(here, error_a, 0.0) - u)
        with_g_back = jnp.where(here, reach, jnp.where(last, error_a, 0.0) - _shift(u_back))
        carry = (
            g - rho * g_shift,
            g_shift - rho * g,
            eta - rho_a * eta_shift - drho * g_shift,
            eta_shift - rho_a * eta - drho * g,
            with_u - rho_a * with_u_back - drho * with_g_back,
            with_u_back - rho_a * with_u - drho * with_g,
            error * (1 - jnp.square(rho)),
            error_a * (1 - jnp.square(rho_a)),
            change * (1 - jnp.square(rho_a)) - error * drho * (rho + rho_a),
        )
        return carry, value

    start = (unit, unit, zero, zero, zero, zero, b[0], a[0], a[0] - b[0])
    return jnp.sum(lax.scan(step, start, jnp.arange(d))[1])


Visit = Callable[[Array, Filter, Any], tuple[Any, Any]]


def _recursion(column: Array, visit: Visit, carry: Any) -> tuple[Filter, Any, Any]:
    """Runs Levinson and Durbin's recursion; `visit` sees the filter before each of d steps.

    An error that is not positive, as of a matrix that is indefinite, is NaN, and those after it.
    In stages of growing static length, since the filter of step k has only k + 1 entries.
    """
    d = column.shape[0]
    padded = _reversed_and_padded(column)
    one = jnp.ones((1,), column.dtype)
    state, outputs = Filter(one, one, _positive(column[0])), []

    def step(both: tuple[Filter, Any], k: Array) -> tuple[tuple[Filter, Any], Any]:
        state, carry = both
        carry, out = visit(k, state, carry)
        reflection = dot(state.forward, _past(padded, k + 1, state.forward)) / state.error
        shifted = _shift(state.backward)
        following = Filter(
            state.forward - reflection * shifted,
            shifted - reflection * state.forward,
            _positive(state.error * (1 - jnp.square(reflection))),
        )
        last = k == d - 1
        return (jax.tree.map(lambda x, y: jnp.where(last, x, y), state, following), carry), out

    bounds = sorted({-(-d * i // STAGES) for i in range(STAGES + 1)})
    for start, stop in itertools.pairwise(bounds):
        grow = (0, min(stop + 1, d) - state.forward.shape[0])
        wide = Filter(jnp.pad(state.forward, grow), jnp.pad(state.backward, grow), state.error)
        (state, carry), out = lax.scan(step, (wide, carry), jnp.arange(start, stop))
        outputs.append(out)
    return state, carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)


def _nan_unless_positive(values: Array, errors: Array) -> Array:
    return values * jnp.where(jnp.all(errors > 0), 1.0, jnp.nan).astype(values.dtype)


def _positive(error: Array) -> Array:
    return jnp.where(error > 0, error, jnp.nan)


def _sum_of_logs(errors: Array) -> Array:
    return jnp.sum(jnp.log(_positive(errors)))


STAGES = 4
"""Compile time grows with it, and the work falls towards half of that of one stage."""


def _reversed_and_padded(vector: Array) -> Array:
    return jnp.concatenate([vector[::-1], jnp.zeros_like(vector)])


def _past(padded: Array, k: Array, like: Array) -> Array:
    """Entry j is vₖ₋ⱼ, and zero before the start; from a vector reversed and padded."""
    d = padded.shape[0] // 2
    return lax.dynamic_slice_in_dim(padded, d - 1 - k, like.shape[0])


def _shift(x: Array) -> Array:
    return jnp.concatenate([jnp.zeros((1,), x.dtype), x[:-1]])


def _reflected(x: Array) -> Array:
    """(0, x_d₋₁, …, x₁)."""
    return jnp.concatenate([jnp.zeros((1,), x.dtype), x[:0:-1]])


def _correlation(x: Array, y: Array) -> Array:
    """Σ_p x_p y_{p+k} for k = 0 … d − 1."""
    d = x.shape[0]
    return fourier.correlation(jnp.pad(x, (0, d)), jnp.pad(y, (0, d)))[:d]
