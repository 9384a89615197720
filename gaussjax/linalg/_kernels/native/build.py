"""Builds the library of native kernels with the C++ compiler that is there; Python alone.

python gaussjax/linalg/_kernels/native/build.py
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIBRARY = "libgaussjax.so"

# No -ffast-math: its start-up code would flush subnormals in the whole process.
FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
    "-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-warning-option",
)  # fmt: skip
LEVELS = {"baseline": (), "v3": ("-march=x86-64-v3",), "v4": ("-march=x86-64-v4",)}


def sources() -> str:
    """What tells one state of the sources from another."""
    paths = sorted(p for p in Path(__file__).parent.rglob("*") if p.suffix in (".cc", ".h"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()[:16]


def build(to: Path, *more: str) -> str:
    """Writes the library into the folder `to`; returns why it could not, or "".

    `more` are further options of the compiler and the linker, such as -fsanitize=address.
    """
    compiler = next(filter(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++")), "")
    if sys.platform not in ("linux", "darwin"):
        return f"{sys.platform} takes the plain path"
    if not compiler:
        return "there is no C++ compiler"
    folder_of_sources = Path(__file__).parent
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    levels = LEVELS if is_x86 else {"baseline": ()}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            (
                f"{level}.o",
                ["-DGAUSSJAX_LEVEL=" + level, *flags, str(folder_of_sources / "kernels.cc")],
            )
            for level, flags in levels.items()
        ]
        defined = [f'-DGAUSSJAX_SOURCES="{sources()}"', *["-DGAUSSJAX_X86"][: int(is_x86)]]
        jobs.append(("call.o", [*defined, str(folder_of_sources / "call.cc")]))
        objects = [str(Path(folder) / name) for name, _ in jobs]
        commands = [
            [compiler, *FLAGS, *more, *arguments, "-c", "-o", path]
            for path, (_, arguments) in zip(objects, jobs, strict=True)
        ]
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_run, commands))
            whole = Path(folder) / LIBRARY
            _run([compiler, "-shared", *more, "-o", str(whole), *objects])
            shutil.copyfile(whole, to / (LIBRARY + ".new"))
            os.replace(to / (LIBRARY + ".new"), to / LIBRARY)  # processes may have the old one open
        except subprocess.CalledProcessError as failure:
            return f"{compiler} failed:\n{failure.stderr}"
        except OSError as failure:
            return f"{compiler} cannot build here: {failure}"
    return ""


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    # A warning is an error here, and not where users install with a compiler of their own.
    sys.exit(build(Path(__file__).parent, "-Werror", *sys.argv[1:]) or 0)
