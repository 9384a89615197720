"""Frozen dataclasses that are pytrees and know the event rank of each leaf.

>>> @structure
... class Line:
...     offset: jax.Array = leaf(rank=0)
...     slope: jax.Array = leaf(rank=1)
...     dim: int = static()
>>> line = Line(3.0, jnp.ones((5, 2)), dim=2)
>>> ranks(line)
[0, 1]

All leaves have the same number of batch axes from the moment an instance is made: leaves that lack
some get axes of size one in front. So whatever adds an axis to every leaf (`vmap`, `scan`) adds it
at the same place of the batch.

>>> line
Line(offset=Array([3.], dtype=float32, weak_type=True), slope=float32[5,2], dim=2)
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.core
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

T = TypeVar("T")

FEW = 4
"""Numbers of a leaf that `repr` shows; of a longer one it shows the type."""


def leaf(*, rank: int) -> Any:
    """Declares an array field whose last `rank` axes are event axes; axes before them are batch."""
    return dataclasses.field(metadata={"rank": rank})


def nested(*, stacked: int = 0) -> Any:
    """Declares a field that holds a structure, or a tuple of structures.

    With `stacked` its leaves have that many more leading event axes, as if mapped over them.
    """
    return dataclasses.field(metadata={"rank": None, "stacked": stacked})


def static() -> Any:
    """Declares a field that is part of the type of the pytree: a number, a string, a tuple."""
    return dataclasses.field(metadata={"static": True})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(leaf, nested, static))
def structure(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass and a pytree, compared by identity and printed by shape.

    Fields are declared with `leaf(rank=…)`, `nested()` or `static()`. The constructor aligns the
    leaves; unflattening neither validates nor changes anything.
    """
    own_repr = "__repr__" in vars(cls)
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    cls.__init__ = _then_align(cls.__init__)
    if not own_repr:
        cls.__repr__ = _repr
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # a dataclass by now
    meta = tuple(f.name for f in fields if f.metadata.get("static"))
    data = tuple(f.name for f in fields if f.name not in meta)

    def flatten(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(tree, n) for n in data), tuple(getattr(tree, n) for n in meta)

    def flatten_with_keys(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, static_values = flatten(tree)
        keys = (jax.tree_util.GetAttrKey(name) for name in data)
        return tuple(zip(keys, children, strict=True)), static_values

    def unflatten(static_values: tuple[Any, ...], children: Iterable[Any]) -> T:
        return _made(cls, zip(meta + data, (*static_values, *children), strict=True))

    # `jax.tree_util.register_dataclass` would be shorter, but two of its classes with the same
    # fields have equal tree structures (jax 0.10), and `jit` then runs one's program on the other.
    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    _register_for_export(cls)
    return cls


def is_structure(value: Any) -> bool:
    """Whether `value` is an instance of a class made by `structure`."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def ranks(tree: Any) -> list[int]:
    """Event rank of every leaf of a structure, in the order of `jax.tree.leaves`."""
    return [rank for _, value, rank in fields_of(tree) if value is not None]


def fields_of(tree: Any, path: str = "", stacked: int = 0) -> Iterator[tuple[str, Any, int]]:
    """Path, value and event rank of every field that holds a leaf."""
    for field in dataclasses.fields(tree):
        if field.metadata.get("static"):
            continue
        value, name = getattr(tree, field.name), f"{path}.{field.name}"
        if field.metadata["rank"] is not None:
            yield name, value, stacked + field.metadata["rank"]
            continue
        inner = stacked + field.metadata["stacked"]
        parts = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for i, part in parts:
            if is_structure(part):
                yield from fields_of(part, name if i is None else f"{name}[{i}]", inner)


def batch_rank(tree: Any) -> int:
    """The largest number of axes that an array of it has in front of its event axes."""
    return max((_batch_axes(value, rank) for _, value, rank in fields_of(tree)), default=0)


# Alignment ---------------------------------------------------------------------------------------


def _then_align(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        _take_lists(self)
        _align(self, batch_rank(self))

    return made


def _take_lists(tree: Any) -> None:
    """Lists of numbers become arrays: as pytrees they would be many leaves."""
    for field in dataclasses.fields(tree):
        value = getattr(tree, field.name)
        is_list = field.metadata.get("rank") is not None and type(value) in (list, tuple)
        numbers = int | float | jax.Array | np.ndarray | np.generic
        if is_list and all(isinstance(x, numbers) for x in jax.tree.leaves(value)):
            with contextlib.suppress(ValueError):  # ragged: refused on use
                object.__setattr__(tree, field.name, _stacked(value))


def _stacked(value: Any) -> jax.Array:
    """A list as an array that, like a number, does not promote others."""
    if not isinstance(value, list | tuple):
        return jnp.asarray(value)
    return jnp.stack([_stacked(x) for x in value]) if value else jnp.zeros(0)


def _align(tree: Any, count: int, stacked: int = 0) -> None:
    """Gives every array of a new structure `count` batch axes."""
    for field in dataclasses.fields(tree):
        if field.metadata.get("static"):
            continue
        value, rank = getattr(tree, field.name), field.metadata["rank"]
        if rank is not None:
            new = _with_axes(value, count - _batch_axes(value, stacked + rank, count))
        else:
            inner = stacked + field.metadata["stacked"]
            parts = value if isinstance(value, tuple) else (value,)
            news = tuple(_aligned(part, count, inner) for part in parts)
            new = news if isinstance(value, tuple) else news[0]
        object.__setattr__(tree, field.name, new)


def _aligned(part: Any, count: int, stacked: int) -> Any:
    """A copy of a part whose leaves have that many batch axes, or the part itself."""
    if not is_structure(part):
        return part
    if all(_batch_axes(value, stacked + r, count) == count for _, value, r in fields_of(part)):
        return part
    copy = _made(type(part), vars(part).items())
    _align(copy, count, stacked)
    return copy


def _batch_axes(value: Any, rank: int, otherwise: int = 0) -> int:
    """Number of batch axes; `otherwise` if it is not an array, or lacks event axes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0 if rank == 0 else otherwise
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
    lead = len(value.shape) - rank if is_array else -1
    return lead if lead >= 0 else otherwise


def _with_axes(value: Any, count: int) -> Any:
    """`value` with `count` axes of size one in front."""
    if count == 0:
        return value
    if not isinstance(value, jax.ShapeDtypeStruct):
        module: Any = np if isinstance(value, np.ndarray | np.generic) else jnp
        return module.expand_dims(value, tuple(range(count)))
    sharding = value.sharding
    if isinstance(sharding, NamedSharding):
        spec = PartitionSpec(*(None,) * count, *sharding.spec)
        sharding = NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    shape = (*(1,) * count, *value.shape)
    return jax.ShapeDtypeStruct(shape, value.dtype, sharding=sharding, weak_type=value.weak_type)


def _made(cls: type[T], values: Iterable[tuple[str, Any]]) -> T:
    """An instance with these fields, past `__init__`."""
    tree = object.__new__(cls)
    vars(tree).update(values)
    return tree


def replaced(tree: T, **values: Any) -> T:
    """The same structure with other values of some fields, which are not aligned."""
    return _made(type(tree), {**vars(tree), **values}.items())


# Printing and export -----------------------------------------------------------------------------


def _repr(self: Any) -> str:
    parts = (f"{f.name}={_shown(getattr(self, f.name))}" for f in dataclasses.fields(self))
    return f"{type(self).__name__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    is_tracer = isinstance(value, jax.core.Tracer)
    if not isinstance(value, jax.Array | np.ndarray) or (not is_tracer and value.size <= FEW):
        return repr(value)
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def _register_for_export(cls: type) -> None:
    """Lets `jax.export` serialise functions that take or return one."""
    register = functools.partial(
        jax.export.register_pytree_node_serialization,
        cls,
        serialize_auxdata=lambda values: json.dumps(values, default=int).encode(),
        deserialize_auxdata=lambda data: _as_tuples(json.loads(data)),
    )
    name = f"{cls.__module__}.{cls.__qualname__}"
    try:
        register(serialized_name=name)
    except ValueError:  # taken: a notebook cell that runs again defines the class again
        register(serialized_name=f"{name} {id(cls)}")  # for this process only


def exported(cls: type[T]) -> type[T]:
    """Lets `jax.export` serialise functions that return this named tuple."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    jax.export.register_namedtuple_serialization(cls, serialized_name=name)
    return cls


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
