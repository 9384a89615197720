"""Times of the KL divergence, its gradient, densities and samples, beside other libraries.

Each library lives in a process of its own, which compiles ahead of time and warms up; then all are
asked for a round in turn, so that what else the machine does hits them alike. A library that does
not answer within the limit gets a second process, in which XLA has more threads (NPROC=4) and its
batched LAPACK calls hang less often on few cores; the cell says so.
"""

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from benchmarks import harness
from benchmarks.harness import Hung, Worker
from benchmarks.libraries import LIBRARIES, MEASURES, PEERS

SIZES = ((100_000, 2), (100_000, 4), (50_000, 8), (20_000, 16))
TITLES = {
    "kl": "`kl_divergence`",
    "kl_gradient": "Gradient of `kl_divergence` in both means and both factors",
    "log_prob": "`log_prob`, one x per Gaussian",
    "sample": "`sample`, one per Gaussian",
}
COMPILED_DIM = 8
ATTEMPTS = 3  # hangs of one library in one cell before it is given up


def main(
    measures: tuple[str, ...] = MEASURES,
    libraries: tuple[str, ...] = tuple(LIBRARIES),
    dims: tuple[int, ...] = (2, 4, 8, 16),
    rounds: int = 9,
    limit: float = 30.0,
    name: str = "speed",
) -> None:
    """Measures and writes `benchmarks/results/NAME.md` and `.json`.

    Args:
        measures: What to time.
        libraries: Whom to ask; those that are not installed are left out.
        dims: Which of the sizes.
        rounds: Rounds of about 0.2 s for each library and size.
        limit: Seconds after which a library counts as hung.
        name: Name of the files.
    """
    present = [library for library in libraries if harness.installed(library)]
    workers = {library: Worker(library, limit=limit) for library in present}
    cells: list[dict[str, Any]] = []
    try:
        for measure in measures:
            for batch, dim in (size for size in SIZES if size[1] in dims):
                asked = [x for x in present if measure == "sample" or x != "normals alone"]
                these = {x: workers[x] for x in asked}
                cells += measure_all(these, measure, batch, dim, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    absent = [library for library in libraries if library not in present]
    harness.write(name, markdown(cells, present, absent), {"rounds": rounds, "cells": cells})


def measure_all(
    workers: dict[str, Worker], measure: str, batch: int, dim: int, rounds: int
) -> list[dict[str, Any]]:
    """One cell for each library: the times of all rounds, and what went wrong."""
    found = {x: Cell(worker, measure, batch, dim) for x, worker in workers.items()}
    for cell in found.values():
        cell.attempt(cell.prepare)
    for _ in range(rounds):
        for cell in random.sample(list(found.values()), len(found)):
            cell.attempt(cell.round)
    for cell in found.values():
        cell.close()
    for library, cell in found.items():
        print(f"{measure} {batch}x{dim} {library}: {cell.text()}", file=sys.stderr, flush=True)
    return [{"library": library, **cell.data()} for library, cell in found.items()]


class Cell:
    """One library's times for one measure and size."""

    def __init__(self, worker: Worker, measure: str, batch: int, dim: int) -> None:
        self._worker = worker
        self._what = {"measure": measure, "batch": batch, "dim": dim}
        self._times: list[float] = []
        self._compile = 0.0
        self._hangs = 0
        self._error = ""

    def prepare(self) -> None:
        self._compile = self._worker.ask("prepare", **self._what)["compile"]

    def round(self) -> None:
        self._times += self._worker.ask("round")

    def attempt(self, step: Callable[[], None]) -> None:
        """A step, unless all is lost; after a hang once more in a new process."""
        if self._error or self._hangs == ATTEMPTS:
            return
        try:
            step()
        except RuntimeError as error:
            self._error = str(error)
        except Hung:
            self._hangs += 1
            self._worker.settings = {"NPROC": "4"}
            if step != self.prepare:
                self.attempt(self.prepare)
            self.attempt(step)

    def close(self) -> None:
        """After a hang, the next measurement starts in a process with the default threads."""
        if self._hangs:
            self._worker.settings = {}
            self._worker.close()

    def data(self) -> dict[str, Any]:
        quartiles = statistics.quantiles(self._times, n=4) if self._times else [None] * 3
        names = ("lower_quartile", "median", "upper_quartile")
        return {
            **self._what,
            **dict(zip(names, quartiles, strict=True)),
            "calls": len(self._times),
            "compile": self._compile,
            "hangs": self._hangs,
            "error": self._error,
        }

    def text(self) -> str:
        return as_text(self.data())


def as_text(cell: dict[str, Any]) -> str:
    """Median and quartiles in milliseconds."""
    hangs = f"hung {cell['hangs']}×" if cell["hangs"] else ""
    if cell["median"] is None:
        return cell["error"] or hangs or "-"
    times = [1e3 * cell[q] for q in ("median", "lower_quartile", "upper_quartile")]
    text = "{:.3g} ({:.3g}…{:.3g})".format(*times)
    return f"{text}, {hangs}" if hangs else text


def markdown(cells: Sequence[dict[str, Any]], present: list[str], absent: list[str]) -> str:
    """A table for each measure, and one of compile times."""
    text = "Milliseconds: median and quartiles. float32, jitted; factor: fastest peer / gaussjax.\n"
    if any(cell["hangs"] for cell in cells):
        text += "What hung was started again with NPROC=4, which hangs less on few cores.\n"
    if absent:
        text += f"Not installed: {', '.join(absent)}.\n"
    for measure in dict.fromkeys(cell["measure"] for cell in cells):
        group = [cell for cell in cells if cell["measure"] == measure]
        columns = [x for x in present if any(cell["library"] == x for cell in group)]
        rows = []
        for batch, dim in dict.fromkeys((cell["batch"], cell["dim"]) for cell in group):
            row = {c["library"]: c for c in group if (c["batch"], c["dim"]) == (batch, dim)}
            texts = [as_text(row[x]) for x in columns]
            rows.append([f"{batch:,} × {dim}", *texts, *ratios(row, measure)])
        extra = ["factor", "/ normals"] if measure == "sample" else ["factor"]
        header = ["B × d", *columns, *extra]
        text += f"\n### {TITLES[measure]}\n\n{harness.table(header, rows)}"
    return text + compile_times(cells, present)


def ratios(row: dict[str, dict[str, Any]], measure: str) -> list[str]:
    """The fastest peer's time over ours; for samples also ours over that of the noise."""
    medians = {library: cell["median"] for library, cell in row.items() if cell["median"]}
    ours, peers = medians.get("gaussjax"), [medians[x] for x in PEERS if x in medians]
    texts = [f"**{min(peers) / ours:.1f}**" if ours and peers else "-"]
    if measure == "sample":
        noise = medians.get("normals alone")
        texts.append(f"{ours / noise:.2f}" if ours and noise else "-")
    return texts


def compile_times(cells: Sequence[dict[str, Any]], present: list[str]) -> str:
    """Seconds to trace and compile at d = 8."""
    group = [c for c in cells if c["dim"] == COMPILED_DIM]
    columns = [x for x in present if x not in ("torch", "normals alone")]
    rows = []
    for measure in dict.fromkeys(cell["measure"] for cell in group):
        row = {c["library"]: c["compile"] for c in group if c["measure"] == measure}
        rows.append([TITLES[measure], *(f"{row[x]:.2f}" if row.get(x) else "-" for x in columns)])
    title = f"\n### Tracing and compiling at d = {COMPILED_DIM}, seconds\n\n"
    return title + harness.table(["", *columns], rows) if rows else ""


if __name__ == "__main__":
    tyro.cli(main)
