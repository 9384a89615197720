"""Conditionals and posteriors of any structure: its own rule, or from a root of Σ.

QR makes the rows of the root, the given ones first, triangular, so no covariance matrix is formed
or subtracted.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax.covariances.base import Conditional, Covariance, Indices, any_root
from gaussjax.covariances.cholesky import Cholesky, conditional_of
from gaussjax.linalg.laws.conditional import condition_observed, condition_rows
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import logdet_of_diagonal, solve


def conditional(
    cov: Covariance, kept: Indices, given: Indices, values: Float[Array, " m"], /
) -> Conditional:
    """Law of the coordinates `kept` of N(0, Σ) where those `given` have these values."""
    law = cov.conditional(kept, given, values)
    return _conditional_of_root(any_root(cov), kept, given, values) if law is None else law


def conditional_where(cov: Covariance, mask: Array, values: Array, /) -> Conditional:
    """N(0, Σ) given the values at the mask; they are zero elsewhere."""
    law = cov.conditional_where(mask, values)
    return _conditional_where_of_root(any_root(cov), mask, values) if law is None else law


def posterior(cov: Covariance, noise: Covariance, value: Float[Array, " d"], /) -> Conditional:
    """Law of x ~ N(0, Σ) given that x + e has this value, e ~ N(0, Σ')."""
    law = cov.posterior(noise, value)
    if law is not None:
        return law
    law = noise.posterior(cov, value)  # that of e, and x is the rest of the value
    if law is not None:
        return Conditional(value - law.mean, law.cov, law.log_evidence)
    return posterior_of_root(cov, None, noise, value)


def posterior_of_root(
    cov: Covariance,
    matrix: Float[Array, "m d"] | None,
    noise: Covariance,
    value: Float[Array, " m"],
    /,
) -> Conditional:
    """Law of x ~ N(0, F Fᵀ) given that H x + e has this value; H is the identity if None."""
    root = any_root(cov)
    matrix = jnp.eye(cov.dim, dtype=root.dtype) if matrix is None else matrix
    return conditional_of(condition_observed(root, matrix, any_root(noise), value), value)


def _conditional_of_root(
    root: Float[Array, "d k"], kept: Indices, given: Indices, values: Float[Array, " m"], /
) -> Conditional:
    """`Covariance.conditional` of Σ = F Fᵀ, from the rows of F."""
    rows = jnp.concatenate([root[given], root[kept]])
    return conditional_of(condition_rows(rows, values), values)


def _conditional_where_of_root(
    root: Float[Array, "d k"], mask: Bool[Array, " d"], values: Float[Array, " d"], /
) -> Conditional:
    """`Covariance.conditional_where` of Σ = F Fᵀ, from the rows of F.

    As `_conditional_of_root`, in the order that a stable sort puts the mask in. Substitution on the
    sorted rows reaches the given ones first, so what stands behind them is masked, not cut off.
    """
    order = jnp.argsort(~mask)  # stable: a triangle stays one when the order is undone
    back = jnp.argsort(order)
    lower = triangular_root(root[order])
    given = mask[order]
    whitened = jnp.where(given, solve(lower, values[order]), 0.0)
    pivots = jnp.where(given, jnp.diagonal(lower), 1.0)
    count = jnp.sum(mask, dtype=values.dtype)
    distance = jnp.sum(jnp.square(whitened)) + count * math.log(2 * math.pi)
    rest = jnp.where(given[None] | given[:, None], 0.0, lower)
    mean = jnp.where(mask, values, dot(lower, whitened)[back])
    evidence = -0.5 * distance - logdet_of_diagonal(pivots)
    return Conditional(mean, Cholesky(rest[back][:, back]), evidence)
