"""Speed of every operation and its gradient, beside other libraries.

    python -m benchmarks speed             # about 25 minutes; lists what there was no time for
    python -m benchmarks speed --resume    # continues with that
    python -m benchmarks report            # tables and figures again, from the JSON

Sweeps: `dim`, against d with B d² constant; `batch`, against B at d = 8; `single`, one Gaussian
against d; `float64`, as `dim`. Figures of structures are drawn from `benchmarks.structures`.
"""

import sys

import tyro

from benchmarks import cells, harness, plots, tables
from benchmarks.libraries import LIBRARIES
from benchmarks.operations import MEASURES, SWEEPS, WORK, rows

QUICK = ("log_prob", "kl", "kl_gradient", "sample")
QUICK_NAME = str(harness.ROOT / "runs" / "quick")


def speed(
    sweeps: tuple[str, ...] = SWEEPS,
    measures: tuple[str, ...] = MEASURES,
    libraries: tuple[str, ...] = tuple(LIBRARIES),
    dims: tuple[int, ...] | None = None,
    work: int = WORK,
    minutes: float = 25.0,
    seconds: float = 0.6,
    limit: float = 20.0,
    resume: bool = False,
    quick: bool = False,
    name: str = "speed",
) -> None:
    """Measures, and writes `benchmarks/results/NAME.md`, `.json` and figures.

    Args:
        sweeps: Which sweeps: dim, batch, single, float64.
        measures: What to time: operations, and `OPERATION_gradient`.
        libraries: Whom to ask; those that are not installed are left out.
        dims: Only these dimensions of the sweeps; all if left out.
        work: B d² where it is constant.
        minutes: When to start no further row. The coarse part of all sweeps comes first.
        seconds: Time of each library's calls in a row, but at least three calls.
        limit: Seconds after which a call counts as hung.
        resume: Keep what was measured, and go on with the rest.
        quick: A small selection in about a minute, written to runs/quick.
        name: Name of the files.
    """
    if quick:
        sweeps, measures, dims, work, seconds = ("dim",), QUICK, (2, 16), WORK // 100, 0.05
        name = QUICK_NAME if name == "speed" else name
    for value, allowed in ((sweeps, SWEEPS), (measures, MEASURES), (libraries, LIBRARIES)):
        if unknown := sorted(set(value) - set(allowed)):
            sys.exit(f"unknown: {', '.join(unknown)}; known are {', '.join(allowed)}")
    data = harness.load(name) if resume else {"commits": [], "cells": []}
    data |= {**harness.environment(), "work": work}
    data["commits"] = list(dict.fromkeys([*data["commits"], harness.commit()]))
    known = {cells.row_of(cell) for cell in data["cells"]}
    todo = [row for row in rows(sweeps, measures, dims, work) if row not in known]
    planned = rows(SWEEPS, MEASURES, None, work) if resume else todo
    data["left"] = sum(row not in known for row in planned)
    harness.save(name, data)
    measured = cells.measure_all(todo, libraries, minutes=minutes, seconds=seconds, limit=limit)
    for found in measured:
        data["cells"] += found
        data["left"] -= 1
        harness.save(name, data)
    report(name)


def report(name: str = "speed") -> None:
    """Draws tables and figures from `benchmarks/results/NAME.json`.

    Args:
        name: Name of the files.
    """
    data = harness.load(name)
    figures = plots.draw(name, data) + (plots.draw_structures() if name == "speed" else [])
    harness.publish(name, tables.markdown(data, figures), data)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "report": report})
