"""The tables of README.md and of the pages on speed, distances and estimation, from the results.

python -m benchmarks.front_page
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import distances, fid, harness
from benchmarks.operations import COARSE

PEERS = ("jax by hand", "distrax", "tfp", "numpyro", "torch")
DOCUMENTS = ("README.md", "docs/speed.md", "docs/distances.md", "docs/estimation.md")
FRONT = {
    "KL divergence": "kl", "its gradient": "kl_gradient", "`log_prob`": "log_prob",
    " its gradient": "log_prob_gradient", "`sample`": "sample", "`condition`": "condition",
    "`observe`": "observe", "`linalg.cholesky`": "cholesky",
}  # fmt: skip
FRONT_DIMS = (4, 16, 64, 256)
WHOLE = {
    "densities": {
        "KL": "kl", "its gradient": "kl_gradient", "`log_prob`": "log_prob",
        " its gradient": "log_prob_gradient", "`sample`": "sample",
    },
    "posteriors": {
        "`condition`": "condition", "its gradient": "condition_gradient",
        "`observe`": "observe", " its gradient": "observe_gradient",
        "`cholesky`": "cholesky", "  its gradient": "cholesky_gradient",
    },
    "points": {"points": "likelihood", "their gradient": "likelihood_gradient"},
}  # fmt: skip

Cells = dict[tuple[str, int, str], Any]


def main() -> None:
    """Writes them into the documents."""
    for document in DOCUMENTS:
        path = harness.ROOT / document
        path.write_text(filled(path.read_text()))


def filled(text: str) -> str:
    """A document with its tables: each stands between its name and an end."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables()[match[2]]()}{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", replaced, text, flags=re.DOTALL)


def tables() -> dict[str, Callable[[], str]]:
    """Each table by its name."""
    whole = {name: lambda columns=columns: by_size(columns) for name, columns in WHOLE.items()}
    of_distances = {
        "distances": lambda: distances.times(harness.load("distances"), "value"),
        "distance_gradients": lambda: distances.times(harness.load("distances"), "gradient"),
        "distance_programs": lambda: distances.programs(harness.load("distances")),
        "fid": lambda: fid.table(harness.load("fid")),
    }
    others = {"speed": speed, "accuracy": accuracy, "estimation": estimates}
    return {**others, **whole, **of_distances}


def speed() -> str:
    """For the front page: an operation per row, a size per column."""
    cells = measured()
    sizes = [f"{cells['kl', d, 'gaussjax']['batch']:,} × {d}" for d in FRONT_DIMS]
    rows = []
    for name, measure in FRONT.items():
        pairs = [entries(cells, measure, d) for d in FRONT_DIMS]
        rows.append([name.strip(), *(f"{time} ms, {ratio}" for time, ratio in pairs)])
    return harness.table(["B × d", *sizes], rows)


def by_size(columns: dict[str, str]) -> str:
    """A size per row, two entries per measure."""
    cells = measured()
    header = ["B × d", *(x for name in columns for x in (name.strip(), ""))]
    rows = []
    for d in COARSE:
        batch = cells[next(iter(columns.values())), d, "gaussjax"]["batch"]
        both = [x for measure in columns.values() for x in entries(cells, measure, d)]
        rows.append([f"{batch:,} × {d}", *both])
    return harness.table(header, rows)


def accuracy() -> str:
    """Relative errors of KL divergences, and the share of negative values."""
    data = harness.load("accuracy")
    header = ["error of KL(p‖q)", "d = 2", "d = 6", "d = 16", "d = 64", "negative, d = 6"]
    rows = []
    for library, errors in data["errors"].items():
        shown: Sequence[str] = [f"{x:.0e}" if x < 1 else f"{x:.0f}" for x in errors]
        rows.append([library, *shown, f"{data['negative'][library][3] / 100:.0f} %"])
    return harness.table(header, rows)


def estimates() -> str:
    """Estimates from data."""
    return beside_scikit_learn(harness.load("estimation")["numbers"])


def beside_scikit_learn(numbers: Sequence[Any]) -> str:
    """A row for each estimate; of two without a difference one is NumPy's mean, or there is one."""
    header = ["", "data", "ms", "scikit-learn, ms", "", "difference"]
    rows = []
    for name, n, d, ours, theirs, apart in numbers:
        ratio = 0.0 if theirs is None else theirs / ours
        shown = f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"
        beside = ("–", "") if theirs is None else (f"{theirs:.3g}", shown)
        difference = "–" if apart is None else f"{apart:.0e}"
        cells = f"{n:,} × {d}", f"{ours:.3g}", *beside, difference
        function, *rest = name.split(" ", 1)
        rows.append([" ".join([f"`{function}`", *rest]), *cells])
    return harness.table(header, rows)


def measured() -> Cells:
    """The sweep over dimensions in float32, by measure, dimension and library."""
    return {
        (c["measure"], c["dim"], c["library"]): c
        for c in harness.load("speed")["cells"]
        if c["sweep"] == "dim" and c["dtype"] == "float32" and not c["error"]
    }


def entries(cells: Cells, measure: str, dim: int) -> tuple[str, str]:
    """Milliseconds, and how many times faster than the fastest peer."""
    own = cells[measure, dim, "gaussjax"]["median"]
    peers = [cells.get((measure, dim, peer)) for peer in PEERS]
    ratio = min(peer["median"] for peer in peers if peer is not None) / own
    return f"{1e3 * own:.3g}", f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


if __name__ == "__main__":
    main()
