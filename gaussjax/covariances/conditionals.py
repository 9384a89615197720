"""Conditionals and posteriors of any structure: its own rule, or from a root of Σ.

QR makes the rows of the root, the given ones first, triangular, so no covariance matrix is formed
or subtracted.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax.covariances.base import (
    Conditional,
    Covariance,
    Indices,
    any_root,
    log_normal,
    narrow_root,
)
from gaussjax.covariances.cholesky import Cholesky, conditional_of
from gaussjax.covariances.root import Root, root_of
from gaussjax.linalg.laws.conditional import (
    Conditioned,
    condition_observed,
    condition_observed_apart,
    condition_rows,
    condition_rows_apart,
)
from gaussjax.linalg.products import dot
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.triangular import logdet_of_diagonal, solve


def conditional(
    cov: Covariance, kept: Indices, given: Indices, values: Float[Array, " m"], /
) -> Conditional:
    """Law of the coordinates `kept` of N(0, Σ) where those `given` have these values."""
    law = cov.conditional(kept, given, values)
    return _conditional_of_root(cov, kept, given, values) if law is None else law


def conditional_where(cov: Covariance, mask: Array, values: Array, /) -> Conditional:
    """N(0, Σ) given the values at the mask; they are zero elsewhere."""
    law = cov.conditional_where(mask, values)
    return _conditional_where_of_root(cov, mask, values) if law is None else law


def posterior(cov: Covariance, noise: Covariance, value: Float[Array, " d"], /) -> Conditional:
    """Law of x ~ N(0, Σ) given that x + e has this value, e ~ N(0, Σ')."""
    law = cov.posterior(noise, value)
    if law is not None:
        return law
    rest = noise.posterior(cov, value)  # the law of e: x is the rest of the value
    if rest is None and narrow_root(cov) is None and narrow_root(noise) is not None:
        rest = posterior_of_root(noise, None, cov, value)
    if rest is not None:
        return Conditional(value - rest.mean, rest.cov, rest.log_evidence)
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
    parts = root, matrix, any_root(noise), value
    if narrow_root(cov) is not None:
        return _root_given(condition_observed_apart(*parts), value)
    return conditional_of(condition_observed(*parts), value)


def _root_given(parts: Conditioned, values: Float[Array, " m"]) -> Conditional:
    """`conditional_of` what stays a `Root`."""
    evidence = log_normal(parts.distance, parts.logdet, len(values))
    return Conditional(parts.mean, root_of(parts.root), evidence)


def _conditional_of_root(
    cov: Covariance, kept: Indices, given: Indices, values: Float[Array, " m"], /
) -> Conditional:
    """`Covariance.conditional` of Σ = F Fᵀ, from the rows of F."""
    root = any_root(cov)
    if narrow_root(cov) is not None:
        return _root_given(condition_rows_apart(root[given], root[kept], values), values)
    rows = jnp.concatenate([root[given], root[kept]])
    return conditional_of(condition_rows(rows, values), values)


def _conditional_where_of_root(
    cov: Covariance, mask: Bool[Array, " d"], values: Float[Array, " d"], /
) -> Conditional:
    """`Covariance.conditional_where` of Σ = F Fᵀ, from the rows of F.

    As `_conditional_of_root`, in the order that a stable sort puts the mask in. Substitution on the
    sorted rows reaches the given ones first, so what stands behind them is masked, not cut off.
    """
    root = any_root(cov)
    if narrow_root(cov) is not None:
        return _root_given_where(root, mask, values)
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


def _root_given_where(
    root: Float[Array, "d k"], mask: Bool[Array, " d"], values: Float[Array, " d"], /
) -> Conditional:
    """The same for what stays a `Root`: all is given, what is off the mask as noise alone."""
    noise = jnp.diag(jnp.where(mask, 0.0, 1.0).astype(root.dtype))
    given = jnp.concatenate([jnp.where(mask[:, None], root, 0.0), noise], axis=1)
    parts = condition_rows_apart(given, root, values)
    mean = jnp.where(mask, values, parts.mean)
    left = Root(jnp.where(mask[:, None], 0.0, parts.root))
    count = jnp.sum(mask, dtype=values.dtype)
    return Conditional(mean, left, log_normal(parts.distance, parts.logdet, count))
