"""The reference: a page for each public name, from its docstring, and a table for each group.

What is public, and how it is grouped, `gaussjax/__init__.py` says: names of `__all__` under their
comments, the modules among them, and the adapters. A name without a docstring fails the build.

Docstrings are written as plain text with single backticks around code. Here they become
reStructuredText, in which `|`, `*` and a last `_` would mean something else.
"""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, NamedTuple

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

FOLDER = "reference"
WITH_MEMBERS = ("Covariance", "Gaussian", "AutoGaussian", "Bounded", "Exp", "Softplus")
COST = re.compile(r"\s+(O\([^)]*\)(?: to O\([^)]*\))?[^.]*)$")


class Group(NamedTuple):
    """Public names of one module, under one title."""

    title: str
    module: str
    names: list[str]

    @property
    def slug(self) -> str:
        """Name of the group's page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before Sphinx looks for pages, and reads docstrings first."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("autodoc-process-docstring", to_restructured_text, priority=100)
    app.connect("autodoc-process-signature", with_short_defaults)
    app.add_config_value("cells", "", "env")  # a changed library is read, and run, again
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# What is public ---------------------------------------------------------------------------------


def groups() -> list[Group]:
    """All groups: of the package, of its public modules, of the adapters, of plots."""
    package = importlib.import_module("gaussjax")
    found, modules = [], []
    for title, names in titled_names(Path(str(package.__file__)).read_text()):
        values = [name for name in names if not inspect.ismodule(getattr(package, name))]
        modules += [getattr(package, name) for name in names if name not in values]
        if values:
            found.append(Group(title, "gaussjax", values))
    adapters = importlib.import_module("gaussjax.adapters")
    modules += [importlib.import_module(f"gaussjax.{name}") for name in ("covariances", "plots")]
    modules += [
        importlib.import_module(f"gaussjax.adapters.{module.name}")
        for module in pkgutil.iter_modules(adapters.__path__)
        if not module.name.startswith("_")
    ]
    listed = [getattr(package, name) for group in found for name in group.names]
    return found + [group for module in modules for group in of_module(module, listed)]


def titled_names(source: str) -> Iterator[tuple[str, list[str]]]:
    """Names of `__all__`, and the comment above each run of them."""
    title, names = "", []
    for line in source.split("__all__ = [")[1].split("]")[0].splitlines():
        if line.strip().startswith("#"):
            if names:
                yield title, names
            title, names = line.strip("# "), []
        elif line.strip():
            names.append(line.strip('", '))
    yield title, names


def of_module(module: ModuleType, listed: list[Any]) -> list[Group]:
    """A public module's own names that are not listed yet, and a group for each module in it."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
    inner = [getattr(module, n) for n in names if inspect.ismodule(getattr(module, n))]
    known = [*listed, *inner]
    own = [n for n in names if not any(getattr(module, n) is value for value in known)]
    return [Group(f"gaussjax.{called(module.__name__)}", module.__name__, own)] + [
        group for part in inner for group in of_module(part, listed)
    ]


def called(module: str) -> str:
    """What users write after `gaussjax.`: `student_t` is where `gaussjax/__init__.py` puts it."""
    return module.removeprefix("gaussjax.").removeprefix("estimation.")


# Pages ------------------------------------------------------------------------------------------


def write_pages(app: Sphinx) -> None:
    """One page a name, one a group, and the page that lists the groups."""
    folder = Path(app.srcdir, FOLDER)
    pages: dict[str, str] = {}
    everything = groups()
    missing = [
        f"{group.module}.{name}"
        for group in everything
        for name in undocumented(importlib.import_module(group.module), group.names)
    ]
    if missing:
        raise SphinxError("Public names without a docstring: " + ", ".join(missing))
    for group in everything:
        module = importlib.import_module(group.module)
        for name in group.names:
            pages[f"names/{group.module}.{name}.rst"] = page_of_name(group.module, name, module)
        pages[f"{group.slug}.rst"] = page_of_group(group, module)
    pages["index.rst"] = page_of_groups(everything)
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:  # else Sphinx would read all again
            path.write_text(text)
    for path in folder.rglob("*.rst"):
        if str(path.relative_to(folder)) not in pages:
            path.unlink()


def undocumented(module: ModuleType, names: list[str]) -> Iterator[str]:
    """Names, and public methods that their classes define, that say nothing of themselves."""
    for name in names:
        value = getattr(module, name)
        if not described(value):
            yield name
        if inspect.isclass(value) and value.__module__.startswith("gaussjax"):
            fields = getattr(value, "__dataclass_fields__", {})  # whose defaults may be functions
            for member, attribute in vars(value).items():
                if member in fields:
                    continue
                is_own = inspect.isfunction(attribute) or isinstance(attribute, property)
                if is_own and not member.startswith("_") and not inspect.getdoc(attribute):
                    inherited = any(getattr(b, member, None) for b in value.__mro__[1:])
                    if not inherited:
                        yield f"{name}.{member}"


def described(value: Any) -> str:
    """The docstring, unless it is the one that Python writes for a class of fields."""
    if isinstance(value, UnionType):
        return f"One of {', '.join(f'`{part.__name__}`' for part in typing.get_args(value))}."
    text = inspect.getdoc(value) or ""
    name = getattr(value, "__name__", "")
    return "" if text.startswith((f"{name}(", "Alias for field", "Create new instance")) else text


