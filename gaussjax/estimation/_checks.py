"""Why an estimate is NaN, said where the values are known."""

import functools
import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from gaussjax import _errors
from gaussjax._struct import fields_of
from gaussjax.estimation import _sentences


def values(result: Any, data: Any, weights: Any, mask: Any, what: str) -> None:
    """Raises the sentence for a result that is NaN; `data` may be moments."""
    leaves = jax.tree.leaves((result, data, weights, mask))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        return
    fine = [
        ~jnp.any(jnp.isnan(x), axis=tuple(range(x.ndim - rank, x.ndim)))
        for _, x, rank in fields_of(result)
    ]
    works = functools.reduce(operator.and_, jnp.broadcast_arrays(*fine))
    if bool(jnp.all(works)):
        return
    if weights is not None:
        given = jnp.asarray(weights)
        valid = jnp.all((given >= 0) & (given < jnp.inf), -1)
        _errors.all_true("weights must be finite and not negative", valid)
        _errors.all_true("weights must not all be zero", jnp.any(given > 0, -1))
    if mask is not None:
        _errors.all_true("mask must name a row to read", jnp.any(jnp.asarray(mask), -1))
    for x in jax.tree.leaves(data) if _holds_leaves(data) else [jnp.asarray(data)]:
        seen = x if mask is None else jnp.where(jnp.asarray(mask)[..., None], x, 0)
        finite = jnp.isfinite(seen)
        cure = "a mask says which rows to read, and fit_missing takes rows with holes"
        over = tuple(range(max(finite.ndim - 2, 0), finite.ndim))
        _errors.all_true("data must be finite", jnp.all(finite, over), cure)
    cure = (
        "constant or dependent columns, too few rows, or variances beyond the dtype's range "
        "have no such estimate"
    )
    _errors.all_true(f"data must vary in every direction for {what}", works, cure)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def without_derivatives(what: str, tree: Any) -> Any:
    """`tree`, of which a derivative is a sentence: singular vectors may not have one."""
    return tree


@without_derivatives.defjvp
def _(what: str, primals: Any, tangents: Any) -> Any:
    raise _sentences.no_derivatives(what)


def _holds_leaves(data: Any) -> bool:
    return hasattr(data, "radial")
