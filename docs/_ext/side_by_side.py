"""Tables of two columns, for the pages for those who come from another library.

Each row is an expression there and here. Both are evaluated, and a row that differs is an error, so
that a page that was built is true. A library too large to install for this runs where it is found;
the line below its table says whether it was.
"""

import importlib.metadata
from typing import Any

import jax
import numpy as np
from IPython.display import Markdown

Row = tuple[str, str, str]


def compare(
    names: dict[str, Any],
    library: str,
    rows: list[Row],
    tolerance: float = 1e-5,
    *,
    optional: dict[str, str] | None = None,
    setup: str = "",
) -> Markdown:
    """A table of `(what, their expression, our expression)`; `names` are those of the page.

    `optional` packages may be absent: it has the version of each that the rows last ran with.
    `setup` is code of their side, which is shown above the table and run if they are there.
    """
    installed = versions(optional or {})
    here = None not in installed.values()
    theirs = dict(names)
    if here:
        exec(setup, theirs)
    lines = ["```python", setup.strip(), "```", ""] if setup else []
    lines += [
        ":::{list-table}",
        ":header-rows: 1",
        ":widths: 16 42 42",
        ":class: side-by-side",
        "",
        f"* - \n  - {library}\n  - gaussjax",
    ]
    for what, there, ours in rows:
        value = eval(ours, names)
        apart = difference(eval(there, theirs), value) if here else 0.0
        if not apart <= tolerance:
            raise AssertionError(f"{what}: {there} and {ours} differ by {apart}")
        lines.append(f"* - {what}\n  - {code(there)}\n  - {code(ours)}")
    lines.append(":::")
    if optional:
        found = ", ".join(f"{k} {v}" for k, v in (installed if here else optional).items())
        said = "Both columns ran" if here else "The right column ran; both last ran together"
        lines += ["", f"{said} with {found}."]
    return Markdown("\n".join(lines))


def versions(packages: dict[str, str]) -> dict[str, str | None]:
    """Of each package what is installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def difference(theirs: Any, ours: Any) -> float:
    """Largest difference of the arrays in two results, relative to one or more."""
    a = [np.asarray(x, float) for x in jax.tree.leaves(theirs)]
    b = [np.asarray(x, float) for x in jax.tree.leaves(ours)]
    if [x.shape for x in a] != [x.shape for x in b]:
        return float("inf")
    each = [np.abs(x - y) / (1 + np.abs(x)) for x, y in zip(a, b, strict=True)]
    return max((float(x.max(initial=0.0)) for x in each), default=0.0)


def code(text: str) -> str:
    """A block, indented as an entry of the table wants it."""
    return "\n    ".join(["```python", *text.splitlines(), "```"])