def page_of_name(module: str, name: str, where: ModuleType) -> str:
    """The whole docstring."""
    value = getattr(where, name)
    lines = title(name if module == "gaussjax" else f"{called(module)}.{name}")
    if isinstance(value, UnionType):
        lines += [plain(described(value))]
    elif inspect.isclass(value):
        lines += [f".. autoclass:: {module}.{name}"]
        if name in WITH_MEMBERS:
            lines += ["   :members:"]
    else:
        lines += [f".. autofunction:: {module}.{name}"]
    if module == "gaussjax":
        lines = [*lines, "", f"In the group :doc:`/{FOLDER}/{slug_of(name)}`."]
    return "\n".join(lines) + "\n"


def slug_of(name: str) -> str:
    """The group of a public name of the package."""
    return next(g.slug for g in groups() if g.module == "gaussjax" and name in g.names)


def page_of_group(group: Group, module: ModuleType) -> str:
    """A table: the name, its first sentence, its cost."""
    lines = title(group.title)
    if group.module != "gaussjax":
        first = described(module).split("\n\n")[0].replace("\n", " ")
        lines += [plain(first), ""]
    lines += [".. list-table::", "   :widths: 30 55 15", "   :header-rows: 1", ""]
    lines += ["   * - name", "     - what it is", "     - cost"]
    for name in group.names:
        summary = described(getattr(module, name)).split("\n\n")[0].replace("\n", " ")
        cost = COST.search(summary)
        lines += [
            f"   * - :doc:`{name} </{FOLDER}/names/{group.module}.{name}>`",
            f"     - {plain(COST.sub('', summary))}",
            f"     - {plain(cost.group(1)) if cost else ''}",
        ]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [f"   {name} <names/{group.module}.{name}>" for name in group.names]
    return "\n".join(lines) + "\n"


def page_of_groups(everything: list[Group]) -> str:
    """Where to look."""
    lines = title("API reference")
    lines += [
        "Every public name. Names are those of ``import gaussjax as gj``; a module's are under its",
        "own name. Leading axes of every argument are batch and broadcast.",
        "",
    ]
    for group in everything:
        lines += [f":doc:`{group.title} <{group.slug}>`"]
        links = [f":doc:`{n} <names/{group.module}.{n}>`" for n in group.names]
        lines += ["   " + ", ".join(links), ""]
    lines += [".. toctree::", "   :hidden:", ""]
    lines += [f"   {group.slug}" for group in everything]
    return "\n".join(lines) + "\n"


def title(text: str) -> list[str]:
    """A heading."""
    return [text, "=" * len(text), ""]


# Docstrings -------------------------------------------------------------------------------------


def to_restructured_text(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Escapes what is prose, and lists the shapes of arguments and result."""
    inside = False
    for i, line in enumerate(lines):
        inside = bool(line.strip()) and (inside or line.lstrip().startswith(">>>"))
        if not inside:
            lines[i] = plain(line)
    after = ("Raises:", "Source:", ">>>")
    first = next((i for i, line in enumerate(lines) if line.lstrip().startswith(after)), None)
    shapes = shapes_of(value) if what == "function" else []
    if shapes:
        where = len(lines) if first is None else first
        lines[where:where] = ["", *shapes, ""]


def with_short_defaults(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, result: Any
) -> tuple[str, Any] | None:
    """A class that is a default by its name, as it is written in the code."""
    if not signature:
        return None
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature), result


def plain(line: str) -> str:
    """A line of prose: code stays as it is, and nothing else is markup."""
    parts = re.split(r"(`+[^`]*`+)", line)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{part.strip('`')}``"
            if i + 1 < len(parts) and parts[i + 1][:1].isalnum():
                parts[i] += "\\ "
        else:
            parts[i] = re.sub(r"([|*\\])|_(?=\W|$)", r"\\\g<0>", part)
    return "".join(parts)


def shapes_of(function: Any) -> list[str]:
    """What each argument is, as its annotation says, without the modules' names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    lines = [
        f":param {p.name}: ``{annotation(p.annotation)}``"
        for p in signature.parameters.values()
        if p.annotation is not p.empty
    ]
    if signature.return_annotation not in (signature.empty, None):
        lines += [f":returns: ``{annotation(signature.return_annotation)}``"]
    return lines


def annotation(value: Any) -> str:
    """As it is written in the code."""
    if value is type(None) or value is None:
        return "None"
    if typing.get_origin(value) is typing.Annotated:
        return f"{annotation(value.__origin__)} in {value.__metadata__[0]} dimensions"
    if hasattr(value, "array_type"):
        return f'{value.dtype.__name__}[Array, "{value.dim_str}"]'
    if isinstance(value, type) and not typing.get_args(value):
        return value.__name__
    arguments = typing.get_args(value)
    if arguments and " | " in str(value):
        return " | ".join(map(annotation, arguments))
    return re.sub(r"\b(?:[A-Za-z_]+\.)+(?=[A-Za-z_])", "", str(value))
