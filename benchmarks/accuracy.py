"""KL divergences of nearly equal Gaussians in float32, against 60 digits, beside other libraries.

1. p and q one part in 10⁴ apart: relative error against the textbook formula in 60 digits.
2. 10,000 random pairs, one part in 10 to one part in 10⁷ apart: how many values are negative.
3. p = q: the largest value and the largest entry of the gradient, which should be zero. Above the
   diagonal of a factor some libraries have a gradient; it is left out.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Hung, Worker
from benchmarks.libraries import PEERS

Arrays = list[np.ndarray]  # mean and factor of p, mean and factor of q
BAR = 5e-7
SEPARATION = 1e-4


def main(
    dims: tuple[int, ...] = (2, 6, 16, 64), pairs: int = 20, many: int = 10_000, limit: float = 60.0
) -> None:
    """Measures and writes `benchmarks/results/accuracy.md` and `.json`; fails if ours is wrong.

    Args:
        dims: Dimensions of the first part.
        pairs: Pairs of each dimension in the first part (60 digits take a second each at d = 64).
        many: Pairs of the second part.
        limit: Seconds after which a library counts as hung.
    """
    libraries = ["gaussjax", *(x for x in PEERS if harness.installed(x))]
    workers = {library: Worker(library, limit=limit) for library in libraries}
    try:
        errors = relative_errors(workers, dims, pairs)
        signs = negative_values(workers, many)
        zeros = values_at_equality(workers, dims)
    finally:
        for worker in workers.values():
            worker.close()
    text = (
        f"### Largest relative error, q one part in 10⁴ from p, {pairs} pairs\n\n{errors.markdown}"
        f"\n### Negative values in {many:,} pairs, d = 6\n\n{signs.markdown}"
        f"\n### Largest |value| and |gradient| at p = q\n\n{zeros.markdown}"
    )
    parts = {"errors": errors.numbers, "negative": signs.numbers, "equal": zeros.numbers}
    harness.write("accuracy", text, {"pairs": pairs, **parts})
    problems = [
        *(f"relative error {x:.1e}" for x in errors.numbers["gaussjax"] if not x <= BAR),
        *(f"{x} negative values" for x in signs.numbers["gaussjax"] if x != 0),
        *(f"{x} at p = q" for x in zeros.numbers["gaussjax"] if x != 0),
    ]
    if problems:
        sys.exit(f"gaussjax: {'; '.join(problems)}")


class Table:
    """Numbers of each library; `nan` where it hung or raised."""

    def __init__(self, header: list[str], numbers: dict[str, list[float]], form: str) -> None:
        rows = [
            [library, *(format(x, form) if x == x else "failed" for x in values)]
            for library, values in numbers.items()
        ]
        self.markdown, self.numbers = harness.table(["", *header], rows), numbers


def relative_errors(workers: dict[str, Worker], dims: tuple[int, ...], pairs: int) -> Table:
    numbers: dict[str, list[float]] = {library: [] for library in workers}
    for dim in dims:
        arrays = random_pairs(pairs, dim, np.full(pairs, SEPARATION))
        exact = [exact_kl(*(x[i] for x in arrays)) for i in range(pairs)]
        print(f"60 digits at d = {dim}: done", file=sys.stderr, flush=True)
        for library, worker in workers.items():
            values = evaluate(worker, "kl", arrays)[0]
            errors = [abs(mpmath.mpf(v) - e) / e for v, e in zip(values, exact, strict=True)]
            numbers[library].append(float(max(errors)))
    return Table([f"d = {dim}" for dim in dims], numbers, ".1e")


def negative_values(workers: dict[str, Worker], many: int) -> Table:
    separations = 10.0 ** -np.arange(1, 8)
    arrays = random_pairs(many, 6, np.resize(separations, many))
    numbers = {}
    for library, worker in workers.items():
        values = np.asarray(evaluate(worker, "kl", arrays)[0])
        counts = [int(np.sum(values[i :: len(separations)] < 0)) for i in range(len(separations))]
        numbers[library] = [float("nan")] * len(counts) if np.isnan(values).any() else counts
    return Table([f"1e-{i + 1}" for i in range(len(separations))], numbers, "")


def values_at_equality(workers: dict[str, Worker], dims: tuple[int, ...]) -> Table:
    numbers: dict[str, list[float]] = {library: [] for library in workers}
    for dim in dims:
        p = random_pairs(100, dim, np.ones(100))[:2]
        for library, worker in workers.items():
            value = np.abs(evaluate(worker, "kl", [*p, *p])[0]).max()
            gradient = evaluate(worker, "kl_gradient", [*p, *p])
            parts = [np.reshape(g, x.shape) for g, x in zip(gradient, [*p, *p], strict=True)]
            lower = [np.tril(x) if x.ndim == 3 else x for x in parts]
            numbers[library] += [float(value), float(max(np.abs(x).max() for x in lower))]
    header = [f"{what}, d = {dim}" for dim in dims for what in ("value", "gradient")]
    return Table(header, numbers, ".1e")


def random_pairs(pairs: int, dim: int, separation: np.ndarray) -> Arrays:
    """Gaussians p, and q with each entry a relative `separation` away, in float32."""
    rng = np.random.default_rng(dim)
    mean = rng.normal(size=(pairs, dim))
    lower = np.tril(rng.normal(size=(pairs, dim, dim)), -1) * 0.5 / np.sqrt(dim)
    lower += np.eye(dim) * np.exp(0.3 * rng.normal(size=(pairs, 1, dim)))
    mean_q = mean + separation[:, None] * rng.normal(size=mean.shape)
    lower_q = lower * (1 + separation[:, None, None] * rng.uniform(-1, 1, size=lower.shape))
    return [x.astype(np.float32) for x in (mean, lower, mean_q, lower_q)]


def exact_kl(
    mean_p: np.ndarray, lower_p: np.ndarray, mean_q: np.ndarray, lower_q: np.ndarray
) -> mpmath.mpf:
    """½ (‖K⁻¹L‖² + ‖K⁻¹(μ₂ − μ₁)‖² − d) + log|K| − log|L| in 60 digits."""
    with mpmath.workdps(60):
        k, ell = _exactly(lower_q), _exactly(lower_p)
        shift = [mpmath.mpf(float(a)) - float(b) for a, b in zip(mean_p, mean_q, strict=True)]
        columns = [*zip(*ell, strict=True), shift]
        squares = mpmath.fsum(x * x for column in columns for x in _solve(k, column))
        logs = mpmath.fsum(mpmath.log(k[i][i] / ell[i][i]) for i in range(len(k)))
        return (squares - len(k)) / 2 + logs


def evaluate(worker: Worker, measure: str, arrays: Arrays) -> list[Any]:
    """The library's values; NaN where it hung (twice) or raised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, *arrays)
        for _ in range(2):
            try:
                return worker.ask("evaluate", measure=measure, path=str(path))
            except (Hung, RuntimeError) as error:
                print(f"{measure}: {error}", file=sys.stderr)
    nan = [np.full(x.shape, np.nan).ravel().tolist() for x in arrays]
    return nan if measure == "kl_gradient" else [[float("nan")] * len(arrays[0])]


def _exactly(array: np.ndarray) -> list[list[mpmath.mpf]]:
    return [[mpmath.mpf(float(x)) for x in row] for row in array]


def _solve(lower: list[list[mpmath.mpf]], rhs: Sequence[mpmath.mpf]) -> list[mpmath.mpf]:
    """Forward substitution."""
    out: list[mpmath.mpf] = []
    for i, b in enumerate(rhs):
        out.append((b - mpmath.fdot(lower[i][:i], out)) / lower[i][i])
    return out


if __name__ == "__main__":
    tyro.cli(main)
