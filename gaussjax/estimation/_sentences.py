"""The sentences of estimation, as `gaussjax._errors` has those of all the rest."""

import math
from typing import Any

from gaussjax import _errors


def one_per_row(name: str, shape: tuple[int, ...], count: int) -> None:
    """Refuses weights, or a mask, that are not one for each row of data."""
    if shape[-1] != count:
        raise ValueError(
            f"{name} must have {count} entries along the last axis, one for each row of the data, "
            f"got shape {shape}."
        )


def none_with_moments(**options: Any) -> None:
    """Refuses options about rows if moments are given, which have none."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} is for rows of data: give it to gaussjax.moments instead.")


def no_fourth_moments() -> ValueError:
    """The sentence for moments of second order where those of fourth order are needed."""
    return ValueError(
        "data must carry fourth moments here: make them by gaussjax.moments(x, fourth=True)."
    )


def no_estimate(structure: Any, known: tuple[type, ...]) -> TypeError:
    """The sentence for a structure that cannot be fitted."""
    got = getattr(structure, "__name__", repr(structure))
    names = ", ".join(t.__name__ for t in known)
    return TypeError(f"structure must be one of {names}, got {got}.")


def option_missing(structure: str, option: str) -> TypeError:
    """The sentence for a structure that needs to be told more."""
    return TypeError(f"{structure} needs {option}: give {option}=... to fit.")


def no_such_option(structure: str, option: str) -> TypeError:
    """The sentence for an option that the structure has no use for."""
    return TypeError(f"{structure} has no use for {option}: leave it out.")


def no_derivatives(what: str) -> TypeError:
    """The sentence for an estimate that cannot be differentiated."""
    return TypeError(
        f"{what} has no derivatives: give it jax.lax.stop_gradient of what is differentiated."
    )


def part_sizes(structure: str, sizes: Any, dim: int) -> tuple[int, ...]:
    """Sizes of blocks, which add up to the dimension, or of factors, which multiply to it."""
    if not isinstance(sizes, tuple | list) or not sizes:
        raise TypeError(f"sizes must be a tuple of integers, got {sizes!r}.")
    found = tuple(_errors.dimension("sizes", n) for n in sizes)
    is_product = structure == "Kronecker"
    if (math.prod(found) if is_product else sum(found)) != dim or min(found) == 0:
        how = "multiply to" if is_product else "add up to"
        raise ValueError(f"sizes must be positive and {how} the dimension {dim}, got {found}.")
    return found


def rank_below(name: str, value: Any, dim: int) -> int:
    """A static size that is below the dimension."""
    found = _errors.dimension(name, value)
    if found > max(dim - 1, 0):
        raise ValueError(f"{name} must be below the dimension {dim}, got {found}.")
    return found


def enough_rows(structure: str, shape: tuple[int, ...], needed: int) -> None:
    """Refuses data with too few rows for an estimate."""
    if shape[-2] < needed:
        raise ValueError(
            f"data must have at least {needed} rows for {structure} of dimension {shape[-1]}, got "
            f"shape {shape}."
        )
