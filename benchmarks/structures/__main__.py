"""The structures at large sizes, with missing data, and in pairs: time, memory, digits.

    python -m benchmarks.structures                    # all parts
    python -m benchmarks.structures --parts low_rank   # one of them

Each row is measured in its own process, for its own peak of memory: the most that the process holds
beyond its inputs (and its program).
"""

import json
import sys

import tyro

from benchmarks import harness
from benchmarks.harness import Hung, Lines
from benchmarks.structures import large, low_rank, missing, pairs
from benchmarks.structures.rows import Row

PARTS = {"low_rank": low_rank, "large": large, "missing": missing, "pairs": pairs}


def main(
    parts: str = ",".join(PARTS), limit: float = 300.0, name: str = "structures", child: str = ""
) -> None:
    """Measures and writes `benchmarks/results/NAME.md` and `.json`.

    Args:
        parts: Which parts, with commas between them.
        limit: Seconds after which a row (in `pairs`, one of its pairs) is given up.
        name: Name of the files.
        child: The row to measure in this process (the parent starts itself again with this).
    """
    if child:
        answer(json.loads(child))
        return
    asked = [part for part in PARTS if part in parts.split(",")]
    state, data = harness.commit(), dict[str, list[Row]]()
    for part in asked:
        data[part] = [
            found for row in PARTS[part].rows() for found in ask({"part": part, **row}, limit)
        ]
    loads = [row["load"] for part in data.values() for row in part if "load" in row]
    text = f"gaussjax at {state}. Each row in a process of its own, given up after {limit:.0f} s."
    if loads:
        text += f" Load of the machine meanwhile: {min(loads):.1f} to {max(loads):.1f}."
    text += "\n" + "".join(PARTS[part].table(found) for part, found in data.items())
    if harness.commit() != state:
        text = f"**The sources changed meanwhile.** {text}"
    harness.write(name, text, {"commit": state, **data})


def ask(row: Row, limit: float) -> list[Row]:
    """What a process of its own answers, line by line, and what went wrong."""
    command = [sys.executable, "-m", "benchmarks.structures", "--child", json.dumps(row)]
    settings = {"JAX_ENABLE_X64": str(int(row.get("dtype") == "float64"))}
    if row.get("library", "").endswith("one thread"):
        settings["OMP_NUM_THREADS"] = "1"
    lines = Lines(command, settings)
    found: list[Row] = []
    try:
        while line := lines.read(limit):
            found.append({**row, **json.loads(line)})
    except Hung as hung:
        found.append({**row, "failed": str(hung)})
    if lines.wait() != 0 and not any("failed" in x for x in found):
        found.append({**row, "failed": "the process ended"})
    for one in found:
        said = {k: v for k, v in one.items() if k not in row}
        print(f"{' '.join(map(str, row.values()))}: {said}", file=sys.stderr, flush=True)
    return found


def answer(row: Row) -> None:
    """Measures one row, and prints JSON lines."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a package that prints must not answer
    try:
        for found in PARTS[row["part"]].measure(row):
            print(json.dumps(found), file=answers, flush=True)
    except Exception as error:  # whatever is raised is the answer
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(json.dumps({"failed": said}), file=answers, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
