"""Batches over 1 and 8 devices: bytes and operations per Gaussian, from compiled programs.

As in `benchmarks.scale` nothing is run. The compiler counts the operations of unrolled code, but
the body of a loop once and a call of LAPACK or of a native kernel not at all, so programs with
those report none. For values computed where they are used, it counts the whole array for every
part.
"""

from collections.abc import Callable
from typing import Any

import tyro

from benchmarks.scale import sent  # imitates eight devices, so before JAX is used

# isort: split
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gaussjax as gj
from benchmarks import harness


def main(dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64), numbers: int = 1 << 22) -> None:
    """Compiles and writes `benchmarks/results/batched_scale.md` and `.json`.

    Args:
        dims: Sizes of a Gaussian.
        numbers: Entries of all factors of a batch, B d².
    """
    cells = [
        {"function": name, "dim": d, "devices": n, **measure(function, numbers // d**2, d, n)}
        for name, function in FUNCTIONS.items()
        for d in dims
        for n in (1, 8)
    ]
    harness.write("batched_scale", markdown(cells), {"numbers": numbers, "cells": cells})


def kl(m: jax.Array, a: jax.Array, n: jax.Array, b: jax.Array) -> jax.Array:
    return gj.kl_divergence(gj.Gaussian(m, gj.Cholesky(a)), gj.Gaussian(n, gj.Cholesky(b)))


def log_prob(m: jax.Array, a: jax.Array, x: jax.Array) -> jax.Array:
    return gj.log_prob(gj.Gaussian(m, gj.Cholesky(a)), x)


# Of a mean, a triangle, another mean and another triangle.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log_prob": lambda m, a, n, b: log_prob(m, a, n),
    "its gradient": lambda m, a, n, b: jax.grad(lambda *x: log_prob(*x).sum(), (0, 1))(m, a, n),
    "sample": lambda m, a, n, b: gj.sample(jax.random.key(0), gj.Gaussian(m, gj.Cholesky(a))),
    "kl_divergence": kl,
    "its gradient in both": lambda *x: jax.grad(lambda *y: kl(*y).sum(), (0, 1, 2, 3))(*x),
    "linalg.cholesky": lambda m, a, n, b: gj.linalg.cholesky(a),
}


def measure(function: Callable[..., Any], batch: int, dim: int, devices: int) -> dict[str, float]:
    """Bytes and operations per Gaussian, and all that a device receives."""
    mesh = jax.make_mesh((devices,), ("batch",), (AxisType.Auto,), devices=jax.devices()[:devices])
    with jax.set_mesh(mesh):
        over = NamedSharding(mesh, PartitionSpec("batch"))
        vector = jax.ShapeDtypeStruct((batch, dim), jnp.float32, sharding=over)
        matrix = jax.ShapeDtypeStruct((batch, dim, dim), jnp.float32, sharding=over)
        program = jax.jit(function).lower(vector, matrix, vector, matrix).compile()
    text = program.as_text()
    uncounted = ("while(", "lapack", 'custom_call_target="gaussjax.')
    counted = not any(word in text for word in uncounted)
    memory, share = program.memory_analysis(), batch / devices
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {
        "arguments and results": used / share,
        "temporaries": memory.temp_size_in_bytes / share,
        "operations": program.cost_analysis()["flops"] / share if counted else 0.0,
        "sent": sent(text)["sent"],
    }


def markdown(cells: list[dict[str, Any]]) -> str:
    """One row for each function and size."""
    rows = []
    for name, dim in dict.fromkeys((c["function"], c["dim"]) for c in cells):
        one, eight = (c for c in cells if (c["function"], c["dim"]) == (name, dim))
        rows.append(
            [
                name,
                str(dim),
                f"{one['arguments and results']:,.0f}",
                f"{one['temporaries']:,.0f}",
                f"{one['operations']:,.0f}" if one["operations"] else "–",
                f"{eight['arguments and results'] + eight['temporaries']:,.0f}",
                f"{eight['sent']:,.0f}",
            ]
        )
    header = ["function", "d", "read and written", "temporary", "operations"]
    header += ["all bytes, 8 devices", "sent in all"]
    text = (
        "Bytes and operations of one Gaussian of a sharded batch; float32. Compiled, not run.\n\n"
    )
    return text + harness.table(header, rows)


if __name__ == "__main__":
    tyro.cli(main)
