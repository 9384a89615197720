"""Tables of two columns, for the pages for those who come from another library.

Each row is an expression there and here. Both are evaluated, and a row that differs is an error, so
that a page that was built is true.
"""

from typing import Any

import jax
import numpy as np
from IPython.display import Markdown

Row = tuple[str, str, str]


def compare(
    names: dict[str, Any], library: str, rows: list[Row], tolerance: float = 1e-5
) -> Markdown:
    """A table of `(what, their expression, our expression)`; `names` are those of the page."""
    lines = [
        ":::{list-table}",
        ":header-rows: 1",
        ":widths: 16 42 42",
        ":class: side-by-side",
        "",
        f"* - \n  - {library}\n  - gaussjax",
    ]
    for what, theirs, ours in rows:
        apart = difference(eval(theirs, names), eval(ours, names))
        if not apart <= tolerance:
            raise AssertionError(f"{what}: {theirs} and {ours} differ by {apart}")
        lines.append(f"* - {what}\n  - {code(theirs)}\n  - {code(ours)}")
    return Markdown("\n".join([*lines, ":::"]))


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
