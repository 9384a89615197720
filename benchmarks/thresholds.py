"""Both sides of the sizes at which another kernel takes over: `gaussjax/linalg/_kernels/limits.py`.

Each side runs in a process of its own, whatever the limits say. Reported are milliseconds per call
and CPU seconds to compile, for one matrix, a few, and a batch of `numbers` entries.

| limit | its two sides |
|---|---|
| `TINY`, `WRITTEN`, `DISTANCE`, `PRODUCT` | written, native |
| `NATIVE_ALONE`, `NATIVE`, `NATIVE_BATCH` | native, one by one |
| `COLUMNS` | native, one by one: `moments`, mean and scatter of all rows |
| `SHARED` | native, one by one: `whiten by one matrix` |
| `VECTOR`, `SHIFTED`, `COMPARED_AGAIN` | native, by entries |
| `TILE` | in tiles, written |
| `WRITTEN_NUMBERS` | written, native, on a GPU |
| `kFew` of `kernels.h` | native: B = 7, where each matrix goes by itself, and B = 8 |
| `kLarge` of `kernels.h` | native: d = 256 and d = 257, the same |

    python -m benchmarks.thresholds
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import tyro

from benchmarks import harness

EVERY = 1 << 30
NOTHING_WRITTEN = {
    "TINY": 0, "WRITTEN": 0, "WRITTEN_NUMBERS": 0, "DISTANCE": 0, "PRODUCT": 0, "VECTOR": 0,
    "SHIFTED": 0, "COMPARED_AGAIN": 0, "COLUMNS": 0,
}  # fmt: skip
NATIVE = {
    **NOTHING_WRITTEN, "NATIVE": EVERY, "NATIVE_ALONE": EVERY, "NATIVE_BATCH": 1, "SHARED": EVERY,
    "COLUMNS": EVERY,
}  # fmt: skip
WRITTEN = dict.fromkeys(NOTHING_WRITTEN, EVERY)
BY_ENTRIES = {"VECTOR": EVERY, "SHIFTED": EVERY, "COMPARED_AGAIN": EVERY}
SIDES: dict[str, dict[str, int]] = {
    "written": WRITTEN | {"TILE": EVERY},
    "in tiles": WRITTEN,
    "native": NATIVE,
    "by entries": NATIVE | BY_ENTRIES,
    "one by one": NOTHING_WRITTEN,
}
WITH_KERNELS = ("native", "by entries")
LIMITS = "gaussjax.linalg._kernels.limits"
# Beyond, compiling takes minutes.
LARGEST = {"written": 16, "in tiles": 16, "by entries": 64}
CALLS = 7


def main(
    dims: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 32, 64, 128, 256, 257, 512),
    numbers: int = 1 << 20,
    child: str = "",
) -> None:
    """Measures and writes `benchmarks/results/thresholds.md` and `.json`.

    Args:
        dims: Sizes of the matrices.
        numbers: Entries of a whole batch, B d².
        child: The side to measure in this process (the parent starts itself with this).
    """
    if child:
        print(json.dumps(measured(child, dims, numbers)))
        return
    found = {side: ask(side, dims, numbers) for side in SIDES}
    rows = []
    for key in found["native"]:
        cells = [found[side].get(key) for side in SIDES]
        times = [f"{1e3 * c[0]:.3g}" if c else "–" for c in cells]
        compiles = [f"{c[1]:.2f}" if c else "–" for c in cells]
        rows.append([*key.split("/"), *times, *compiles])
    header = ["", "d", "B", *(f"{x}, ms" for x in SIDES), *(f"{x}, compile s" for x in SIDES)]
    harness.write("thresholds", harness.table(header, rows), {"numbers": numbers, "cells": found})


def ask(side: str, dims: tuple[int, ...], numbers: int) -> dict[str, list[float]]:
    """What a process of its own measures."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env["GAUSSJAX_NATIVE"] = "1" if side in WITH_KERNELS else "0"
    sizes = [str(d) for d in dims]
    command = [sys.executable, "-m", "benchmarks.thresholds", "--child", side, "--dims", *sizes]
    run = subprocess.run(
        [*command, "--numbers", str(numbers)],
        capture_output=True, text=True, check=True, cwd=harness.ROOT, env=env, timeout=1800,
    )  # fmt: skip
    return json.loads(run.stdout)


