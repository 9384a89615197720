"""BlackJAX: a covariance as the inverse mass matrix of Hamiltonian Monte Carlo.

A sampler mixes best where its inverse mass matrix is the covariance of the target, and any
structure can be it, without a `d × d` array:

>>> import gaussjax as gj
>>> g = gj.from_banded_precision(jnp.zeros(3), [[2.0, 2.0, 1.0], [-1.0, -1.0, 0.0]])
>>> metric = to_metric(g)
>>> print(f"{metric.kinetic_energy(jnp.array([0.0, 0.0, 1.0])):.3f}")
1.500
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from gaussjax import gaussian as gs
from gaussjax._errors import batch_shape, real_array
from gaussjax._lift import lift, structure_argument
from gaussjax.adapters._extras import missing
from gaussjax.constructors import from_covariance, from_variance
from gaussjax.covariances import Covariance, Root
from gaussjax.gaussian import Gaussian
from gaussjax.linalg.products import dot
from gaussjax.linalg.semidefinite import principal_axes

try:
    from blackjax.mcmc.metrics import LowRankInverseMassMatrix, Metric
except ImportError as _error:
    raise missing("blackjax", _error) from _error

InverseMassMatrix = Float[Array, "d d"] | Float[Array, " d"] | LowRankInverseMassMatrix


def to_metric(g: Gaussian | Covariance) -> Metric:
    """A metric whose inverse mass matrix is Σ, of any structure; the mean is not used. O(1)

    Pass it as `inverse_mass_matrix` to `blackjax.nuts`, `hmc` and other samplers that take a
    metric. Momenta are C⁻ᵀ ε, kinetic energies ½‖Cᵀp‖², which cannot be negative, and velocities Σ
    p, each at the cost of the structure. A position is any pytree of d numbers.

    Raises:
        TypeError: `g` is neither a Gaussian nor a covariance.
        ValueError: it is a batch: a chain has one metric, and `vmap` maps over chains.

    >>> import blackjax
    >>> import gaussjax as gj
    >>> target = gj.from_scale([0.0, 0.0], [1.0, 100.0])
    >>> nuts = blackjax.nuts(lambda x: gj.log_prob(target, x), 0.5, to_metric(target))
    >>> state, info = nuts.step(jax.random.key(0), nuts.init(jnp.zeros(2)))
    >>> bool(info.is_divergent)
    False
    """
    cov = _one_covariance(g)

    def sample_momentum(key: Array, position: Any) -> Any:
        vector, unravel = ravel_pytree(position)
        noise = jax.random.normal(key, vector.shape, vector.dtype)
        return unravel(_whiten_transpose(cov, noise))

    def kinetic_energy(momentum: Any, position: Any = None) -> Float[Array, ""]:
        return 0.5 * jnp.sum(jnp.square(_color_transpose(cov, ravel_pytree(momentum)[0])))

    def check_turning(
        momentum_left: Any, momentum_right: Any, momentum_sum: Any, *_: Any, **__: Any
    ) -> Bool[Array, ""]:
        ends = [ravel_pytree(m)[0] for m in (momentum_left, momentum_right)]
        inside = ravel_pytree(momentum_sum)[0] - 0.5 * (ends[0] + ends[1])
        velocity = _times(cov, inside)  # Σ is symmetric: one product for both ends
        return (jnp.sum(ends[0] * velocity) <= 0) | (jnp.sum(ends[1] * velocity) <= 0)

    def scale(position: Any, element: Any, *, inv: bool, trans: bool) -> Any:
        vector, unravel = ravel_pytree(element)
        towards = (_color, _color_transpose) if inv else (_whiten_transpose, _whiten)
        return unravel(towards[trans](cov, vector))

    functions: Any = sample_momentum, kinetic_energy, check_turning, scale
    return Metric(*functions)


def to_inverse_mass_matrix(g: Gaussian | Covariance) -> InverseMassMatrix:
    """Σ as arrays that BlackJAX takes for an inverse mass matrix, for what stores one.

    Variances `(d,)` of a diagonal; of a low rank plus diagonal BlackJAX's
    `LowRankInverseMassMatrix`, after a thin singular value decomposition in O(dr²); else `(d, d)`.

    Raises:
        TypeError: `g` is neither a Gaussian nor a covariance.
        ValueError: it is a batch.

    >>> import gaussjax as gj
    >>> to_inverse_mass_matrix(gj.from_scale([0.0, 0.0], [1.0, 3.0]))
    Array([1., 9.], dtype=float32)
    """
    cov = _one_covariance(g)
    root, thin = cov.covariance_root(), cov.thin_parts()
    if root is not None and root.ndim == 1:
        return gs.variance(_centred(cov))
    if thin is None:
        return gs.covariance(_centred(cov))
    scale, factor = thin
    vectors, values = principal_axes(factor / scale[:, None])
    return LowRankInverseMassMatrix(scale, vectors, 1 + jnp.square(values))


def from_inverse_mass_matrix(matrix: Any) -> Covariance:
    """The covariance that an inverse mass matrix stands for, as window adaptation returns it.

    `Diagonal` of variances, `Cholesky` of a matrix, and a `Root`, `(d, d)`, of BlackJAX's low-rank
    form, whose eigenvalues may be below one. `vmap` it over the matrices of many chains.

    Raises:
        TypeError: it is not an array, such as a metric that is a function.
        ValueError: it has neither one axis nor two equal ones, or is not positive definite.

    >>> from_inverse_mass_matrix(jnp.array([1.0, 9.0]))
    Diagonal(scale=Array([1., 3.], dtype=float32))
    """
    if isinstance(matrix, LowRankInverseMassMatrix):
        sigma, vectors, values = matrix
        _shaped("sigma", sigma, "(d,)", 1)
        inner = dot(vectors * (jnp.sqrt(values) - 1), vectors.T)
        return Root(sigma[:, None] * (jnp.eye(len(sigma), dtype=sigma.dtype) + inner))
    array = _shaped("matrix", real_array("matrix", matrix), "(d,) or (d, d)", 1, 2)
    make = from_variance if array.ndim == 1 else from_covariance
    return make(jnp.zeros(array.shape[-1], array.dtype), array).cov


def _shaped(name: str, array: Array, expected: str, *ranks: int) -> Array:
    if array.ndim not in ranks:
        raise ValueError(
            f"{name} must have shape {expected}, got {array.shape}: vmap goes over many chains."
        )
    return array


def _one_covariance(g: Any) -> Covariance:
    whole = structure_argument("g", g, Gaussian, Covariance)
    cov = whole.cov if isinstance(whole, Gaussian) else whole
    shape = batch_shape("g", whole)
    if shape:
        raise ValueError(f"g must be one Gaussian or covariance, got batch shape {shape}.")
    return cov


def _centred(cov: Covariance) -> Gaussian:
    return Gaussian(jnp.zeros(cov.dim, jnp.result_type(*jax.tree.leaves(cov))), cov)


@lift
def _color(cov: Covariance, vector: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return cov.color(vector)


@lift
def _color_transpose(cov: Covariance, vector: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return cov.color_transpose(vector)


@lift
def _whiten(cov: Covariance, vector: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return cov.whiten(vector)


@lift
def _whiten_transpose(cov: Covariance, vector: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return jax.vjp(cov.whiten, jnp.zeros_like(vector))[1](vector)[0]


@lift
def _times(cov: Covariance, vector: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return cov.times(vector)
