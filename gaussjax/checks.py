"""Value checks for use inside `jit`, by `jax.experimental.checkify`.

Constructors can check only concrete values; under `jit` a bad matrix gives NaN. This check says
which matrix it was:

>>> import jax
>>> from jax.experimental import checkify
>>> from gaussjax import entropy, from_variance
>>> program = lambda variance: entropy(check_gaussian(from_variance([[0.0]], variance)))
>>> error, _ = jax.jit(checkify.checkify(program))(jax.numpy.array([[1.0], [-1.0]]))
>>> print(error.get().splitlines()[0])
the Gaussian at batch index (1,) is not valid: ... (`check` failed)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from jaxtyping import Array, Bool

from gaussjax._lift import lift
from gaussjax.gaussian import Gaussian


def check_gaussian(g: Gaussian) -> Gaussian:
    """Returns g after checking that it is finite and its covariance valid. O(d) to O(d²)

    A Gaussian is NaN where its constructor met a matrix that is not positive definite, a negative
    scale, or a value that is not finite; singular laws pass. Call it in functions that you
    transform by `checkify.checkify`; the error names the first bad element of the batch.

    Raises:
        ValueError: outside `checkify`, when the values are concrete and bad.

    >>> from gaussjax import standard
    >>> check_gaussian(standard(2)).dim
    2
    """
    valid = _is_valid(g)
    first = jnp.argmin(valid.ravel()) if valid.size else jnp.zeros((), int)
    index = jnp.unravel_index(first, valid.shape) if valid.ndim else ()
    named: dict[str, Any] = {f"i{n}": i for n, i in enumerate(index)}
    where = f" at batch index ({''.join(f'{{i{n}}},' for n in range(valid.ndim))})"
    checkify.check(
        jnp.all(valid),
        f"the Gaussian{where if valid.ndim else ''} is not valid: its mean is not finite, or its "
        "covariance not finite and positive definite",
        **named,
    )
    return g


@lift
def _is_valid(g: Gaussian) -> Bool[Array, "..."]:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(g)]
    logdet = g.cov.logdet()  # −∞ where Σ is singular, NaN where it is indefinite
    return functools.reduce(jnp.logical_and, finite, g.cov.is_valid() & ~jnp.isnan(logdet))
