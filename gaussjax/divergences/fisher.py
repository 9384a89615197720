"""The Fisher information of a Gaussian in the parameters that its structure stores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gaussjax import _errors
from gaussjax._lift import lift_unchecked
from gaussjax.covariances import pairs
from gaussjax.gaussian import Gaussian


@lift_unchecked
def fisher_vector_product(g: Gaussian, tangent: Gaussian) -> Gaussian:
    """F t for the Fisher information F = E[∇log g ∇log gᵀ] of the mean and the stored factor.

    `tangent` holds a change of every array of g, in a Gaussian of the same structure, and so does
    the result; δᵀFδ is twice KL(g‖g + δ) to second order. F is the Hessian of that divergence: a
    product costs what a gradient of `kl_divergence` does, for every structure. NaN where g is
    singular.

    Raises:
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Amari, Neural Computation 10 (1998); Pascanu & Bengio, arXiv:1301.3584, §3.

    >>> from gaussjax import from_scale
    >>> fisher_vector_product(from_scale([0.0], [2.0]), from_scale([1.0], [1.0]))
    Gaussian(mean=Array([0.25], dtype=float32), cov=Diagonal(scale=Array([0.5], dtype=float32)))
    """
    _like(g, "tangent", tangent)

    def divergence(q: Gaussian) -> Float[Array, ""]:
        return 0.5 * pairs.shifted_divergence(g.cov, q.cov, g.mean - q.mean)

    product = jax.jvp(jax.grad(divergence), (g,), (tangent,))[1]
    valid = g.cov.is_valid() & jnp.isfinite(g.cov.logdet())
    return jax.tree.map(lambda x: jnp.where(valid, x, jnp.nan), product)


@lift_unchecked
def natural_gradient(g: Gaussian, gradient: Gaussian) -> Gaussian:
    """F⁻¹c, the inverse of `fisher_vector_product`: the steepest change in the metric of the KL.

    `gradient` c holds the derivative of a loss in every array of g, as `jax.grad` returns it; for
    the mean it gives Σc, for a factor L L Φ(Lᵀc) with half a diagonal in Φ. O(d³) for dense
    factors, O(d) for diagonals, O(db³) for a band, O(d r⁴) for low rank. A root, a low-rank factor
    and a Kronecker product have more parameters than their law, so many changes are equivalent:
    this returns one of them, and NaN for low rank where Σ does not determine the scales. Toeplitz,
    scaled and other sums have no closed form: solve F s = c by conjugate gradients with
    `fisher_vector_product`.

    Raises:
        TypeError: the structure has no closed form, or low rank has more numbers than Σ.
        ValueError: dimensions differ or batch shapes do not broadcast.

    Source: Amari, Neural Computation 10 (1998), theorem 1.

    >>> from gaussjax import from_scale
    >>> natural_gradient(from_scale([0.0], [2.0]), from_scale([0.25], [0.5]))
    Gaussian(mean=Array([1.], dtype=float32), cov=Diagonal(scale=Array([1.], dtype=float32)))
    """
    _like(g, "gradient", gradient)
    cov = g.cov.fisher_solve(gradient.cov)
    if cov is None:
        raise _errors.no_natural_gradient(g.cov)
    step = Gaussian(g.cov.times(gradient.mean), cov)
    valid = g.cov.is_valid() & jnp.isfinite(g.cov.logdet())
    return jax.tree.map(lambda x: jnp.where(valid, x, jnp.nan), step)


def _like(g: Gaussian, name: str, other: Gaussian) -> None:
    """Refuses what is no change of the arrays of g."""
    if jax.tree.structure(g) != jax.tree.structure(other):
        raise _errors.unlike_structures(name, other.cov, "g", g.cov)
    shapes, others = ([x.shape for x in jax.tree.leaves(y)] for y in (g, other))
    if shapes != others:
        raise ValueError(f"{name} must have arrays of the shapes {shapes} of g, got {others}.")
