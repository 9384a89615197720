"""Distances beside the textbook formulas in plain JAX.

    python -m benchmarks.distances                          # on a machine that does nothing else
    python -m benchmarks.distances --names wasserstein2     # these again, the others as they were

Of Cholesky factors in float32: milliseconds jitted, CPU seconds to compile, and the largest
relative error of a batch of pairs 10⁻³ apart, against the textbook formula in float64.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import gaussjax as gj
from benchmarks import harness

Function = Callable[..., Any]
OURS, BY_HAND = "gaussjax", "jax by hand"
NEAR, FAR = 1e-3, 0.3
DIGITS = 4


def main(
    dims: tuple[int, ...] = (2, 8, 32, 128, 512),
    names: tuple[str, ...] = (),
    work: int = 100_000,
    seconds: float = 0.5,
    limit: float = 120.0,
    child: bool = False,
) -> None:
    """Measures and writes `benchmarks/results/distances.md` and `.json`.

    Args:
        dims: Sizes d.
        names: Which distances; all if left out, else the others stay as they were.
        work: B·d², which gives the batch.
        seconds: Time for the calls of each.
        limit: Seconds that one may take to compile and run.
        child: Whether this process measures what it reads (the parent starts itself with this).
    """
    if child:
        harness.answer(measured)
        return
    kept = (
        [c for c in harness.load("distances")["cells"] if c["name"] not in names] if names else []
    )
    asked = [
        {"library": x, "name": name, "dim": d, "batch": max(1, work // d**2), "seconds": seconds}
        for d in dims
        for name in names or TEXTBOOK
        for x in (OURS, BY_HAND)  # in turn, so that both meet the same machine
    ]
    cells = []
    for cell in harness.answers("benchmarks.distances", asked, limit):
        print(cell, file=sys.stderr)
        cells.append({k: v for k, v in cell.items() if k != "seconds"})
    data = {"dims": list(dims), "cells": kept + cells}
    harness.write("distances", markdown(data), data)


def measured(cell: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of value and gradient, CPU seconds to compile each, and the error."""
    table = DISTANCES if cell["library"] == OURS else TEXTBOOK
    function, size = table[cell["name"]], (cell["batch"], cell["dim"])
    far, near = ([jnp.asarray(x, jnp.float32) for x in laws(*size, s)] for s in (FAR, NEAR))

    def total(*arrays: Any) -> Any:
        return jnp.sum(function(*arrays))

    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))  # what JAX itself starts with
    found, programs = {}, {"value": function, "gradient": jax.grad(total, (0, 1, 2, 3))}
    for name, program in programs.items():
        start = time.process_time()
        programs[name] = jax.jit(program).lower(*far).compile()
        found[f"compile_{name}"] = time.process_time() - start
        found[name] = milliseconds(programs[name], far, cell["seconds"])
    value = np.asarray(programs["value"](*near), np.float64)
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in near]
        exact = np.asarray(TEXTBOOK[cell["name"]](*wide))
    found["error"] = float(np.max(np.abs(value - exact) / exact))
    return {k: float(f"{v:.{DIGITS}g}") for k, v in found.items()}


def laws(batch: int, d: int, separation: float) -> list[np.ndarray]:
    """Means and factors of the first laws, and of others at this distance."""
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((batch, d))
    lower = np.tril(rng.standard_normal((batch, d, d)) / (2 * d**0.5), -1)
    lower += rng.uniform(0.5, 1.5, (batch, d, 1)) * np.eye(d)
    other = lower * (1 + separation * rng.uniform(-1, 1, (batch, d, d)))
    return [mean, lower, mean + separation * rng.standard_normal((batch, d)) / d**0.5, other]


def milliseconds(call: Function, arguments: Any, seconds: float) -> float:
    """Median, after one call that is not counted."""
    jax.block_until_ready(call(*arguments))
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - start < seconds and len(times) < 200):
        before = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        times.append(1e3 * (time.perf_counter() - before))
    return float(np.median(times))


# Distances ---------------------------------------------------------------------------------------


def _of_pairs(function: Function) -> Function:
    def distance(mean: Any, a: Any, other: Any, b: Any) -> Any:
        return function(gj.Gaussian(mean, gj.Cholesky(a)), gj.Gaussian(other, gj.Cholesky(b)))

    return distance


def _kernel_distance(p: gj.Gaussian, q: gj.Gaussian) -> Any:
    return gj.maximum_mean_discrepancy(p, q, bandwidth=float(p.dim) ** 0.5)


DISTANCES: dict[str, Function] = {
    "jeffreys_divergence": _of_pairs(gj.jeffreys_divergence),
    "bhattacharyya_distance": _of_pairs(gj.bhattacharyya_distance),
    "hellinger_distance": _of_pairs(gj.hellinger_distance),
    "jensen_shannon_divergence": _of_pairs(gj.jensen_shannon_divergence),
    "wasserstein2": _of_pairs(gj.wasserstein2),
    "fisher_rao_distance": lambda mean, a, _, b: _of_pairs(gj.fisher_rao_distance)(
        mean, a, mean, b
    ),
    "maximum_mean_discrepancy": _of_pairs(_kernel_distance),
    "total_correlation": _of_pairs(lambda p, q: gj.total_correlation(p)),
}


def _gram(a: Any) -> Any:
    return jnp.matmul(a, a.mT, precision="highest")


def _quad(m: Any, v: Any) -> Any:
    return jnp.sum(v * jnp.linalg.solve(m, v[..., None])[..., 0], axis=-1)


