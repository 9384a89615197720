"""Estimates from data beside scikit-learn: milliseconds, and how far apart the results are.

    python -m benchmarks.estimation    # on an idle machine

gaussjax in float32 is compared with scikit-learn, which computes covariances only in float64: the
largest difference of an entry, over the largest entry. PCA is compared by the likelihood of the
data. `moments` stands beside NumPy's mean of the rows, which is the time to read them.
`fit_missing` stands alone, with the megabytes that its program takes beside the data.

`python -m benchmarks.front_page` writes the table of docs/estimation.md from the results.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro
from sklearn import covariance, decomposition

import gaussjax as gj
from benchmarks import front_page, harness

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
READING = "moments"
MISSING = "fit_missing"
HOLES = 0.05  # of the entries
ROUNDS = 3


def main(
    shapes: tuple[tuple[int, int], ...] = (
        (1_000, 20),
        (100_000, 20),
        (1_000_000, 8),
        (10_000, 100),
    ),
    with_holes: tuple[int, int] = (10_000, 200),
    names: tuple[str, ...] = (*PAIRS, READING, MISSING),
    seconds: float = 1.0,
) -> None:
    """Measures and writes `benchmarks/results/estimation.md` and `.json`.

    Args:
        shapes: Rows and columns of the data.
        with_holes: Those of the data for `fit_missing`.
        names: Which estimates.
        seconds: Time for the calls of each.
    """
    numbers = []
    for n, d in shapes:
        x = data(n, d)
        wide, on_device = x.astype(np.float64), jax.device_put(x)
        for name in (name for name in names if name != MISSING):
            if name == READING:
                sides = {"ours": (jax.jit(gj.moments), on_device), "theirs": (mean, x)}
                times = timed(sides, seconds)
                numbers.append([name, n, d, times["ours"], times["theirs"], None])
                continue
            ours, theirs = PAIRS[name]
            sides = {"ours": (jax.jit(ours), on_device), "theirs": (theirs, wide)}
            times = timed(sides, seconds)
            apart = difference(name, ours(on_device), theirs(wide), wide)
            numbers.append([name, n, d, times["ours"], times["theirs"], apart])
            print(numbers[-1], file=sys.stderr)
    if MISSING in names:
        numbers.append(missing(*with_holes, seconds))
    harness.write("estimation", front_page.beside_scikit_learn(numbers), {"numbers": numbers})


def data(n: int, d: int) -> np.ndarray:
    """Rows from five factors and noise, away from zero."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, 5)) @ rng.standard_normal((5, d))
    return (factors + rng.standard_normal((n, d)) * np.linspace(0.5, 2, d) + 3).astype(np.float32)


def missing(n: int, d: int, seconds: float) -> list[Any]:
    """The row of `fit_missing`: one program, from the data to where EM ends."""
    x, seen = data(n, d), np.random.default_rng(1).uniform(size=(n, d)) >= HOLES
    most = int((~seen).sum(axis=1).max())
    fit = jax.jit(lambda x, seen: gj.fit_missing(x, mask=seen, most=most))
    arguments = jax.device_put((np.where(seen, x, np.nan), seen))
    program = fit.lower(*arguments).compile()
    analysis: Any = program.memory_analysis()
    memory = analysis.temp_size_in_bytes / 1e6
    times = timed({"ours": (lambda pair: program(*pair), arguments)}, seconds)
    name = f"{MISSING} with {HOLES:.0%} holes, {memory:.0f} MB"
    return [name, n, d, times["ours"], None, None]


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0)


def timed(sides: dict[str, tuple[Callable[[Any], Any], Any]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each side, after one call that is not counted, in rounds by turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iterations that do not converge warn
        for call, argument in sides.values():
            jax.block_until_ready(call(argument))
        for name in (*sides,) * ROUNDS:
            call, argument = sides[name]
            start = time.perf_counter()
            while True:
                before = time.perf_counter()
                jax.block_until_ready(call(argument))
                times[name].append(1e3 * (time.perf_counter() - before))
                if time.perf_counter() - start > seconds / ROUNDS:
                    break
    return {name: float(np.median(found)) for name, found in times.items()}


def difference(name: str, ours: gj.Gaussian, theirs: Any, x: np.ndarray) -> float:
    if name in BY_SCORE:
        mine = float(gj.log_prob(ours, jax.device_put(x.astype(np.float32))).mean())
        return abs(mine - theirs.score(x)) / abs(mine)
    matrix = np.asarray(gj.covariance(ours), np.float64)
    return float(np.abs(matrix - theirs.covariance_).max() / np.abs(matrix).max())


if __name__ == "__main__":
    tyro.cli(main)
