"""What flax has to know of Gaussians and structures, once this module is imported.

`flax.serialization` takes them, and so does an attribute of an NNX module, as data.
"""

import dataclasses
from typing import Any

from flax import nnx, serialization

from gaussjax import covariances, estimation
from gaussjax._struct import replaced
from gaussjax.gaussian import Gaussian


def register(cls: type) -> type:
    """Lets flax take a structure of your own, as those of gaussjax. A decorator.

    `flax.serialization` then writes and reads it, and a module of NNX may have it for an attribute.

    Raises:
        ValueError: it is registered already.
    """
    return _registered(cls)


def _registered(cls: type, *, override: bool = False) -> type:
    serialization.register_serialization_state(cls, _to_state_dict, _from_state_dict, override)
    nnx.register_data_type(cls)
    return cls


def _to_state_dict(tree: Any) -> dict[str, Any]:
    return {name: serialization.to_state_dict(getattr(tree, name)) for name in _names(tree)}


def _from_state_dict(target: Any, state: dict[str, Any]) -> Any:
    if set(state) != set(_names(target)):
        raise ValueError(
            f"The state of a {type(target).__name__} must have the fields "
            f"{', '.join(_names(target))}, got {', '.join(sorted(state))}."
        )
    values = {
        name: serialization.from_state_dict(getattr(target, name), state[name], name=name)
        for name in _names(target)
    }
    return replaced(target, **values)


def _names(tree: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(tree) if not f.metadata.get("static")]


_LAWS = Gaussian, estimation.Moments, estimation.NormalInverseWishart, estimation.StudentT
for _class in (*_LAWS, *(getattr(covariances, name) for name in covariances.__all__)):
    if isinstance(_class, type) and dataclasses.is_dataclass(_class):
        _registered(_class, override=True)  # where this module is loaded again
