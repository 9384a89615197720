"""How long `import gaussjax` takes beside `import jax`, in fresh processes, in turn."""

import os
import random
import statistics
import subprocess
import sys
import time

import tyro

from benchmarks import harness

LIMIT = 1.15


def main(rounds: int = 15) -> None:
    """Measures and writes `benchmarks/results/import_time.md` and `.json`; fails above 1.15.

    Args:
        rounds: Imports of each.
    """
    times: dict[str, list[float]] = {"jax": [], "gaussjax": []}
    for package in times:
        seconds_to_import(package)  # fills the disk cache, and writes bytecode
    for _ in range(rounds):
        for package in random.sample(list(times), len(times)):
            times[package].append(seconds_to_import(package))
    medians = {package: statistics.median(seconds) for package, seconds in times.items()}
    ratio = medians["gaussjax"] / medians["jax"]
    rows = [[f"import {package}", f"{median:.3f}"] for package, median in medians.items()]
    rows.append(["ratio", f"**{ratio:.3f}**"])
    text = f"Median seconds of {rounds} fresh processes\n\n" + harness.table(["", "s"], rows)
    harness.write("import_time", text, {"seconds": times, "ratio": ratio})
    if ratio > LIMIT:
        sys.exit(f"import gaussjax takes {ratio:.3f} times import jax: more than {LIMIT}")


def seconds_to_import(package: str) -> float:
    """Wall time of a process that imports the package and ends."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", f"import {package}"]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=harness.ROOT, env=env)
    return time.perf_counter() - start


if __name__ == "__main__":
    tyro.cli(main)
