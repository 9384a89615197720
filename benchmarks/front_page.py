"""The README's tables of speed, from the results of `make bench`.

python -m benchmarks.front_page
"""

from collections.abc import Sequence
from typing import Any

from benchmarks import harness
from benchmarks.operations import COARSE

PEERS = ("jax by hand", "distrax", "tfp", "numpyro", "torch")
TABLES = (
    {
        "KL": "kl", "its gradient": "kl_gradient", "`log_prob`": "log_prob",
        " its gradient": "log_prob_gradient", "`sample`": "sample",
    },
    {
        "`condition`": "condition", "its gradient": "condition_gradient",
        "`observe`": "observe", " its gradient": "observe_gradient",
        "`cholesky`": "cholesky", "  its gradient": "cholesky_gradient",
    },
    {"points": "likelihood", "their gradient": "likelihood_gradient"},
)  # fmt: skip


def main() -> None:
    """Prints them: milliseconds, and how many times faster than the fastest peer."""
    data = harness.load("speed")
    cells = {
        (c["measure"], c["dim"], c["library"]): c
        for c in data["cells"]
        if c["sweep"] == "dim" and c["dtype"] == "float32" and not c["error"]
    }
    for columns in TABLES:
        header = ["B × d", *(x for name in columns for x in (name.strip(), ""))]
        print(harness.table(header, [row(cells, d, list(columns.values())) for d in COARSE]))
        print()


def row(cells: dict[tuple[str, int, str], Any], dim: int, measures: Sequence[str]) -> list[str]:
    """One size: the batch, and two entries for each measure."""
    own = [cells[measure, dim, "gaussjax"] for measure in measures]
    entries = [f"{own[0]['batch']:,} × {dim}"]
    for cell in own:
        peers = [cells.get((cell["measure"], dim, peer)) for peer in PEERS]
        best = min(peer["median"] for peer in peers if peer is not None)
        ratio = best / cell["median"]
        entries += [
            f"{1e3 * cell['median']:.3g}",
            f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×",
        ]
    return entries


if __name__ == "__main__":
    main()
