"""Whether this tree can be released: `make release-check`. Standard library only.

Everything is built and tried outside the checkout: the wheel that is made from the sdist, installed
into fresh environments of the newest Python and of the oldest one, with the tests of the sdist and
none of its code. With --dry-run the tree need not be clean, nor tagged, nor in the changelog, and
the site is not built.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_around.py", "test_batches.py", "test_errors.py", "test_programs.py")
SOURCES = {
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "gaussjax",
    "hatch_build.py",
    "pyproject.toml",
    "tests",
}
FOOTPRINT = (
    "cython_runtime",
    "jax",
    "jaxlib",
    "jaxtyping",
    "ml_dtypes",
    "numpy",
    "opt_einsum",
    "scipy",
)


def main() -> None:
    """Runs all checks, and stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="skip what a tag needs")
    parser.add_argument("--python", action="append", help="pythons to test, in place of two")
    parser.add_argument("tests", nargs="*", default=TESTS, help="files of tests/ to run")
    options = parser.parse_args()

    version = version_of((ROOT / "gaussjax/__init__.py").read_text())
    if not options.dry_run:
        step("the tree is clean, and tagged with its version")
        stop_if(uncommitted(run("git", "status", "--porcelain")))
        stop_if(wrong_tag(run("git", "tag", "--points-at", "HEAD").split(), version))
        step("the changelog and the citation know the version")
        stop_if(not_in_changelog((ROOT / "CHANGELOG.md").read_text(), version))
    stop_if(not_cited((ROOT / "CITATION.cff").read_text(), version))

    with tempfile.TemporaryDirectory(prefix="gaussjax-release-") as folder:
        out = Path(folder)
        step("sdist, and a wheel of it")
        run(sys.executable, "-m", "build", "--outdir", f"{out}/dist", str(ROOT))
        (wheel,), (sdist,) = (out / "dist").glob("*.whl"), (out / "dist").glob("*.tar.gz")
        step("metadata")
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        step("contents")
        stop_if(wrong_contents(zipfile.ZipFile(wheel).namelist()))
        with tarfile.open(sdist) as archive:
            stop_if(wrong_sources(archive.getnames()))
        tests = unpacked_tests(sdist, out)
        for python in options.python or pythons():
            step(f"import footprint and tests of the installed wheel with {python}")
            try_wheel(python, wheel, tests, options.tests, out)
    if not options.dry_run:
        step("the site")
        run("make", "docs", "ARGS=", show=True)
    print(f"gaussjax {version} can be released.")


# What has to hold: each returns the sentence for what does not ------------------------------------


def version_of(source: str) -> str:
    """`__version__` of the package's source."""
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    return found[1] if found else ""


def uncommitted(status: str) -> str:
    """Of `git status --porcelain`."""
    return f"The tree is not clean:\n{status}" if status.strip() else ""


def wrong_tag(tags: Sequence[str], version: str) -> str:
    """Of the tags of this commit."""
    wanted = f"v{version}"
    return "" if wanted in tags else f"This commit must have the tag {wanted}, got {list(tags)}."


def not_in_changelog(text: str, version: str) -> str:
    """A section with a date, and nothing left that is unreleased."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, text, re.MULTILINE):
        return f"CHANGELOG.md must have a section '## [{version}] - YYYY-MM-DD'."
    rest = text.partition("## [Unreleased]")[2].partition("\n## [")[0]
    return "CHANGELOG.md has notes under Unreleased." if "\n- " in rest else ""


def not_cited(text: str, version: str) -> str:
    """Of CITATION.cff."""
    right = re.search(rf"^version: {re.escape(version)}$", text, re.MULTILINE)
    return "" if right else f"CITATION.cff must say 'version: {version}'."


def wrong_contents(names: Sequence[str]) -> str:
    """Of a wheel: the package and its metadata, typed, with the licence, and no caches."""
    strange = [
        n for n in names if not re.match(r"gaussjax(-[^/]+\.dist-info)?/", n) or "__pycache__" in n
    ]
    wanted = ("gaussjax/py.typed", "licenses/LICENSE", "gaussjax/linalg/_kernels/native/kernels.cc")
    missing = [w for w in wanted if not any(n.endswith(w) for n in names)]
    if strange or missing:
        return f"The wheel has {strange}, which do not belong there, and lacks {missing}."
    return ""


def wrong_sources(names: Sequence[str]) -> str:
    """Of an sdist: what `SOURCES` lists, and nothing that was built or cached."""
    inside = [n.partition("/")[2] for n in names]
    strange = [
        n
        for n in filter(None, inside)
        if n.split("/")[0] not in SOURCES or "__pycache__" in n or n.endswith((".so", ".new"))
    ]
    missing = sorted(SOURCES - {n.split("/")[0] for n in inside})
    if strange or missing:
        return f"The sdist has {strange}, which do not belong there, and lacks {missing}."
    return ""


# Doing it ----------------------------------------------------------------------------------------


def pythons() -> list[str]:
    """This one, and the oldest that is supported, if there is one."""
    oldest = shutil.which("python3.11")
    if oldest is None:
        print("There is no Python 3.11 here: the oldest JAX is not tested.")
    return [sys.executable, *([oldest] if oldest else [])]


def unpacked_tests(sdist: Path, out: Path) -> Path:
    """The sdist without the package: tests that can only find the one that is installed."""
    with tarfile.open(sdist) as archive:
        archive.extractall(out / "sdist", filter="data")
    (folder,) = (out / "sdist").iterdir()
    shutil.rmtree(folder / "gaussjax")
    return folder


def try_wheel(python: str, wheel: Path, tests: Path, files: Sequence[str], out: Path) -> None:
    """Installs it into an environment of its own, imports it, and runs the tests."""
    home = Path(tempfile.mkdtemp(dir=out))
    if python == sys.executable:
        venv.create(home, with_pip=True)
    else:
        run(python, "-m", "venv", str(home))
    own = str(home / "bin/python")
    install = (own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, str(wheel))
    known = (*sys.stdlib_module_names, *FOOTPRINT, "gaussjax", "_virtualenv", "wadler_lindig")
    code = (
        "import sys; before = set(sys.modules); import gaussjax; "
        "print(gaussjax.__file__, *sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    where, *modules = run(own, "-c", code, cwd=out).split()
    stop_if("" if where.startswith(str(home)) else f"gaussjax was imported from {where}.")
    others = sorted(m for m in set(modules) - set(known) if not m.startswith("_"))
    stop_if(f"import gaussjax imports {others}, too." if others else "")
    run(*install, f"{wheel}[test]")
    paths = [f"tests/{name}" for name in files]
    run(own, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *paths, cwd=tests, show=True)


def run(*command: str, cwd: Path = ROOT, show: bool = False) -> str:
    """What a command prints; ends all where it fails, and says what it said."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")  # also of what builds
    done = subprocess.run(
        command, cwd=cwd, env=clean, text=True, check=False,
        stdout=None if show else subprocess.PIPE, stderr=None if show else subprocess.PIPE,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout or ''}{done.stderr or ''}")
    return done.stdout or ""


def step(sentence: str) -> None:
    """Says what comes."""
    print(f"\n== {sentence}", flush=True)


def stop_if(problem: str) -> None:
    """Ends with the sentence, if there is one."""
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    main()
