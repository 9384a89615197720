"""Estimates from data beside scikit-learn: milliseconds, and how far apart the results are.

    python -m benchmarks.estimation    # on an idle machine

gaussjax in float32 is compared with scikit-learn, which computes covariances only in float64: the
largest difference of an entry, over the largest entry. PCA is compared by the likelihood of the
data. `moments` stands beside NumPy's mean of the rows, which is the time to read them.
"""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro
from sklearn import covariance, decomposition

import gaussjax as gj
from benchmarks import harness

Pair = tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]
BY_SCORE = ("fit of rank 5",)
PAIRS: dict[str, Pair] = {
    "fit": (gj.fit, lambda x: covariance.EmpiricalCovariance().fit(x)),
    "ledoit_wolf": (gj.ledoit_wolf, lambda x: covariance.LedoitWolf().fit(x)),
    "oas": (gj.oas, lambda x: covariance.OAS().fit(x)),
    "fit of rank 5": (
        lambda x: gj.fit(x, structure=gj.LowRank, rank=5),
        lambda x: decomposition.PCA(5).fit(x),
    ),
}


def main(
    shapes: tuple[tuple[int, int], ...] = ((1_000, 20), (100_000, 20), (10_000, 100)),
    seconds: float = 1.0,
) -> None:
    """Measures and writes `benchmarks/results/estimation.md` and `.json`.

    Args:
        shapes: Rows and columns of the data.
        seconds: Time for the calls of each.
    """
    rows, numbers = [], []
    for n, d in shapes:
        x = data(n, d)
        wide, on_device = x.astype(np.float64), jax.device_put(x)
        for name, (ours, theirs) in PAIRS.items():
            mine = timed(jax.jit(ours), on_device, seconds)
            other = timed(theirs, wide, seconds)
            apart = difference(name, ours(on_device), theirs(wide), wide)
            numbers.append([name, n, d, mine, other, apart])
        mine, other = timed(jax.jit(gj.moments), on_device, seconds), timed(mean, x, seconds)
        numbers.append(["moments", n, d, mine, other, math.nan])
    for name, n, d, mine, other, apart in numbers:
        shown = "" if math.isnan(apart) else f"{apart:.0e}"
        rows.append([name, f"{n:,} × {d}", f"{mine:.2f}", f"{other:.2f}", shown])
    header = ["", "data", "gaussjax, ms", "scikit-learn, ms", "difference"]
    harness.write("estimation", harness.table(header, rows), {"numbers": numbers})


def data(n: int, d: int) -> np.ndarray:
    """Rows from five factors and noise, away from zero."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, 5)) @ rng.standard_normal((5, d))
    return (factors + rng.standard_normal((n, d)) * np.linspace(0.5, 2, d) + 3).astype(np.float32)


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0)


def timed(call: Callable[[Any], Any], argument: Any, seconds: float) -> float:
    """Median milliseconds, after one call that is not counted."""
    times: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iterations that do not converge warn
        jax.block_until_ready(call(argument))
        start = time.perf_counter()
        while len(times) < 3 or (time.perf_counter() - start < seconds and len(times) < 200):
            before = time.perf_counter()
            jax.block_until_ready(call(argument))
            times.append(1e3 * (time.perf_counter() - before))
    return float(np.median(times))


def difference(name: str, ours: gj.Gaussian, theirs: Any, x: np.ndarray) -> float:
    if name in BY_SCORE:
        mine = float(gj.log_prob(ours, x.astype(np.float32)).mean())
        return abs(mine - theirs.score(x)) / abs(mine)
    matrix = np.asarray(gj.covariance(ours), np.float64)
    return float(np.abs(matrix - theirs.covariance_).max() / np.abs(matrix).max())


if __name__ == "__main__":
    tyro.cli(main)
