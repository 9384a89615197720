"""Everything to measure on a GPU, in one command: digits first, then speed, then the VAE.

1. Every operation and gradient in float32 on the device against float64 on the CPU. A product in
   TF32, JAX's default on GPUs, is wrong by 1e-4 or more: the column "jax by hand" shows it.
2. The speed of all of them, as `python -m benchmarks speed`, with the libraries that are installed.
3. The VAE example in steps a second, and its whole run on MNIST if --data-dir is given.

    python -m benchmarks.gpu --data-dir MNIST    # writes benchmarks/results/gpu.md and .json

Without an accelerator it says so and exits with status 1; --allow-cpu --quick is a trial run.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import cells, harness, plots, tables
from benchmarks.harness import Hung, Worker
from benchmarks.libraries import LIBRARIES
from benchmarks.operations import ARGUMENTS, MEASURES, inputs, is_gradient, operation_of, rows

WORK = 64_000_000  # ten times a CPU's: fewer bytes are read while a kernel is launched
DIMS = (2, 8, 16, 32, 256)  # of the first part
BATCH = 8
BAR = 2e-5  # of the largest entry; TF32 keeps 11 bits, an error of 5e-4
ASKED = ("gaussjax", "jax by hand")
CHECKED = tuple(x.replace("sample", "color") for x in MEASURES)
SECONDS = 3600.0  # for a run of the VAE


def main(
    data_dir: Path | None = None,
    minutes: float = 15.0,
    limit: float = 30.0,
    allow_cpu: bool = False,
    quick: bool = False,
    name: str = "gpu",
) -> None:
    """Measures and writes `benchmarks/results/NAME.md`, `.json` and figures.

    Args:
        data_dir: Folder of the four MNIST IDX files.
        minutes: When to start no further row of the second part.
        limit: Seconds after which a call counts as hung.
        allow_cpu: Run without an accelerator.
        quick: Few and small measurements, written to runs/gpu.
        name: Name of the files.
    """
    env = harness.environment()
    if env["device"].lower() == "cpu" and not allow_cpu:
        sys.exit("JAX finds no accelerator here (--allow-cpu runs without): nothing was measured.")
    if quick and name == "gpu":
        name = str(harness.ROOT / "runs" / "gpu")
    work = WORK // 10_000 if quick else WORK
    errors = relative_errors(DIMS[:2] if quick else DIMS, limit)
    measures = ("kl", "kl_gradient") if quick else MEASURES
    todo = list(rows(("dim",), measures, (2, 16) if quick else None, work))
    data = {**env, "commits": [harness.commit()], "work": work, "errors": errors}
    data |= {"cells": [], "left": len(todo)}
    harness.save(name, data)
    measured = cells.measure_all(
        todo, tuple(LIBRARIES), minutes=minutes, seconds=0.05 if quick else 0.5, limit=limit
    )
    for count, found in enumerate(measured, start=1):
        data["cells"] += found
        data["left"] = len(todo) - count
        harness.save(name, data)
    data["vae"] = steps_per_second(f"{name}_vae", quick)
    data["mnist"] = train_on_mnist(data_dir)
    harness.publish(name, markdown(data, plots.draw(name, data)), data)
    if wrong := [x for x in errors if x["library"] == "gaussjax" and not x["error"] <= BAR]:
        sys.exit(f"gaussjax: {len(wrong)} relative errors above {BAR}")


def markdown(data: dict[str, Any], figures: list[str]) -> str:
    """The three parts."""
    dims = sorted({x["dim"] for x in data["errors"]})
    header = ["", *(f"d = {dim}, {library}" for dim in dims for library in ASKED)]
    error = {(x["measure"], x["dim"], x["library"]): x["error"] for x in data["errors"]}
    table = [
        [measure, *(f"{error[measure, dim, library]:.0e}" for dim in dims for library in ASKED)]
        for measure in CHECKED
    ]
    vae, mnist = data["vae"], data["mnist"]
    steps = [f"- {who}: {rate:,.0f} steps/s\n" for who, rate in vae.items()]
    run = [f"{what} {value:.2f}" for what, value in mnist.items()]
    return (
        f"## Digits: float32 against float64, {BATCH} Gaussians\n\n"
        "Largest error of any entry, relative to the largest entry. JAX by hand has the default "
        f"precision of products.\n\n{harness.table(header, table)}"
        f"\n## The VAE\n\n{''.join(steps) or 'Not measured.'}\n"
        f"MNIST, full covariance: {', '.join(run) or 'not run.'}\n"
        f"\n## Speed\n\n{tables.markdown(data, figures)}"
    )


def relative_errors(dims: tuple[int, ...], limit: float) -> list[dict[str, Any]]:
    """Errors of each library, measure and dimension; NaN where it hung or raised."""
    workers = {library: Worker(library, limit=limit) for library in ASKED}
    exact = Worker("jax by hand", limit=limit, settings={"JAX_PLATFORMS": "cpu"})
    found = []
    try:
        for measure in CHECKED:
            for dim in dims:
                arrays = inputs(measure, BATCH, dim, "float32")
                expected = evaluate(exact, measure, [x.astype(np.float64) for x in arrays])
                for library, worker in workers.items():
                    error = largest_error(evaluate(worker, measure, arrays), expected)
                    what = {"measure": measure, "dim": dim, "library": library}
                    found.append({**what, "error": error})
            print(f"{measure}: checked", file=sys.stderr, flush=True)
    finally:
        for worker in (*workers.values(), exact):
            worker.close()
    return found


def evaluate(worker: Worker, measure: str, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    """Values, or gradients in the free entries of a factor or a symmetric matrix."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, *arrays)
        try:
            parts = worker.ask("evaluate", patience=4.0, measure=measure, path=str(path))
        except (Hung, RuntimeError) as error:
            print(f"{measure}: {error}", file=sys.stderr)
            return None
    if not is_gradient(measure):
        return [np.asarray(part) for part in parts]
    names = ARGUMENTS[operation_of(measure)]
    shaped = [np.reshape(part, x.shape) for part, x in zip(parts, arrays, strict=True)]
    return [_free(name, gradient) for name, gradient in zip(names, shaped, strict=True)]


