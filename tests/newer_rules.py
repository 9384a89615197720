"""Derivatives that our own rules define: printed, for a process of `test_transformations`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import STRUCTURES
from compiling import quick_jit

import gaussjax as gj


def derivatives():
    """Gradients in reverse mode, and a Hessian that mixes both, as lists of numbers."""
    found = {}
    for kind, d in [("cholesky", 3), ("cholesky", 17), ("precision", 3), ("toeplitz", 3)]:
        cov, _ = STRUCTURES[kind](np.random.default_rng(0), d, np.float32)
        g, x = gj.Gaussian(jnp.linspace(0.0, 1.0, d), cov), jnp.linspace(-1.0, 1.0, d)

        @quick_jit
        def program(g, x):
            def loss(g, x):
                return gj.log_prob(g, x) + gj.kl_divergence(g, gj.standard(g.dim))

            return jax.grad(loss)(g, x), jax.hessian(loss, 1)(g, x), jax.jvp(loss, (g, x), (g, x))

        found[f"{kind} {d}"] = [np.ravel(a).tolist() for a in jax.tree.leaves(program(g, x))]
    matrix = jnp.eye(20) + 0.5
    change = jnp.asarray(np.random.default_rng(0).normal(size=(20, 20)), jnp.float32)
    factor, dfactor = jax.jvp(gj.linalg.cholesky, (matrix,), (change,))  # not symmetric
    found["cholesky"] = [np.ravel(a).tolist() for a in (factor, dfactor)]
    return found


if __name__ == "__main__":
    print(json.dumps(derivatives()))
