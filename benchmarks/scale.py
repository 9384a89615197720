"""One dense Gaussian over 1 … 8 devices: what each holds, sends and computes, when compiled.

Nothing is run, so no size is too large and no clock is read. Bytes held are the compiler's own
account; bytes sent are the results of all collectives in the text times the trips of their loops.
Devices are simulated on the CPU.
"""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gaussjax as gj
from benchmarks import harness
from gaussjax.linalg import sharded

COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("
)
SHAPE = re.compile(r"(f32|s32|pred)\[([\d,]*)\]")
LOOP = re.compile(r'while\(.*body=%?([\w.\-]+).*?"known_trip_count":\{"n":"(\d+)"\}')
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")


def main(
    dims: tuple[int, ...] = (1024, 2048, 4096), devices: tuple[int, ...] = (1, 2, 4, 8)
) -> None:
    """Compiles and writes `benchmarks/results/scale.md` and `.json`.

    Args:
        dims: Sizes of the Gaussian.
        devices: Numbers of devices.
    """
    cells = [
        {"function": name, "dim": dim, "devices": n, **measure(function, dim, n)}
        for name, function in FUNCTIONS.items()
        for dim in dims
        for n in devices
    ]
    harness.write("scale", markdown(cells), {"cells": cells})


def gaussian(mean: jax.Array, lower: jax.Array) -> gj.Gaussian:
    return gj.Gaussian(mean, gj.ShardedCholesky(lower, "rows"))


def log_prob(m: jax.Array, a: jax.Array, x: jax.Array) -> jax.Array:
    return gj.log_prob(gaussian(m, a), x)


def kl(m: jax.Array, a: jax.Array, n: jax.Array, b: jax.Array) -> jax.Array:
    return gj.kl_divergence(gaussian(m, a), gaussian(n, b))


def log_prob_of_covariance(m: jax.Array, a: jax.Array, x: jax.Array) -> jax.Array:
    return gj.log_prob(gj.from_sharded_covariance(m, a, axis="rows"), x)


# Of a mean, a matrix, another mean and another matrix.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cholesky": lambda m, a, n, b: sharded.cholesky(a, axis="rows"),
    "log_prob": lambda m, a, n, b: log_prob(m, a, n),
    "sample": lambda m, a, n, b: gj.sample(jax.random.key(0), gaussian(m, a)),
    "kl_divergence": kl,
    "kl_divergence to N(0, I)": lambda m, a, n, b: gj.kl_divergence(
        gaussian(m, a), gj.standard(len(m))
    ),
    "gradient of log_prob": lambda m, a, n, b: jax.grad(log_prob, (0, 1))(m, a, n),
    "gradient of kl_divergence": jax.grad(kl, (0, 1, 2, 3)),
    "gradient of log_prob in Σ": lambda m, a, n, b: jax.grad(log_prob_of_covariance, 1)(m, a, n),
}


def measure(function: Callable[..., Any], dim: int, devices: int) -> dict[str, float]:
    """Bytes held and sent by one device."""
    mesh = jax.make_mesh((devices,), ("rows",), (AxisType.Auto,), devices=jax.devices()[:devices])
    program = compile_for(mesh, function, dim)
    memory = program.memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        **sent(program.as_text()),
    }


def compile_for(mesh: Mesh, function: Callable[..., Any], dim: int) -> Any:
    with jax.set_mesh(mesh):
        rows, whole = (NamedSharding(mesh, PartitionSpec(x)) for x in ("rows", None))
        vector = jax.ShapeDtypeStruct((dim,), jnp.float32, sharding=whole)
        matrix = jax.ShapeDtypeStruct((dim, dim), jnp.float32, sharding=rows)
        return jax.jit(function).lower(vector, matrix, vector, matrix).compile()


def sent(text: str) -> dict[str, int]:
    """Bytes in the results of collectives, as often as their loops run, and how many."""
    trips = trip_counts(text)
    count = total = largest = 0
    where = ""
    for line in text.splitlines():
        if heading := COMPUTATION.match(line):
            where = heading[1]
        elif found := COLLECTIVE.search(line):
            size = sum(
                (1 if kind == "pred" else 4) * math.prod(int(n) for n in shape.split(",") if n)
                for kind, shape in SHAPE.findall(found[1])
            )
            count, largest = count + 1, max(largest, size)
            total += size * trips.get(where, 1)
    return {"collectives": count, "sent": total, "largest": largest}


def trip_counts(text: str) -> dict[str, int]:
    """How often the body of each loop runs, as the compiler knows it, and the loops around it."""
    loops: dict[str, tuple[str, int]] = {}
    where = ""
    for line in text.splitlines():
        if heading := COMPUTATION.match(line):
            where = heading[1]
        elif found := LOOP.search(line):
            loops[found[1]] = where, int(found[2])

    def runs(body: str) -> int:
        around, trips = loops.get(body, ("", 1))
        return trips * runs(around) if around else 1

    return {body: runs(body) for body in loops}


def markdown(cells: list[dict[str, Any]]) -> str:
    """A table of bytes held, and one of bytes sent."""
    devices = sorted({cell["devices"] for cell in cells})
    text = "One device's share: d × d float32 numbers over all devices. Compiled, not run.\n"
    header = ["function", "d", *(f"{n} devices" if n > 1 else "1 device" for n in devices)]
    for title, show in (
        ("MB that a device holds at once: arguments, results and temporaries", held),
        ("MB that a device receives, and collectives in the program", received),
    ):
        rows = []
        for name, dim in dict.fromkeys((c["function"], c["dim"]) for c in cells):
            row = {c["devices"]: c for c in cells if (c["function"], c["dim"]) == (name, dim)}
            rows.append([name, f"{dim:,}", *(show(row[n]) for n in devices)])
        text += f"\n### {title}\n\n{harness.table(header, rows)}"
    return text


def held(cell: dict[str, Any]) -> str:
    """In MB, and in shares of the matrix."""
    size = cell["arguments"] + cell["results"] + cell["temporaries"]
    share = 4 * cell["dim"] ** 2 / cell["devices"]
    return f"{size / 1e6:.1f} ({size / share:.1f}×)"


def received(cell: dict[str, Any]) -> str:
    return f"{cell['sent'] / 1e6:.3g} in {cell['collectives']}"


if __name__ == "__main__":
    tyro.cli(main)