def _free(name: str, gradient: np.ndarray) -> np.ndarray:
    if name.endswith("lower"):  # above its diagonal only some libraries read it
        return np.tril(gradient)
    return gradient + np.swapaxes(gradient, -1, -2) if name == "matrix" else gradient


def largest_error(found: list[np.ndarray] | None, expected: list[np.ndarray] | None) -> float:
    if found is None or expected is None:
        return float("nan")
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)) for x, y in pairs)


def steps_per_second(name: str, quick: bool) -> dict[str, float]:
    """Medians of `benchmarks.vae`, empty where Flax or Optax are missing."""
    rounds = ["--rounds", "2", "--epochs", "1"] if quick else []
    command = ["-m", "benchmarks.vae", "speed", "--name", name, *rounds]
    if not _run(command):
        return {}
    rates = harness.load(name)["steps_per_second"]
    return {who: float(np.median(values)) for who, values in rates.items()}


def train_on_mnist(data_dir: Path | None) -> dict[str, float]:
    """Test figures of the last epoch, and seconds with compiling; empty without the data."""
    if data_dir is None:
        return {}
    out = harness.ROOT / "runs" / "gpu-mnist"
    command = ["-m", "examples.vae", "--data", "mnist", "--data-dir", str(data_dir.absolute())]
    start = time.perf_counter()
    if not _run([*command, "--out-dir", str(out)]):
        return {}
    seconds = time.perf_counter() - start
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {k: v for k, v in last.items() if k == "epoch" or k.startswith("test_")}
    return {**figures, "seconds": seconds}


def _run(arguments: list[str]) -> bool:
    """Whether another Python process succeeded; it prints itself what is missing."""
    command = [sys.executable, *arguments]
    try:
        run = subprocess.run(command, cwd=harness.ROOT, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


if __name__ == "__main__":
    tyro.cli(main)
