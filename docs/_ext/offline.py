"""Pages that ask a network for nothing: MathJax from the environment, measurements in the site.

One file draws formulas as SVG, without fonts to fetch. After the build every page is read for
scripts, styles and pictures of another host; one of them fails it.

Links to `benchmarks/results/NAME.md`, which work where the repository is read, lead to the page
that includes it.
"""

import importlib.metadata
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

SCRIPT = "tex-svg.js"
MEASURED = re.compile(r"\]\((?:\.\./)+benchmarks/results/(\w+)\.md\)")
FETCHED = re.compile(
    r"""<(?:script|img|source|iframe)\b[^>]*\bsrc=["'](?:https?:)?//[^"']*"""
    r"""|<link\b(?![^>]*\brel=["'](?:canonical|search)["'])[^>]*\bhref=["'](?:https?:)?//[^"']*""",
    re.IGNORECASE,
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects all of it."""
    app.connect("config-inited", lambda app, config: setattr(config, "mathjax_path", SCRIPT))
    app.connect("source-read", to_included_pages)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def to_included_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to measurements, to their pages."""
    source[0] = MEASURED.sub(r"](/about/measured-\1.md)", source[0])


def finish(app: Sphinx, error: Exception | None) -> None:
    """Puts MathJax among the static files, and looks for what a browser would fetch elsewhere."""
    if error or app.builder.format != "html":
        return
    shutil.copyfile(mathjax(), Path(app.outdir, "_static", SCRIPT))
    fetched = [
        f"{path.relative_to(app.outdir)}: {match.group(0)}"
        for path in Path(app.outdir).rglob("*.html")
        for match in FETCHED.finditer(path.read_text())
    ]
    if fetched:
        raise SphinxError("A page needs a network:\n" + "\n".join(fetched))


def mathjax() -> Path:
    """The script, as the package sphinx-mathjax-offline ships it."""
    for file in importlib.metadata.files("sphinx-mathjax-offline") or ():
        if file.match(f"static/mathjax/{SCRIPT}"):
            return Path(str(file.locate()))
    raise SphinxError(f"sphinx-mathjax-offline has no {SCRIPT}")
