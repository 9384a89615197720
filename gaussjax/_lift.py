"""Lifts a function written for one Gaussian over leading axes, by NumPy's gufunc rules.

Batch axes broadcast and event axes never do. Lifting is `jax.vmap`, once per batch axis, over just
the leaves that have the axis: what is shared by a batch is neither copied nor factorised again, and
in a Gaussian that is returned it stays shared, with an axis of size one.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from gaussjax import _checks
from gaussjax._dtypes import common_dtype, in_working_precision, restore, result_dtype
from gaussjax._sharding import batch_spec, resharded, varying_alike
from gaussjax._struct import fields_of, is_structure

F = TypeVar("F", bound=Callable[..., Any])
Flags = Sequence[Sequence[bool]]  # of each axis of the batch, for each array


class Parameter(NamedTuple):
    """What an argument has to be: a structure of some type, or an array with event axes."""

    name: str
    types: tuple[type, ...]  # of structures; none for an array
    convert: Callable[..., Array]
    axes: tuple[str, ...]  # names of an array's event axes, or of a structure's dimension


def lift(function: F) -> F:
    """Decorator: the annotations of the arguments say which axes are event axes.

    Each argument is a structure, or an array whose last axes are those named in its annotation. A
    structure's dimension is called `d`, or `m` in `Annotated[Gaussian, "m"]`; an axis of that name
    has its size. What is keyword-only is static, unless it is an array, too.
    """
    signature = inspect.signature(function)
    lifted_ones = [p for p in signature.parameters.values() if _is_lifted(p)]
    parameters = tuple(_parameter(p.name, p.annotation) for p in lifted_ones)
    names = [p.name for p in parameters]
    optional = {p.name for p in lifted_ones if p.default is None}
    by_position = [p for p in lifted_ones if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    shares = not hasattr(signature.return_annotation, "array_type")  # a structure, or some

    # Compiled, so that an eager call runs one program and the next like it finds it again, without
    # looking at its arguments; inlined, so that a program around it sees the operations themselves.
    @functools.partial(jax.jit, static_argnums=1, inline=True)
    def compiled(values: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
        given = [(p, x) for p, x in zip(parameters, values, strict=True) if x is not None]
        return _call(functools.partial(function, **dict(options)), given, shares=shares)

    @functools.wraps(function)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        values, options = args, ()
        if kwargs or len(args) != len(by_position) or len(names) > len(by_position):
            # says which argument is missing or too many
            arguments = signature.bind(*args, **kwargs).arguments
            values = tuple(arguments.get(name) for name in names)
            options = tuple(sorted((n, x) for n, x in arguments.items() if n not in names))
        if not all(map(_is_ready, parameters, values)):
            values = _ready(parameters, values, optional)
        return compiled(values, options)

    return cast(F, lifted)


def _is_lifted(parameter: inspect.Parameter) -> bool:
    is_array = any(hasattr(a, "array_type") for a in _alternatives(parameter.annotation))
    return is_array or parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def _alternatives(annotation: Any) -> list[Any]:
    """The types of `A | B | None`."""
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return [t for t in types if t is not NoneType]


def _parameter(name: str, annotation: Any) -> Parameter:
    first, *others = _alternatives(annotation)
    if hasattr(first, "array_type"):
        convert = {Bool: _checks.bool_array, Int: _checks.index_array}
        axes = tuple(axis for axis in first.dim_str.split() if axis != "...")
        return Parameter(name, (), convert.get(first.dtype, _checks.real_array), axes)
    axes = tuple(getattr(first, "__metadata__", ("d",)))
    return Parameter(name, (getattr(first, "__origin__", first), *others), _checks.real_array, axes)


def _is_ready(parameter: Parameter, value: Any) -> bool:
    """Whether `jit` takes it as it is: then everything else is looked at while it is traced."""
    if not parameter.types:
        return isinstance(value, jax.Array)
    return isinstance(value, parameter.types) and all(
        isinstance(x, jax.Array) for x in jax.tree.leaves(value)
    )


def _ready(
    parameters: Sequence[Parameter], values: Sequence[Any], optional: set[str]
) -> tuple[Any, ...]:
    """Arguments as arrays, and structures of them, in the dtype of those that have one."""
    names = ", ".join(p.name for p in parameters)
    for p, x in zip(parameters, values, strict=True):
        if p.types:
            _checks.instance(p.name, x, *p.types, order=names)
    dtype = common_dtype(_floating(zip(parameters, values, strict=True)))
    return tuple(
        None if x is None and p.name in optional else _arrays(p, x, dtype)
        for p, x in zip(parameters, values, strict=True)
    )


def _floating(given: Any) -> list[Any]:
    """What says in which dtype a call computes."""
    pairs = [(p, [x] if not p.types else jax.tree.leaves(x)) for p, x in given]
    return [x for p, leaves in pairs if p.convert is _checks.real_array for x in leaves]


def _arrays(parameter: Parameter, value: Any, dtype: Any) -> Any:
    if parameter.types:
        return _checks.real_structure(parameter.name, value, dtype)
    if parameter.convert is _checks.real_array:
        return _checks.real_array(parameter.name, value, dtype)
    return parameter.convert(parameter.name, value)


# Traced ------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """An array that a call takes: whose it is, where in it, and its event axes."""

    owner: str
    path: str
    value: Array
    rank: int

    @property
    def batch(self) -> tuple[int, ...]:
        """Its leading axes."""
        return self.value.shape[: self.value.ndim - self.rank]


def _call(
    function: Callable[..., Any], given: Sequence[tuple[Parameter, Any]], *, shares: bool
) -> Any:
    """`function` of arguments by name, over leading axes, in working precision and back."""
    parameters, names = [p for p, _ in given], [p.name for p, _ in given]
    wanted = common_dtype(_floating(given))
    arguments = [_argument(p, x, wanted) for p, x in given]
    _same_dimension(parameters, arguments)
    leaves = [x for p, value in zip(parameters, arguments, strict=True) for x in _leaves(p, value)]
    _same_batch(leaves, names)
    values, dtype = in_working_precision([x.value for x in leaves])
    treedef = jax.tree.structure(arguments)

    def core(*values: Array) -> Any:
        return function(**dict(zip(names, jax.tree.unflatten(treedef, values), strict=True)))

    ranks = [x.rank for x in leaves]
    return restore(over_leading_axes(core, values, ranks, shares=shares), dtype)


def _argument(parameter: Parameter, value: Any, dtype: Any) -> Any:
    """An argument as its annotation says."""
    if parameter.types:
        _checks.instance(parameter.name, value, *parameter.types)
        return settled(parameter.name, _arrays(parameter, value, dtype))
    array = _arrays(parameter, value, dtype)
    _checks.rank_at_least(parameter.name, array, len(parameter.axes))
    return array


def settled(name: str, tree: Any) -> Any:
    """A structure whose leaves have equal batch ranks: axes of size one in excess are dropped.

    Such leaves come of a `vmap` over some of them, or of a tree that is put together by hand.
    """
    fields = list(fields_of(tree))
    leads = [jnp.ndim(value) - rank for _, value, rank in fields]
    least = min(leads, default=0)
    if all(lead == least for lead in leads):
        return tree
    values = []
    for (_, value, _), lead in zip(fields, leads, strict=True):
        excess = lead - least
        if any(n != 1 for n in value.shape[:excess]):
            raise _checks.unequal_batch_ranks(name, tree)
        values.append(jnp.squeeze(value, tuple(range(excess))))
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def structure_argument(name: str, value: Any, *types: type, order: str = "") -> Any:
    """A structure of floating arrays in equal batch ranks, for what is not lifted."""
    _checks.instance(name, value, *types, order=order)
    return settled(name, _checks.real_structure(name, value, result_dtype(value)))


def _leaves(parameter: Parameter, value: Any) -> list[Leaf]:
    if not parameter.types:
        return [Leaf(parameter.name, parameter.name, value, len(parameter.axes))]
    return [Leaf(parameter.name, parameter.name + path, x, r) for path, x, r in fields_of(value)]


def _same_dimension(parameters: Sequence[Parameter], arguments: Sequence[Any]) -> None:
    """Event sizes never broadcast: `x` of shape (n, 1) is no vector of two dimensions."""
    sizes: dict[str, tuple[str, int]] = {}  # of each axis, from the first structure that has it
    for p, value in zip(parameters, arguments, strict=True):
        if p.types:
            whose, size = sizes.setdefault(p.axes[0], (p.name, value.dim))
            if value.dim != size:
                raise ValueError(
                    f"{p.name} must have dimension {size} like {whose}, got {value.dim}."
                )
    for p, value in zip(parameters, arguments, strict=True):
        if p.types or not p.axes:
            continue
        if p.axes[-1] in sizes:
            whose, size = sizes[p.axes[-1]]
            _checks.same_dim(p.name, value.shape[-1], value.shape, size, whose)
        if len(p.axes) == 2 and p.axes[0] in sizes:
            whose, size = sizes[p.axes[0]]
            _checks.same_rows(p.name, value.shape, size, whose)


def _same_batch(leaves: Sequence[Leaf], names: Sequence[str]) -> None:
    """Says which batch shapes do not broadcast: within an argument, or between them."""
    shapes = [
        _checks.broadcastable({x.path: x.batch for x in leaves if x.owner == name})
        for name in names
    ]
    _checks.broadcastable(dict(zip(names, shapes, strict=True)), between=True)


def over_leading_axes(
    function: Callable[..., Any],
    leaves: Sequence[Array],
    event_ranks: Sequence[int],
    *,
    shares: bool = False,
) -> Any:
    """`function(*leaves)` where leaf i has `event_ranks[i]` event axes; outputs gain the batch.

    With `shares` a leaf of a structure that is returned has those axes of the batch that it depends
    on, and axes of size one for the others. Where the mesh has explicit axes, each device maps over
    its own part of the batch.
    """
    batches = [x.shape[: x.ndim - rank] for x, rank in zip(leaves, event_ranks, strict=True)]
    batch = jnp.broadcast_shapes(*batches)
    aligned = [(1,) * (len(batch) - len(b)) + b for b in batches]
    owners = [[b[i] == size and size != 1 for b in aligned] for i, size in enumerate(batch)]
    spec = batch_spec(leaves, event_ranks)
    takers, treedef = None, None
    if shares and any(any(owns) and not all(owns) for owns in owners):
        reach, treedef = _reach(function, leaves, event_ranks)
        takers = [[any(owns[i] for i in inputs) for inputs in reach] for owns in owners]
        function = _flat(function)
    leaves = [
        jnp.squeeze(x, tuple(i for i, n in enumerate(b) if n == 1))
        for x, b in zip(varying_alike(leaves), batches, strict=True)
    ]
    lifted = functools.partial(_mapped, function, owners, takers)
    if any(spec):
        lifted = _on_each_device(lifted, spec, owners, takers)
    out = lifted(*leaves)
    return out if treedef is None else jax.tree.unflatten(treedef, out)


def _on_each_device(
    function: Callable[..., Any], spec: Sequence[Any], owners: Flags, takers: Flags | None
) -> Callable[..., Any]:
    """`function` of each device's own part of a batch whose axes are sharded like `spec`."""
    given = [
        PartitionSpec(*(axis for axis, owns in zip(spec, each, strict=True) if owns))
        for each in zip(*owners, strict=True)
    ]
    taken = PartitionSpec(*spec) if takers is None else [
        PartitionSpec(*(axis if takes else None for axis, takes in zip(spec, each, strict=True)))
        for each in zip(*takers, strict=True)
    ]  # fmt: skip
    # No check of what varies over devices: a `scan` that starts from a constant fails it.
    sharded = jax.shard_map(
        function, in_specs=tuple(given), out_specs=taken,
        axis_names=set(jax.tree.leaves(tuple(spec))), check_vma=False,
    )  # fmt: skip
    return lambda *leaves: sharded(*map(resharded, leaves, given))


