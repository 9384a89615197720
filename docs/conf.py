"""The site: `make docs` builds it without a network, and warnings are errors.

Every code cell is executed. What cells printed is kept until their page, the library or a version
changes: the folder of the cache is named by a digest of the last two.
"""

import hashlib
import importlib.metadata
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))


def digest() -> str:
    """Of all that decides what a cell prints, save the cell."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "gaussjax").rglob("*.py")):
        found.update(path.read_bytes())
    for name in ("jax", "jaxlib", "matplotlib"):
        found.update(importlib.metadata.version(name).encode())
    return found.hexdigest()[:16]


def stated_version() -> str:
    """The one in `gaussjax/__init__.py`, which is not imported for it."""
    source = (ROOT / "gaussjax" / "__init__.py").read_text()
    return source.split('__version__ = "')[1].split('"')[0]


project = "gaussjax"
author = "the authors of gaussjax"
copyright = author
version = release = stated_version()
html_title = "gaussjax"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_codeautolink",
    "sphinxcontrib.bibtex",
    "reference",  # _ext/reference.py
    "offline",  # _ext/offline.py
    "keywords",  # _ext/keywords.py
]
exclude_patterns = ["_ext", "_build"]
default_role = "code"
nitpicky = False

# Pages ------------------------------------------------------------------------------------------

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Cells ------------------------------------------------------------------------------------------

cells = digest()
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "docs-cells" / cells)
nb_execution_timeout = 300
nb_execution_raise_on_error = False  # a failed cell is a warning, which fails the build at its end
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "warn"  # a warning in a cell is one of the build
nb_render_markdown_format = "myst"
# A profile of the site's own, not the author's; kernels are not to talk of how they are reached.
profile = ROOT / "build" / "docs-ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("get_config().Application.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)
# Helpers of pages (_ext/side_by_side.py) are found by kernels.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "_ext"), os.environ.get("PYTHONPATH", "")])
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, of notebooks without widgets
# Tutorials compile much alike: what one has compiled the next one finds.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / "build" / "docs-programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

# The reference ----------------------------------------------------------------------------------

autodoc_typehints = "none"  # shapes are listed below each signature
autodoc_member_order = "bysource"
add_module_names = False
toc_object_entries = False
python_display_short_literal_types = True
codeautolink_concat_default = True  # a cell knows the imports of those above it
codeautolink_autodoc_inject = False

# Looks ------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": False,
    "navbar_persistent": [],  # the search field is beside the pages
}
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_search_scorer = str(HERE / "_static" / "scorer.js")
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