def _logdet(m: Any) -> Any:
    return jnp.linalg.slogdet(m)[1]


def _kl(mean: Any, a: Any, other: Any, b: Any) -> Any:
    a, b = _gram(a), _gram(b)
    trace = jnp.trace(jnp.linalg.solve(b, a), axis1=-2, axis2=-1)
    return 0.5 * (trace + _quad(b, mean - other) - a.shape[-1] + _logdet(b) - _logdet(a))


def _jeffreys(mean: Any, a: Any, other: Any, b: Any) -> Any:
    return _kl(mean, a, other, b) + _kl(other, b, mean, a)


def _bhattacharyya(mean: Any, a: Any, other: Any, b: Any) -> Any:
    a, b = _gram(a), _gram(b)
    m = 0.5 * (a + b)
    return 0.125 * _quad(m, mean - other) + 0.5 * (_logdet(m) - 0.5 * (_logdet(a) + _logdet(b)))


def symmetric_root(m: Any) -> Any:
    """By eigenvectors."""
    values, vectors = jnp.linalg.eigh(m)
    return jnp.matmul(vectors * jnp.sqrt(values)[..., None, :], vectors.mT, precision="highest")


def _wasserstein(mean: Any, a: Any, other: Any, b: Any) -> Any:
    a, b = _gram(a), _gram(b)
    r = symmetric_root(a)
    inner = jnp.matmul(jnp.matmul(r, b, precision="highest"), r, precision="highest")
    traces = jnp.trace(a + b - 2 * symmetric_root(inner), axis1=-2, axis2=-1)
    return jnp.sqrt(jnp.sum((mean - other) ** 2, axis=-1) + traces)


def _fisher_rao(mean: Any, a: Any, other: Any, b: Any) -> Any:
    whitened = jnp.linalg.solve(b, a)
    return jnp.sqrt(0.5 * jnp.sum(jnp.log(jnp.linalg.eigvalsh(_gram(whitened))) ** 2, axis=-1))


def _mmd(mean: Any, a: Any, other: Any, b: Any) -> Any:
    a, b, one = _gram(a), _gram(b), jnp.eye(a.shape[-1], dtype=a.dtype)
    width = a.shape[-1]  # ℓ²

    def kernel(m: Any, v: Any) -> Any:
        whole = one + m / width
        return jnp.exp(-0.5 * (_logdet(whole) + _quad(whole, v) / width))

    zero = jnp.zeros_like(mean)
    return jnp.sqrt(kernel(2 * a, zero) + kernel(2 * b, zero) - 2 * kernel(a + b, mean - other))


def _total_correlation(mean: Any, a: Any, other: Any, b: Any) -> Any:
    a = _gram(a)
    return 0.5 * (jnp.sum(jnp.log(jnp.diagonal(a, axis1=-2, axis2=-1)), -1) - _logdet(a))


TEXTBOOK: dict[str, Function] = {
    "jeffreys_divergence": _jeffreys,
    "bhattacharyya_distance": _bhattacharyya,
    "hellinger_distance": lambda *x: jnp.sqrt(1 - jnp.exp(-_bhattacharyya(*x))),
    "jensen_shannon_divergence": lambda *x: 0.25 * _jeffreys(*x) - _bhattacharyya(*x),
    "wasserstein2": _wasserstein,
    "fisher_rao_distance": _fisher_rao,
    "maximum_mean_discrepancy": _mmd,
    "total_correlation": _total_correlation,
}


# Tables ------------------------------------------------------------------------------------------


def markdown(data: dict[str, Any]) -> str:
    """Times, then what holds for all sizes."""
    return (
        f"Values\n\n{times(data, 'value')}\nGradients\n\n{times(data, 'gradient')}\n"
        f"Programs, the largest of all sizes\n\n{programs(data)}"
    )


def times(data: dict[str, Any], measure: str) -> str:
    """A distance a row, a size a column: milliseconds, and by hand / gaussjax."""
    of = {(c["name"], c["dim"], c["library"]): c for c in data["cells"]}
    sizes = [f"{of[next(iter(TEXTBOOK)), d, OURS]['batch']:,} × {d}" for d in data["dims"]]
    rows = []
    for name in TEXTBOOK:
        entries = []
        for d in data["dims"]:
            ours, by_hand = (of[name, d, x].get(measure, math.nan) for x in (OURS, BY_HAND))
            ratio = by_hand / ours
            shown = f"{ours:.3g} ms, {ratio:.{1 if ratio < 10 else 0}f}×"
            entries.append("–" if math.isnan(ratio) else shown)
        rows.append([f"`{name}`", *entries])
    return harness.table(["B × d", *sizes], rows)


def programs(data: dict[str, Any]) -> str:
    """A distance a row: CPU seconds to compile, and errors."""
    header = [
        "",
        "compile value, s",
        "gradient, s",
        "error",
        "value by hand, s",
        "gradient",
        "error",
    ]
    rows = []
    for name in TEXTBOOK:
        row = [f"`{name}`"]
        for library in (OURS, BY_HAND):
            cells = [c for c in data["cells"] if (c["name"], c["library"]) == (name, library)]
            for measure, form in (("compile_value", ".2f"), ("compile_gradient", ".2f")):
                row.append(format(max(c.get(measure, 0.0) for c in cells), form))
            error = np.max([c.get("error", math.nan) for c in cells])
            row.append("NaN" if np.isnan(error) else f"{error:.0e}")
        rows.append(row)
    return harness.table(header, rows)


if __name__ == "__main__":
    tyro.cli(main)
