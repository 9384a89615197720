"""Values: a sentence for what is known to be wrong; under `jit`, NaN in its batch element."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gaussjax import _errors
from gaussjax._lift import compiled_once
from gaussjax.linalg import cholesky

F = TypeVar("F", bound=Callable[..., Any])


def _judging(function: F, *, static: tuple[str, ...] = ()) -> F:
    """Compiled once; a bad value raises its own error, under `jax_debug_nans` too."""
    compiled = compiled_once(function, static=static)

    @functools.wraps(function)
    def judged(*args: Any, **kwargs: Any) -> Any:
        with jax.debug_nans(False):
            return compiled(*args, **kwargs)

    return cast(F, judged)


def not_negative(name: str, values: Array, rank: int | None = None) -> Array:
    """Scales or variances; an event with one that is negative or not finite is NaN."""
    rank = min(values.ndim, 1) if rank is None else rank
    valid, values = _judged_scales(values, rank=rank)
    _errors.all_true(f"{name} must be finite and not negative", valid)
    return values


@_judging
def judged_triangle(matrix: Array) -> tuple[Array, Array, Array]:
    """Whether it is not a symmetric matrix, whether its lower triangle is a factor; that, or NaN.

    A diagonal matrix counts as a triangle.
    """
    is_symmetric = jnp.all(matrix == jnp.swapaxes(matrix, -1, -2), (-2, -1))
    is_lower = jnp.all(jnp.triu(matrix, 1) == 0, (-2, -1))
    lower = jnp.tril(matrix)
    diagonal = jnp.diagonal(lower, axis1=-2, axis2=-1)
    valid = jnp.all(jnp.isfinite(lower), (-2, -1)) & jnp.all(diagonal > 0, -1)
    return is_lower | ~is_symmetric, valid, nan_unless(valid, lower, 2)


def factor_of(
    matrix: Array,
    is_symmetric: Callable[[Array], Array] | None = None,
    factorise: Callable[[Array], Array] = cholesky,
) -> Array:
    """Cholesky factor of a matrix that should be symmetric positive definite; NaN if not."""
    problem = "matrix must be positive definite to working precision"
    cure = "for a singular one there are from_semidefinite and from_root"
    return symmetric_factor(matrix, factorise, problem, cure, is_symmetric)


def symmetric_factor(
    matrix: Array,
    factorise: Callable[[Array], Array],
    problem: str,
    cure: str = "",
    is_symmetric: Callable[[Array], Array] | None = None,
) -> Array:
    """Factor of a matrix that should be symmetric; NaN if not, or if it has none."""
    judge = _judged if is_symmetric is None else functools.partial(_judge, is_symmetric)
    with jax.debug_nans(False):  # a failure raises its own error
        finite, symmetric, matrix = judge(matrix)
        _errors.all_true("matrix must be finite", finite)
        _errors.all_true("matrix must be symmetric", symmetric)
        factor = factorise(matrix)
    _errors.all_true(problem, _has_no_nan(factor), cure)
    return factor


def _judge(is_symmetric: Callable[[Array], Array], matrix: Array) -> tuple[Array, Array, Array]:
    """Whether it is finite, and symmetric; the matrix, or NaN."""
    symmetric = is_symmetric(matrix)
    finite = jnp.all(jnp.isfinite(matrix), (-2, -1))
    return finite, symmetric, nan_unless(symmetric, matrix, 2)


@_judging
def _judged(matrix: Array) -> tuple[Array, Array, Array]:
    return _judge(_is_symmetric, matrix)


@functools.partial(_judging, static=("rank",))
def _judged_scales(values: Array, rank: int) -> tuple[Array, Array]:
    """Whether values are finite and not negative, and the values, NaN where they are not."""
    valid = (values >= 0) & jnp.isfinite(values)
    valid = jnp.all(valid, axis=-1) if rank else valid
    return valid, nan_unless(valid, values, rank)


@_judging
def _has_no_nan(matrix: Array) -> Array:
    return ~jnp.any(jnp.isnan(matrix), (-2, -1))


def _is_symmetric(matrix: Array) -> Array:
    """|Aᵢⱼ − Aⱼᵢ| ≤ √ε √(Aᵢᵢ Aⱼⱼ): a tolerance that does not depend on units."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(matrix, axis1=-2, axis2=-1)))
    tolerance = (
        float(jnp.finfo(matrix.dtype).eps) ** 0.5 * scale[..., :, None] * scale[..., None, :]
    )
    return jnp.all(jnp.abs(matrix - jnp.swapaxes(matrix, -1, -2)) <= tolerance, (-2, -1))


def nan_unless(valid: Array, values: Array, rank: int) -> Array:
    return jnp.where(jnp.expand_dims(valid, tuple(range(-rank, 0))), values, jnp.nan)
