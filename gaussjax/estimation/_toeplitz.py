"""Maximum likelihood of a Toeplitz covariance, which has no closed form: by scoring.

With Tₖ the matrix of ones where |i − j| = k and P = Σ⁻¹, the likelihood's derivative in the column
is ½ (tr Tₖ P S P − tr Tₖ P), and its expected second derivative −½ tr P Tₖ P Tₗ.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax.covariances import Covariance, Toeplitz
from gaussjax.estimation._iterated import until_still
from gaussjax.estimation._rules import Scatter
from gaussjax.linalg.factor import factorise
from gaussjax.linalg.products import dot, gram
from gaussjax.linalg.ranges import lengths, unit_of
from gaussjax.linalg.triangular import logdet_of_triangle, solve

STEPS = 500
SHORTER = 12  # powers of ½ of a step that are tried


def toeplitz(s: Scatter) -> Covariance:
    """The column of largest likelihood, from the biased autocovariance, which is definite.

    Source: Anderson, Annals of Statistics 1 (1973), §4 (linear structure); Gray, §4.
    """
    d = s.rows.shape[1]
    if d == 0:
        return Toeplitz(s.weight * jnp.zeros(0, s.rows.dtype))
    unit = unit_of(lengths(s.rows.reshape(1, -1))[0] / jnp.sqrt(d * s.weight))
    column, rests = _best_column(s.rows / (unit * jnp.sqrt(s.weight)))
    # of few rows the likelihood may have no largest value: the loop goes on for ever, or fails
    return Toeplitz(jnp.square(unit) * jnp.where(jnp.any(s.varies), column / rests, jnp.nan))


@jax.custom_jvp
def _best_column(rows: Float[Array, "k d"]) -> tuple[Array, Array]:
    """The column, and 1, or NaN where the loop does not come to rest."""
    scatter = gram(rows.T)

    def loss(column: Array) -> Array:
        lower = factorise(_matrix(column))
        value = 2 * logdet_of_triangle(lower) + jnp.sum(jnp.square(solve(lower, rows.T)))
        return jnp.where(jnp.isnan(value), jnp.inf, value)

    def step(column: Array) -> Array:
        precision = _precision(column)
        root = factorise(_information(precision))
        change = solve(root, solve(root, _slope(precision, scatter)), transpose=True)
        sizes = 0.5 ** jnp.arange(SHORTER, dtype=column.dtype)
        tried = column[None] + sizes[:, None] * change[None]
        before = loss(column)
        rounding = 16 * float(jnp.finfo(column.dtype).eps) * (1 + jnp.abs(before))
        is_good = jax.vmap(loss)(tried) <= before + rounding  # the largest that does not go up
        new = jnp.where(jnp.any(is_good), tried[jnp.argmax(is_good)], column)
        return jnp.where(jnp.isnan(change).any(), jnp.nan, new)

    def change(old: Array, new: Array) -> Array:
        return jnp.max(jnp.abs(new - old)) / jnp.abs(old[0])

    d = rows.shape[1]
    return until_still(step, change, _diagonal_sums(scatter) / (d * _both(d, rows.dtype)), STEPS)


# The slope stays zero: its derivative in the column, −H, times the column's is that in the data.
@_best_column.defjvp
def _(primals, tangents):
    column, rests = _best_column(*primals)
    precision = _precision(column)
    _, moved = jax.jvp(lambda rows: _slope(precision, gram(rows.T)), primals, tangents)
    scatter = gram(primals[0].T)
    bend = jax.jacfwd(lambda column: _slope(_precision(column), scatter))(column)
    root = factorise(-bend)  # definite where the likelihood is largest, and NaN elsewhere
    change = solve(root, solve(root, moved), transpose=True)
    return (column, rests), (change / rests, jnp.zeros_like(rests))


def _precision(column: Float[Array, " d"]) -> Float[Array, "d d"]:
    lower = factorise(_matrix(column))
    return gram(solve(lower, jnp.eye(len(column), dtype=column.dtype)).T)


def _slope(precision: Array, scatter: Array) -> Float[Array, " d"]:
    """Twice the derivative of the mean likelihood in the column."""
    return _diagonal_sums(dot(dot(precision, scatter), precision) - precision)


def _both(d: int, dtype: jnp.dtype) -> Float[Array, " d"]:
    """How many diagonals have that distance from the middle: one or two."""
    return jnp.where(jnp.arange(d) == 0, 1.0, 2.0).astype(dtype)


def _matrix(column: Float[Array, " d"]) -> Float[Array, "d d"]:
    places = jnp.arange(len(column))
    return column[jnp.abs(places[:, None] - places[None])]


def _diagonal_sums(matrix: Float[Array, "d d"]) -> Float[Array, " d"]:
    """tr Tₖ M for every k, of a symmetric M."""
    d = len(matrix)
    shifted = jnp.pad(jnp.triu(matrix), ((0, 0), (0, d))).reshape(-1)
    # row i of what is one shorter starts at its own diagonal
    skewed = jnp.pad(shifted, (0, d)).reshape(d, 2 * d + 1)[:, :d]
    return _both(d, matrix.dtype) * jnp.sum(skewed, axis=0)


def _information(precision: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """tr P Tₖ P Tₗ for every k and l, as a sum over shifts of P against itself, by FFT."""
    d = len(precision)
    wave = jnp.fft.rfft2(precision, (2 * d, 2 * d))
    shifts = jnp.fft.irfft2(wave * wave.conj(), (2 * d, 2 * d))
    there, back = jnp.arange(d), -jnp.arange(d) % (2 * d)
    total = jnp.zeros_like(precision)
    for k in (there, back):
        for m in (there, back):
            total = total + shifts[k[:, None], m[None]]
    once = jnp.where(jnp.arange(d) == 0, 0.5, 1.0).astype(precision.dtype)
    total = total * once[:, None] * once[None]
    return 0.5 * (total + total.T)