def set_limits(values: dict[str, int]) -> None:
    """Before gaussjax is imported: it reads some of them then."""
    path = harness.ROOT / f"{LIMITS.replace('.', '/')}.py"
    spec = importlib.util.spec_from_file_location(LIMITS, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if unknown := set(values) - set(vars(module)):
        raise ValueError(f"limits.py has no {', '.join(sorted(unknown))}")
    vars(module).update(values)
    sys.modules[LIMITS] = module


def measured(side: str, dims: tuple[int, ...], numbers: int) -> dict[str, tuple[float, float]]:
    """Seconds of a call, and CPU seconds to compile it, by function, size and batch."""
    set_limits(SIDES[side])
    import jax

    found = {}
    for name, function in functions().items():
        for d in dims:
            if d > LARGEST.get(side, EVERY):
                continue
            for batch in dict.fromkeys((0, 4, 7, 8, 16, max(numbers // d**2, 16))):
                arguments = inputs(d, batch)
                start = time.process_time()
                compiled = jax.jit(function).lower(*arguments).compile()
                seconds, calls = time.process_time() - start, []
                for _ in range(CALLS):
                    begin = time.perf_counter()
                    jax.block_until_ready(compiled(*arguments))
                    calls.append(time.perf_counter() - begin)
                found[f"{name}/{d}/{batch or 'alone'}"] = min(calls), seconds
    return found


def functions() -> dict[str, Callable[..., Any]]:
    """Of a batch of triangles, of others, and of vectors."""
    import jax

    import gaussjax as gj
    from gaussjax.linalg.moments import mean_and_scatter

    def divergence(a: Any, b: Any, v: Any) -> Any:
        return gj.kl_divergence(gj.Gaussian(v, gj.Cholesky(a)), gj.Gaussian(0 * v, gj.Cholesky(b)))

    def one_of(a: Any) -> Any:
        return a.reshape(-1, *a.shape[-2:])[0]

    return {
        "cholesky": lambda a, b, v: gj.linalg.cholesky(a + a.mT),
        "log_prob": lambda a, b, v: gj.log_prob(gj.Gaussian(0 * v, gj.Cholesky(a)), v),
        "whiten": lambda a, b, v: gj.whiten(gj.Gaussian(0 * v, gj.Cholesky(a)), v),
        "color": lambda a, b, v: gj.color(gj.Gaussian(0 * v, gj.Cholesky(a)), v),
        "kl_divergence": divergence,
        "its gradient": jax.grad(lambda *x: divergence(*x).sum(), (0, 1, 2)),
        "gradient of many shifts": jax.grad(
            lambda a, b, v: divergence(one_of(a), one_of(b), v).sum(), (0, 1, 2)
        ),
        "whiten by one matrix": lambda a, b, v: gj.whiten(
            gj.Gaussian(0 * v, gj.Cholesky(one_of(a))), v
        ),
        "moments": lambda a, b, v: mean_and_scatter(a.reshape(-1, a.shape[-1]), None),
        "factor_of_sum": lambda a, b, v: gj.linalg.factor_of_sum(a, b),
    }


def inputs(d: int, batch: int) -> tuple[Any, ...]:
    """Two triangles and a vector; without a batch axis if there is none."""
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (batch,) if batch else ()
    lower = np.tril(rng.normal(size=(*shape, d, d)) * 0.3 / d) + 2 * np.eye(d)
    arrays = lower, 1.1 * lower, rng.normal(size=(*shape, d))
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


if __name__ == "__main__":
    tyro.cli(main)
