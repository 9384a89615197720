"""Lifts a function written for one Gaussian over leading axes, by NumPy's gufunc rules.

Batch axes broadcast and event axes never do. Arguments are checked and brought to one dtype here;
`_mapping` maps over the batch.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gaussjax import _errors
from gaussjax._dtypes import common_dtype, in_working_precision, restore, result_dtype
from gaussjax._mapping import over_leading_axes
from gaussjax._sharding import mesh_of
from gaussjax._struct import fields_of

F = TypeVar("F", bound=Callable[..., Any])


def holds_arrays(tree: Any) -> bool:
    """Whether all leaves are JAX arrays."""
    return all(isinstance(x, jax.Array) for x in jax.tree.leaves(tree))


class Parameter(NamedTuple):
    """What an argument must be: a structure of some type, or an array with event axes."""

    name: str
    types: tuple[type, ...]  # of structures; none for an array
    convert: Callable[..., Array]
    axes: tuple[str, ...]  # names of an array's event axes, or of a structure's dimension
    optional: bool  # None leaves it out

    def is_ready(self, value: Any) -> bool:
        """Whether `jit` takes it as it is; everything else is checked during tracing."""
        if value is None:
            return self.optional
        return isinstance(value, self.types or jax.Array) and holds_arrays(value)

    def arrays(self, value: Any, dtype: Any) -> Any:
        """As an array, or a structure of arrays, of this dtype if it has none of its own."""
        if value is None and self.optional:
            return None
        if self.types:
            return _errors.real_structure(self.name, value, dtype)
        if self.convert is _errors.real_array:
            return _errors.real_array(self.name, value, dtype)
        return self.convert(self.name, value)


def lift(function: F) -> F:
    """Decorator: the annotations of the arguments say which axes are event axes.

    Each argument is a structure, or an array whose last axes are named in its annotation. The
    dimension of a structure is called `d`, or `m` in `Annotated[Gaussian, "m"]`; an axis of that
    name must have its size. Keyword-only arguments are static, unless they are arrays.

    If it returns a structure, parts that do not depend on the batch stay shared.
    """
    # Only structures share: an array has the whole batch.
    returns_structure = not hasattr(function.__annotations__.get("return"), "array_type")
    return _lifted(function, shares=returns_structure)


def lift_as_whole(function: F) -> F:
    """As `lift`, for a function that computes all parts of its result together.

    Which parts depend on the batch would depend on the kernels, so all of them get the batch.
    """
    return _lifted(function, shares=False)


def lift_unchecked(function: F) -> F:
    """As `lift`, for a function that gives NaN by itself if Σ is invalid, or does not depend on Σ.

    Checking the pivots would cost as much as a small density.
    """
    return _lifted(function, shares=False, checks_values=False)


def _lifted(function: F, *, shares: bool, checks_values: bool = True) -> F:
    signature = inspect.signature(function)
    lifted_ones = [p for p in signature.parameters.values() if _is_lifted(p)]
    parameters = tuple(map(_parameter, lifted_ones))
    names = [p.name for p in parameters]
    static = {n: p for n, p in signature.parameters.items() if n not in names}
    needed = {n for n, p in static.items() if p.default is p.empty}
    has_named_arrays = any(p.kind is p.KEYWORD_ONLY for p in lifted_ones)
    order = _order(signature)

    @functools.partial(compiled_once, static="options")
    def compiled(values: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
        given = [(p, x) for p, x in zip(parameters, values, strict=True) if x is not None]
        core = functools.partial(function, **dict(options))
        return _call(core, given, shares=shares, checks_values=checks_values)

    @functools.wraps(function)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        values, options = args, tuple(sorted(kwargs.items()))
        is_plain = len(args) == len(names) and needed <= kwargs.keys() <= static.keys()
        if has_named_arrays or not is_plain:
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise _errors.wrong_arguments(function.__name__, order, error) from error
            values = tuple(arguments.get(name) for name in names)
            options = tuple(sorted((n, x) for n, x in arguments.items() if n not in names))
        if not all(p.is_ready(x) for p, x in zip(parameters, values, strict=True)):
            values = _ready(parameters, values, order)
        return compiled(values, options)

    return cast(F, lifted)


def compiled_once(function: F, *, static: str | tuple[str, ...] = ()) -> F:
    """An eager call runs one compiled program; the next like it reuses that program without checks.

    Inlined, so that a surrounding program sees the operations themselves.
    """

    @functools.wraps(function)
    def in_mesh(*args: Any, **kwargs: Any) -> Any:
        with mesh_of((args, kwargs)):
            return function(*args, **kwargs)

    return cast(F, jax.jit(in_mesh, static_argnames=static, inline=True))


def _is_lifted(parameter: inspect.Parameter) -> bool:
    is_array = any(hasattr(a, "array_type") for a in _alternatives(parameter.annotation))
    return is_array or parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def _alternatives(annotation: Any) -> list[Any]:
    """The types of `A | B | None`."""
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return [t for t in types if t is not NoneType]


def _parameter(parameter: inspect.Parameter) -> Parameter:
    name, optional = parameter.name, parameter.default is None
    first, *others = _alternatives(parameter.annotation)
    if hasattr(first, "array_type"):
        converters = {Bool: _errors.bool_array, Int: _errors.index_array}
        axes = tuple(axis for axis in first.dim_str.split() if axis != "...")
        convert = converters.get(first.dtype, _errors.real_array)
        return Parameter(name, (), convert, axes, optional)
    types = (getattr(first, "__origin__", first), *others)
    axes = tuple(getattr(first, "__metadata__", ("d",)))
    return Parameter(name, types, _errors.real_array, axes, optional)


def _order(signature: inspect.Signature) -> str:
    """The arguments as written in a call: "g, x, *, mask"."""
    bare = [p.replace(annotation=p.empty, default=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))[1:-1]


def _ready(parameters: Sequence[Parameter], values: Sequence[Any], order: str) -> tuple[Any, ...]:
    """Arguments as arrays, and structures of arrays, in the dtype of those that have one."""
    for p, x in zip(parameters, values, strict=True):
        if p.types:
            _errors.instance(p.name, x, *p.types, order=order)
    dtype = common_dtype(_floating(zip(parameters, values, strict=True)))
    return tuple(p.arrays(x, dtype) for p, x in zip(parameters, values, strict=True))


def _floating(given: Any) -> list[Any]:
    """The arrays that decide the dtype of a call."""
    pairs = [(p, [x] if not p.types else jax.tree.leaves(x)) for p, x in given]
    return [x for p, leaves in pairs if p.convert is _errors.real_array for x in leaves]


# Traced ------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """An array in an argument: its argument, its path in it, and its event axes."""

    owner: str
    path: str
    value: Array
    rank: int

    @property
    def batch(self) -> tuple[int, ...]:
        """Its leading axes."""
        return self.value.shape[: self.value.ndim - self.rank]


def _call(
    function: Callable[..., Any],
    given: Sequence[tuple[Parameter, Any]],
    *,
    shares: bool,
    checks_values: bool,
) -> Any:
    """`function` of named arguments, over leading axes, in the working dtype and back."""
    parameters, names = [p for p, _ in given], [p.name for p, _ in given]
    wanted = common_dtype(_floating(given))
    arguments = [_argument(p, x, wanted) for p, x in given]
    _same_dimension(parameters, arguments)
    leaves = [x for p, value in zip(parameters, arguments, strict=True) for x in _leaves(p, value)]
    _same_batch(leaves, names)
    values, dtype = in_working_precision([x.value for x in leaves])
    treedef = jax.tree.structure(arguments)

    def core(*values: Array) -> Any:
        arguments = jax.tree.unflatten(treedef, values)
        result = function(**dict(zip(names, arguments, strict=True)))
        return _nan_unless_valid(arguments, result, shares=shares) if checks_values else result

    ranks = [x.rank for x in leaves]
    return restore(over_leading_axes(core, values, ranks, shares=shares), dtype)


def _nan_unless_valid(arguments: Sequence[Any], result: Any, *, shares: bool) -> Any:
    """NaN for everything that depends on an invalid covariance."""
    covs = [getattr(x, "cov", x) for x in arguments]
    valid = [cov.is_valid() for cov in covs if hasattr(cov, "is_valid")]

    def checked(path: Any, leaf: Array) -> Array:
        is_mean = shares and jax.tree_util.keystr(path).endswith(".mean")
        if is_mean or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        for each in valid:
            leaf = jnp.where(each, leaf, jnp.nan)
        return leaf

    return jax.tree_util.tree_map_with_path(checked, result)


def _argument(parameter: Parameter, value: Any, dtype: Any) -> Any:
    """An argument as its annotation requires."""
    if parameter.types:
        _errors.instance(parameter.name, value, *parameter.types)
        return settled(parameter.name, parameter.arrays(value, dtype))
    array = parameter.arrays(value, dtype)
    _errors.rank_at_least(parameter.name, array, len(parameter.axes))
    return array


def settled(name: str, tree: Any) -> Any:
    """A structure whose leaves have equal batch ranks: extra axes of size one are dropped.

    Such leaves come from a `vmap` over some of them, or from a tree assembled by hand.
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
            raise _errors.unequal_batch_ranks(name, tree)
        values.append(jnp.squeeze(value, tuple(range(excess))))
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def structure_argument(name: str, value: Any, *types: type, order: str = "") -> Any:
    """A structure of floating arrays with equal batch ranks, for functions that are not lifted."""
    _errors.instance(name, value, *types, order=order)
    return settled(name, _errors.real_structure(name, value, result_dtype(value)))


def _leaves(parameter: Parameter, value: Any) -> list[Leaf]:
    if not parameter.types:
        return [Leaf(parameter.name, parameter.name, value, len(parameter.axes))]
    return [Leaf(parameter.name, parameter.name + path, x, r) for path, x, r in fields_of(value)]


def _same_dimension(parameters: Sequence[Parameter], arguments: Sequence[Any]) -> None:
    """Event sizes never broadcast: `x` of shape (n, 1) is not a batch of 2-vectors."""
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
            _errors.same_dim(p.name, value.shape[-1], value.shape, size, whose)
        if len(p.axes) == 2 and p.axes[0] in sizes:
            whose, size = sizes[p.axes[0]]
            _errors.same_rows(p.name, value.shape, size, whose)


def _same_batch(leaves: Sequence[Leaf], names: Sequence[str]) -> None:
    """Says which batch shapes do not broadcast: within an argument, or between them."""
    shapes = [
        _errors.broadcastable({x.path: x.batch for x in leaves if x.owner == name})
        for name in names
    ]
    _errors.broadcastable(dict(zip(names, shapes, strict=True)), between=True)
