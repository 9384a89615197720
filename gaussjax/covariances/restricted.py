"""Marginals, conditionals, posteriors and rescalings of any structure: its own rule, or dense.

The dense way takes the rows of a root of Σ that belong to the coordinates in question, and makes
them triangular by QR, so that no covariance matrix is formed and none subtracted.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax.covariances.base import Conditional, Covariance, Indices, any_root, dtype_of
from gaussjax.covariances.cholesky import (
    Cholesky,
    condition_root,
    condition_root_where,
    conditional_of,
)
from gaussjax.covariances.diagonal import Diagonal
from gaussjax.covariances.root import Root
from gaussjax.covariances.scaled import Scaled
from gaussjax.linalg.conditional import condition_observed
from gaussjax.linalg.roots import triangular_root
from gaussjax.linalg.semidefinite import rank_revealing_root


def mapped(cov: Covariance, matrix: Float[Array, "m d"], /) -> Covariance:
    """A Σ Aᵀ; singular where rows of A depend on each other, to rounding."""
    law = cov.mapped(matrix)
    if law is not None:
        return law
    rows = jax.vmap(cov.color_transpose)(matrix)
    singular = matrix.shape[0] > cov.dim
    return Root(rows) if singular else Cholesky(rank_revealing_root(rows))


def marginal(cov: Covariance, indices: Indices, /) -> Covariance:
    """Σ restricted to these rows and columns."""
    law = cov.marginal(indices)
    return Cholesky(rank_revealing_root(root_rows(cov, indices))) if law is None else law


def conditional(
    cov: Covariance, kept: Indices, given: Indices, values: Float[Array, " m"], /
) -> Conditional:
    """Law of the coordinates `kept` of N(0, Σ) where those `given` have these values."""
    law = cov.conditional(kept, given, values)
    return condition_root(any_root(cov), kept, given, values) if law is None else law


def conditional_where(cov: Covariance, mask: Array, values: Array, /) -> Conditional:
    """N(0, Σ) given the values at the mask; they are zero elsewhere."""
    law = cov.conditional_where(mask, values)
    return condition_root_where(any_root(cov), mask, values) if law is None else law


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


def unit_where(mask: Bool[Array, " d"], cov: Covariance, /) -> Covariance:
    """Σ with the coordinates at the mask independent of the others and of variance one."""
    root = cov.covariance_root()
    if root is not None and root.ndim == 1:
        return Diagonal(jnp.where(mask, 1.0, root))
    rows = jnp.where(mask[:, None], 0.0, any_root(cov))
    return Cholesky(
        triangular_root(jnp.concatenate([rows, jnp.diag(mask.astype(rows.dtype))], axis=1))
    )


def rescaled(cov: Covariance, factor: Array, /) -> Covariance:
    """diag(f) Σ diag(f), f `(d,)` or `()`; never dense."""
    law = cov.rescaled(factor)
    return Scaled(cov, jnp.broadcast_to(factor, (cov.dim,))) if law is None else law


def triangle(cov: Covariance, /) -> Float[Array, "d d"]:
    """The lower triangular root of any covariance."""
    root = cov.covariance_root()
    if root is None:
        return triangular_root(any_root(cov))
    return jnp.diag(root) if root.ndim == 1 else jnp.tril(root)


def root_rows(cov: Covariance, indices: Indices, /) -> Float[Array, "m d"]:
    """Rows of a square root of Σ."""
    units = (jnp.arange(cov.dim)[None] == jnp.asarray(indices)[:, None]).astype(dtype_of(cov))
    return jax.vmap(cov.color_transpose)(units)
