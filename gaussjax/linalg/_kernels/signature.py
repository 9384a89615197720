"""What a kernel takes and gives, in one line: `"d d, d k -> d k, ()"`.

Sizes of axes have names, as in the annotations of jaxtyping; `()` is a number. A size that follows
from others is an expression of them, without spaces: `m+d`, `min(n,k)`. So shapes of results are
known without tracing the kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

Term = tuple[str, ...]
Shape = tuple[int, ...]


class Signature(NamedTuple):
    """Names or expressions of the sizes of each operand and each result."""

    operands: tuple[Term, ...]
    results: tuple[Term, ...]

    def shapes(self, operands: Sequence[Shape]) -> list[Shape]:
        """Of the results, for operands of these shapes."""
        sizes: dict[str, int] = {}
        for term, shape in zip(self.operands, operands, strict=True):
            sizes |= dict(zip(term, shape, strict=True))
        return [tuple(eval(x, {"min": min}, sizes) for x in term) for term in self.results]


def parsed(text: str) -> Signature:
    """The signature that is written so."""
    sides = (side.replace("()", "").split(", ") for side in text.split("->"))
    operands, results = (tuple(tuple(term.split()) for term in side) for side in sides)
    return Signature(operands, results)
