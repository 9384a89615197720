"""Processes with time limits, and what is written down about a measurement."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.libraries import PACKAGES

MEASURED = ("gaussjax", "jax", "jaxlib", "distrax", "tfp-nightly", "numpyro", "torch")
RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


class Hung(Exception):
    """No answer within the time limit."""


class Lines:
    """A child process and the lines that it prints, with a limit on the wait for each."""

    def __init__(
        self, command: list[str], settings: dict[str, str] | None = None, *, quiet: bool = True
    ) -> None:
        # Several processes share an accelerator, so none may take all of its memory.
        env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **(settings or {})}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            cwd=ROOT,
            env=env,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the next read says
            print(line, file=self._process.stdin, flush=True)

    def read(self, limit: float) -> str:
        """The next line, or "" at the end."""
        try:
            return self._lines.get(timeout=limit)
        except queue.Empty:
            self.kill()
            raise Hung(f"no answer in {limit:.0f} s") from None

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


class Worker:
    """`benchmarks.worker` with one library. After a hang or a crash a new process is started.

    `settings` are environment variables of the next process.
    """

    def __init__(self, library: str, *, limit: float) -> None:
        self.settings: dict[str, str] = {}
        self._library, self._limit = library, limit
        self._lines: Lines | None = None

    def ask(self, command: str, **arguments: Any) -> Any:
        """The worker's answer.

        Raises:
            Hung: there was none within the limit.
            RuntimeError: the library raised an error, or the process ended.
        """
        lines = self._started()
        lines.write(json.dumps([command, arguments]))
        answer = self._answer(lines)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        if self._lines is not None:
            self._lines.kill()
            self._lines = None

    def _started(self) -> Lines:
        if self._lines is None:
            command = [sys.executable, "-m", "benchmarks.worker", self._library]
            self._lines = Lines(command, self.settings)
            self._answer(self._lines)
        return self._lines

    def _answer(self, lines: Lines) -> Any:
        try:
            line = lines.read(self._limit)
        except Hung:
            self._lines = None
            raise
        if not line:
            self.close()
            raise RuntimeError("the process ended")
        return json.loads(line)


def installed(library: str) -> bool:
    return importlib.util.find_spec(PACKAGES[library]) is not None


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    versions = {}
    for package in MEASURED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = subprocess.run(
        [
            sys.executable,
            "-c",
            "import jax; d = jax.devices()[0]; print(d.device_kind)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def write(name: str, markdown: str, data: dict[str, Any]) -> None:
    """Prints the Markdown and writes it, and the data as JSON, to `benchmarks/results/`."""
    env = environment()
    versions = ", ".join(f"{package} {version}" for package, version in env["versions"].items())
    head = f"{env['date']}, {env['device']}; {env['machine']}; Python {env['python']}; {versions}"
    text = f"{markdown.rstrip()}\n\n{head}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps({**env, **data}, indent=1) + "\n")
    print(text)
    print(f"Written to {RESULTS.relative_to(ROOT)}/{name}.md and .json", file=sys.stderr)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
