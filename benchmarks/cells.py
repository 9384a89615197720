"""Rows of the table: all libraries take turns, with time limits.

Each library has its own process, which compiles ahead of time and warms up. Then they run their
rounds in turn, so that other load on the machine hits all alike. A library that does not answer
within the limit gets a second process, in which XLA has more threads (NPROC=4) and its batched
LAPACK calls hang less often on few cores; the cell says so.
"""

import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from benchmarks import harness
from benchmarks.harness import PATIENCE, Hung, Worker
from benchmarks.libraries import VMAP
from benchmarks.operations import OPERATIONS, Row, operation_of

ATTEMPTS = 2  # hangs of one library in one row before it is given up
ROUNDS = 9
ENOUGH = 3  # calls of what is slow

Data = dict[str, Any]


def measure_all(
    rows: Sequence[Row], libraries: Sequence[str], *, minutes: float, seconds: float, limit: float
) -> Iterator[list[Data]]:
    """The cells of each row, until there is no more time to start another."""
    start = time.monotonic()
    present = [library for library in libraries if harness.installed(library)]
    workers = {library: Worker(library, limit=limit) for library in present}
    try:
        offers = {library: operations_of(worker) for library, worker in workers.items()}
        for number, row in enumerate(rows, start=1):
            if time.monotonic() - start > 60 * minutes:
                return
            asked = {x: workers[x] for x in present if is_asked(x, row, offers[x])}
            cells = measure(asked, row, seconds)
            said = ", ".join(f"{cell['library']} {as_text(cell)}" for cell in cells)
            print(f"{number}/{len(rows)} {row.measure} {row.size}: {said}", file=sys.stderr)
            yield cells
    finally:
        for worker in workers.values():
            worker.close()


def operations_of(worker: Worker) -> Collection[str]:
    """The operations of a library; all of them if it does not answer, so that its cells say why."""
    try:
        return worker.ask("offers")
    except (Hung, RuntimeError):
        return OPERATIONS


def is_asked(library: str, row: Row, offers: Collection[str]) -> bool:
    """Whether it has the operation. Libraries that map over a batch need one."""
    return operation_of(row.measure) in offers and (row.batch is not None or library != VMAP)


def measure(workers: dict[str, Worker], row: Row, seconds: float) -> list[Data]:
    """A cell for each library, with about that many seconds of calls (at least three calls)."""
    cells = [Cell(library, worker, row, seconds) for library, worker in workers.items()]
    for cell in cells:
        cell.attempt(cell.prepare)
    for _ in range(ROUNDS):
        for cell in random.sample(cells, len(cells)):
            cell.attempt(cell.round)
    for cell in cells:
        cell.close()
    return [cell.data() for cell in cells]


def row_of(cell: Data) -> Row:
    return Row(**{field.name: cell[field.name] for field in dataclasses.fields(Row)})


def as_text(cell: Data) -> str:
    """Median in milliseconds ± half the interquartile range in percent, or what went wrong."""
    hangs = f"hung {cell['hangs']}×" if cell["hangs"] else ""
    if cell["median"] is None:
        return hangs or "failed"
    spread = 50 * (cell["upper_quartile"] - cell["lower_quartile"]) / cell["median"]
    text = f"{1e3 * cell['median']:.3g} ± {spread:.0f} %"
    return f"{text}, {hangs}" if hangs else text


class Cell:
    """One library's times for one row, the facts about its program, and what went wrong."""

    def __init__(self, library: str, worker: Worker, row: Row, seconds: float) -> None:
        self._library, self._worker, self._row = library, worker, row
        self._seconds = seconds
        self._times: list[float] = []
        self._facts: Data = {}
        self._hangs = 0
        self._error = ""

    def prepare(self) -> None:
        what = {name: getattr(self._row, name) for name in ("measure", "batch", "dim", "dtype")}
        self._facts = self._worker.ask("prepare", patience=PATIENCE, **what)
        self._worker.ask("warm")
        self._worker.ask("warm")

    def round(self) -> None:
        if len(self._times) < ENOUGH or sum(self._times) < self._seconds:
            self._times += self._worker.ask("round", seconds=self._seconds / ROUNDS)

    def close(self) -> None:
        """Frees the memory; after a hang, the next row has a process with the default threads."""
        if self._hangs or self._error:
            self._worker.settings.pop("NPROC", None)
            self._worker.close()
        else:
            self.attempt(lambda: self._worker.ask("forget"))

    def attempt(self, step: Callable[[], None]) -> None:
        """A step, unless the library was given up; after a hang, once more in a new process."""
        if self._error or self._hangs == ATTEMPTS:
            return
        try:
            step()
        except RuntimeError as error:
            self._error = str(error)
        except Hung:
            self._hangs += 1
            self._worker.settings["NPROC"] = "4"
            if step != self.prepare:
                self.attempt(self.prepare)
            self.attempt(step)

    def data(self) -> Data:
        few = len(self._times) < 2  # given up
        quartiles = [None] * 3 if few else statistics.quantiles(self._times, n=4)
        names = ("lower_quartile", "median", "upper_quartile")
        return {
            **dataclasses.asdict(self._row),
            "library": self._library,
            **dict(zip(names, quartiles, strict=True)),
            "calls": len(self._times),
            **self._facts,
            "hangs": self._hangs,
            "error": self._error,
        }
