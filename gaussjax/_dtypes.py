"""Which dtype a call computes in, and which its result has.

Floating arrays decide; numbers, lists and integers follow them. Half precision is computed in
float32.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def own_dtype(value: Any) -> Any:
    """Floating dtype of an array, or of the arrays in a list; None of anything else."""
    if isinstance(value, list | tuple):
        arrays = [x for x in jax.tree.leaves(value) if own_dtype(x) is not None]
        return jnp.result_type(*arrays) if any(isinstance(x, jax.Array) for x in arrays) else None
    dtype = getattr(value, "dtype", None)
    return dtype if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else None


def common_dtype(values: Iterable[Any]) -> Any:
    """The dtype that values with one of their own promote to, else JAX's default."""
    owns = [(x, own_dtype(x)) for x in values]
    typed = [x if hasattr(x, "dtype") else dtype for x, dtype in owns if dtype is not None]
    return jnp.result_type(*(typed or [float]))


def in_working_precision(leaves: Sequence[Array]) -> tuple[list[Array], Any]:
    """Floating leaves in one dtype, at least float32, and the dtype that results go back to."""
    dtype = common_dtype(leaves)
    wide = working_dtype(dtype)
    return [x.astype(wide) if own_dtype(x) is not None else x for x in leaves], dtype


def working_dtype(dtype: Any) -> Any:
    """The dtype to compute in: at least float32."""
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def restore(tree: Any, dtype: Any) -> Any:
    """Floating leaves of `tree` in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if own_dtype(x) is not None else x, tree)


def result_dtype(tree: Any) -> Any:
    """Common dtype of a structure's leaves, the dtype of results."""
    return common_dtype(jax.tree.leaves(tree))
