"""Frozen dataclasses that are pytrees and know the event rank of each leaf.

>>> @structure
... class Scaled:
...     scale: jax.Array = leaf(rank=0)
...     dim: int = static()
>>> jax.tree.map(lambda x: 2 * x, Scaled(3.0, dim=2))
Scaled(scale=6.0, dim=2)
>>> ranks(Scaled(3.0, dim=2))
[0]
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def leaf(*, rank: int) -> Any:
    """Declares an array field whose last `rank` axes are event axes; axes before them are batch."""
    return dataclasses.field(metadata={"rank": rank})


def nested(*, stacked: int = 0) -> Any:
    """Declares a field that holds a structure, or a tuple of structures.

    With `stacked` its leaves have that many more event axes in front, as if mapped over them.
    """
    return dataclasses.field(metadata={"rank": None, "stacked": stacked})


def static() -> Any:
    """Declares a field that is part of the type of the pytree, like a size."""
    return dataclasses.field(metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(leaf, nested, static))
def structure(cls: type[T], /) -> type[T]:
    """Makes `cls` a frozen dataclass and a pytree. Unflattening never validates.

    Fields are declared with `leaf(rank=…)`, `nested()` or `static()`.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # a dataclass since the line above
    meta = tuple(f.name for f in fields if f.metadata.get("static"))
    data = tuple(f.name for f in fields if f.name not in meta)

    def flatten(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(tree, n) for n in data), tuple(getattr(tree, n) for n in meta)

    def flatten_with_keys(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, static_values = flatten(tree)
        keys = (jax.tree_util.GetAttrKey(name) for name in data)
        return tuple(zip(keys, children, strict=True)), static_values

    def unflatten(static_values: tuple[Any, ...], children: Iterable[Any]) -> T:
        return cls(**dict(zip(meta + data, (*static_values, *children), strict=True)))

    # `jax.tree_util.register_dataclass` would be shorter, but two of its classes with the same
    # fields have equal tree structures (jax 0.10), and `jit` then runs one's program on the other.
    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def is_structure(value: Any, /) -> bool:
    """Whether `value` is an instance of a class made by `structure`."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def ranks(tree: Any, /) -> list[int]:
    """Event rank of every leaf of a structure, in the order of `jax.tree.leaves`."""
    if isinstance(tree, tuple):
        return [rank for item in tree for rank in ranks(item)]
    found: list[int] = []
    for field in dataclasses.fields(tree):
        if field.metadata.get("static"):
            continue
        rank = field.metadata["rank"]
        if rank is None:
            stacked = field.metadata["stacked"]
            found += [stacked + r for r in ranks(getattr(tree, field.name))]
        else:
            found.append(rank)
    return found
