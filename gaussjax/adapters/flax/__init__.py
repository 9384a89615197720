"""flax: layers that end in a Gaussian, and `flax.serialization` of Gaussians.

`gaussjax.adapters.flax.nnx.GaussianHead` and `gaussjax.adapters.flax.linen.GaussianHead` are such
layers. Once this package is imported `to_bytes`, `from_bytes`, `to_state_dict` and
`from_state_dict` take a Gaussian anywhere in a tree: parameters, a `TrainState`, the state of an
optimiser; and `Moments` and `StudentT`, too. Static fields come from the target. As flax wants a
dictionary there, a `TrainState` takes `params={"g": g}`, not a bare Gaussian. A module of NNX takes
a Gaussian for an attribute, such as a prior, as data that training leaves as it is.

>>> import gaussjax as gj
>>> from flax.serialization import from_bytes, to_bytes
>>> g = gj.from_scale([1.0, 2.0], [3.0, 4.0])
>>> from_bytes(gj.from_scale([0.0, 0.0], [1.0, 1.0]), to_bytes(g)).cov
Diagonal(scale=array([3., 4.], dtype=float32))
"""

from gaussjax.adapters._extras import missing

try:
    import flax as _  # noqa: F401  (whether it is there)
except ImportError as _error:
    raise missing("flax", _error) from _error

from gaussjax.adapters.flax import linen, nnx
from gaussjax.adapters.flax.serialization import register

__all__ = ["linen", "nnx", "register"]
