"""Markdown from measured cells."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import cells, harness
from benchmarks.cells import Data
from benchmarks.libraries import COPY, LIBRARIES, PEERS
from benchmarks.operations import TITLES, Row, is_gradient, operation_of

OURS, BY_HAND, NORMALS = "gaussjax", "jax by hand", "normals alone"
EXPLANATION = """\
Milliseconds: median ± half the interquartile range; jitted, compiled ahead. Factor: the fastest of
all others / gaussjax. Floor: gaussjax / a copy that reads and writes as many bytes as arguments and
results have, in the same run. "jax by hand" is the textbook formula in `jax.numpy`; what
`torch.distributions` lacks is written by hand too. A gradient is that of the sum of all values, for
arrays of half the sum of their squares, in all arguments.
"""
NPROC = "What hung was started again with NPROC=4, which hangs less on few cores.\n"


def markdown(data: Data, figures: Sequence[str] = ()) -> str:
    """Tables of each sweep, then facts about compiled programs, then what went wrong."""
    found: list[Data] = data["cells"]
    text = f"gaussjax at {', '.join(data['commits'])}. {EXPLANATION}"
    if any(cell["hangs"] for cell in found):
        text += NPROC
    if absent := [peer for peer in PEERS if all(cell["library"] != peer for cell in found)]:
        text += f"Not asked or not installed: {', '.join(absent)}.\n"
    if data.get("left"):
        text += f"**{data['left']} planned rows are not measured yet.**\n"
    text += "".join(f"\n![{figure}]({figure})\n" for figure in figures)
    headings = {
        "dim": f"B·d² = {data['work']:,}, float32",
        "float64": f"B·d² = {data['work']:,}, float64",
        "batch": "Against B, float32",
        "single": "One Gaussian alone, float32",
    }
    for sweep, heading in headings.items():
        if group := [cell for cell in found if cell["sweep"] == sweep]:
            text += f"\n## {heading}\n" + times(group)
    for sweep in ("dim", "single"):
        if group := [cell for cell in found if cell["sweep"] == sweep]:
            text += programs(group, headings[sweep])
    return text + problems(found)


def times(found: Sequence[Data]) -> str:
    """A table for each measure."""
    text = ""
    for measure, group in _by(found, lambda cell: cell["measure"]).items():
        present = {cell["library"] for cell in group}
        columns = [x for x in LIBRARIES if x in present and x != COPY]
        ratios = ["factor", "/ floor"] + (["/ normals"] if NORMALS in present else [])
        rows = []
        for row, members in sorted(_by(group, cells.row_of).items(), key=_order):
            of = {cell["library"]: cell for cell in members}
            texts = [cells.as_text(of[x]) if x in of else "" for x in columns]
            rows.append([row.size, *texts, *(_ratio(name, of) for name in ratios)])
        single = found[0]["batch"] is None
        table = harness.table(["d" if single else "B × d", *columns, *ratios], rows)
        text += f"\n### {title(measure)}\n\n{table}"
    return text


def programs(found: Sequence[Data], heading: str) -> str:
    """Compile time and the compiled program, beside distrax's."""
    forms: dict[str, Callable[[Data], str | None]] = {
        "Tracing and compiling, seconds": lambda cell: _format(cell.get("compile"), 1, ".2f"),
        "Temporary memory, MB": lambda cell: _format(cell.get("temporary_bytes"), 1e-6, ".3g"),
        "Choleskys + triangular solves called by the program": _calls,
    }
    text = f"\n## Programs: {heading}\n\ngaussjax / distrax, or where it has none, JAX by hand.\n"
    dims = sorted({cell["dim"] for cell in found})
    for name, form in forms.items():
        rows = []
        for measure, group in _by(found, lambda cell: cell["measure"]).items():
            of = {(cell["library"], cell["dim"]): cell for cell in group}
            texts = []
            for dim in dims:
                ours = of.get((OURS, dim), {})
                theirs = of.get(("distrax", dim), of.get((BY_HAND, dim), {}))
                pair = form(ours), form(theirs)
                texts.append("" if pair == (None, None) else " / ".join(x or "-" for x in pair))
            rows.append([title(measure), *texts])
        table = harness.table(["", *(f"d = {dim}" for dim in dims)], rows)
        text += f"\n### {name}\n\n{table}"
    return text


def problems(found: Sequence[Data]) -> str:
    """Errors, each with the cells that have it."""
    groups = _by([x for x in found if x["error"]], lambda cell: (cell["library"], cell["error"]))
    lines = []
    for (library, error), group in groups.items():
        where = ", ".join(f"{cell['measure']} {cells.row_of(cell).size}" for cell in group)
        lines.append(f"- {library}: {error} ({where})\n")
    return "\n## What failed\n\n" + "".join(lines) if lines else ""


def title(measure: str) -> str:
    name = TITLES[operation_of(measure)]
    return f"Gradient of {name}" if is_gradient(measure) else name


def fastest_other(of: dict[str, Data]) -> float | None:
    """The time of the fastest peer or hand-written version."""
    medians = [of[x]["median"] for x in (*PEERS, BY_HAND) if x in of and of[x]["median"]]
    return min(medians, default=None)


def _ratio(name: str, of: dict[str, Data]) -> str:
    ours = of.get(OURS, {}).get("median")
    if name == "factor":
        other = fastest_other(of)
        return f"**{other / ours:.2g}**" if ours and other else "-"
    base = of.get(COPY if name == "/ floor" else NORMALS, {}).get("median")
    return f"{ours / base:.3g}" if ours and base else "-"


def _calls(cell: Data) -> str | None:
    return f"{cell['choleskys']} + {cell['solves']}" if "choleskys" in cell else None


def _format(value: float | None, unit: float, form: str) -> str | None:
    return None if value is None else format(unit * value, form)


def _by(found: Sequence[Data], key: Callable[[Data], Any]) -> dict[Any, list[Data]]:
    groups: dict[Any, list[Data]] = {}
    for cell in found:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def _order(item: tuple[Row, Any]) -> tuple[int, int]:
    return item[0].dim, item[0].batch or 0
