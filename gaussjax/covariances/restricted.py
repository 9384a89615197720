"""Maps, marginals and rescalings of any structure: its own rule, or by rows of a root of Σ."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gaussjax.covariances.base import Covariance, Indices, any_root, dtype_of, narrow_root
from gaussjax.covariances.cholesky import Cholesky
from gaussjax.covariances.diagonal import Diagonal
from gaussjax.covariances.root import Root
from gaussjax.covariances.scaled import Scaled
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


def unit_where(mask: Bool[Array, " d"], cov: Covariance, /) -> Covariance:
    """Σ with the coordinates at the mask independent of the others and of variance one."""
    root = cov.covariance_root()
    if root is not None and root.ndim == 1:
        return Diagonal(jnp.where(mask, 1.0, root))
    rows = jnp.where(mask[:, None], 0.0, any_root(cov))
    rows = jnp.concatenate([rows, jnp.diag(mask.astype(rows.dtype))], axis=1)
    return Cholesky(triangular_root(rows)) if narrow_root(cov) is None else Root(rows)


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
