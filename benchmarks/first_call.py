"""The wait for a first result: import, and the first jitted KL and gradient at d = 8.

Each runs in a fresh process, without a persistent compilation cache, and with one that an earlier
process filled. `hits` counts the programs that JAX took from that cache.

    python -m benchmarks.first_call
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import tyro

from benchmarks import harness
from benchmarks.libraries import LIBRARIES, jax_gradient
from benchmarks.operations import inputs

MEASURES = ("kl", "kl_gradient")
ASKED = ("gaussjax", "jax by hand", "distrax")
DIM = 8
CACHE = "/jax/compilation_cache/cache_hits"


def main(rounds: int = 7, libraries: tuple[str, ...] = ASKED, child: str = "") -> None:
    """Measures and writes `benchmarks/results/first_call.md` and `.json`.

    Args:
        rounds: Processes of each kind.
        libraries: Whom to ask.
        child: The library to measure in this process (the parent starts itself with this).
    """
    if child:
        print(json.dumps(first_call(child)))
        return
    present = [library for library in libraries if harness.installed(library)]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {f"{x}{suffix}": (x, cache) for x in present for suffix, cache in _caches(folder)}
        for library, cache in kinds.values():
            ask(library, cache)  # fills the cache, and writes bytecode
        for _ in range(rounds):
            for kind in random.sample(list(kinds), len(kinds)):
                found.setdefault(kind, []).append(ask(*kinds[kind]))
    names = ("import", *MEASURES, "hits")
    rows = []
    for kind in kinds:
        medians = [statistics.median(x[name] for x in found[kind]) for name in names]
        rows.append([kind, *(f"{x:.2f}" for x in medians[:-1]), f"{medians[-1]:.0f}"])
    header = ["", "import, s", "first KL, s", "first gradient, s", "hits of the cache"]
    text = f"Medians of {rounds} fresh processes, d = {DIM}\n\n{harness.table(header, rows)}"
    harness.write("first_call", text, {"rounds": rounds, "seconds": found})
    if any(x["hits"] < len(MEASURES) for x in found.get("gaussjax, cached", [])):
        sys.exit("gaussjax compiled again what a persistent compilation cache had")


def _caches(folder: str) -> tuple[tuple[str, str | None], ...]:
    return ("", None), (", cached", folder)


def ask(library: str, cache: str | None) -> dict[str, float]:
    """What a process of its own measures."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    if cache is not None:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, "-m", "benchmarks.first_call", "--child", library]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=harness.ROOT, env=env, timeout=300
    )
    return json.loads(run.stdout)


def first_call(library: str) -> dict[str, float]:
    """Seconds of the import and of each first call; hits of the compilation cache."""
    start = time.perf_counter()
    kl = LIBRARIES[library]()["kl"]
    seconds = {"import": time.perf_counter() - start}
    import jax

    events: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    arrays = inputs("kl", None, DIM, "float32")
    functions: dict[str, Any] = {"kl": kl, "kl_gradient": jax_gradient("kl_gradient", kl, 4)}
    for measure, function in functions.items():
        jitted = jax.jit(function)
        start = time.perf_counter()
        jax.block_until_ready(jitted(*arrays))
        seconds[measure] = time.perf_counter() - start
    return {**seconds, "hits": events.count(CACHE)}


if __name__ == "__main__":
    tyro.cli(main)