def _mapped(
    function: Callable[..., Any], owners: Flags, takers: Flags | None, *leaves: Array
) -> Any:
    """`jax.vmap`, once per batch axis, over the leaves that own it."""
    for i in reversed(range(len(owners))):  # innermost axis first
        function = _over_axis(function, owners[i], None if takers is None else takers[i])
    return function(*leaves)


def _over_axis(
    function: Callable[..., Any], owns: Sequence[bool], takes: Sequence[bool] | None
) -> Callable[..., Any]:
    if not any(owns):
        return lambda *leaves: jax.tree.map(lambda x: x[None], function(*leaves))
    axes = tuple(0 if own else None for own in owns)
    if takes is None:
        return jax.vmap(function, axes)
    mapped = jax.vmap(function, axes, [0 if take else None for take in takes])
    return lambda *leaves: [
        x if take else x[None] for x, take in zip(mapped(*leaves), takes, strict=True)
    ]


def _flat(function: Callable[..., Any]) -> Callable[..., list[Array]]:
    return lambda *leaves: jax.tree.leaves(function(*leaves))


def _reach(
    function: Callable[..., Any], leaves: Sequence[Array], event_ranks: Sequence[int]
) -> tuple[list[frozenset[int]], Any]:
    """Which leaves every output depends on, and the tree of the outputs.

    An array that is part of no structure counts as depending on all: it has the whole batch.
    """
    events = [
        jax.ShapeDtypeStruct(x.shape[x.ndim - rank :], x.dtype)
        for x, rank in zip(leaves, event_ranks, strict=True)
    ]
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*events)
    inputs: dict[Any, frozenset[int]] = {x: frozenset() for x in program.jaxpr.constvars}
    inputs |= {x: frozenset([i]) for i, x in enumerate(program.jaxpr.invars)}

    def reached(variables: Sequence[Any]) -> frozenset[int]:
        known = [inputs[x] for x in variables if not isinstance(x, Literal)]
        return frozenset().union(*known)

    for equation in program.jaxpr.eqns:
        inputs |= dict.fromkeys(equation.outvars, reached(equation.invars))
    everything = frozenset(range(len(leaves)))
    parts = jax.tree.leaves(shapes, is_leaf=is_structure)
    inside = [is_structure(part) for part in parts for _ in jax.tree.leaves(part)]
    outputs = [reached([x]) for x in program.jaxpr.outvars]
    reach = [own if kept else everything for own, kept in zip(outputs, inside, strict=True)]
    return reach, jax.tree.structure(shapes)


@custom_vmap
def all_of_batch(valid: Array) -> Array:
    """Whether a predicate holds in a whole batch: by that `cond` takes one way, not both."""
    return valid


@all_of_batch.def_vmap
def _(_: int, batched: list[bool], valid: Array) -> tuple[Array, bool]:
    return all_of_batch(jnp.all(valid, axis=0) if batched[0] else valid), False
