"""Processes with time limits, and the files that a measurement writes."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.libraries import PACKAGES

MEASURED = ("gaussjax", "jax", "jaxlib", "distrax", "tfp-nightly", "numpyro", "torch")
RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PATIENCE = 4.0  # with imports and compilers, which do not hang, times the limit of a call


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

    def pause(self) -> None:
        """Stops it until `go_on`: idle BLAS threads spin, and slow down the next process."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")


def answers(module: str, asked: Iterable[dict[str, Any]], limit: float) -> Iterator[dict[str, Any]]:
    """Each cell with what `python -m MODULE --child` says of it, a new process after a failure."""
    lines: Lines | None = None
    for cell in asked:
        lines = lines or Lines([sys.executable, "-m", module, "--child"])
        lines.write(json.dumps(cell))
        try:
            line = lines.read(limit)
            found = json.loads(line) if line else {"failed": "the process ended"}
        except Hung as error:
            found = {"failed": str(error)}
        if "failed" in found:
            lines.kill()
            lines = None
        yield {**cell, **found}
    if lines is not None:
        lines.kill()


def answer(measure: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """What a child of `answers` does."""
    for line in sys.stdin:
        try:
            found = measure(json.loads(line))
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(found), flush=True)


class Worker:
    """`benchmarks.worker` with one library. After a hang or a crash a new process is started.

    It is stopped between requests. `settings` are environment variables of the next process.
    """

    def __init__(self, library: str, *, limit: float, settings: dict[str, str] | None = None):
        self.settings = settings or {}
        self.command = [sys.executable, "-m", "benchmarks.worker", library]
        self._limit = limit
        self._lines: Lines | None = None

    def ask(self, command: str, *, patience: float = 1.0, **arguments: Any) -> Any:
        """The worker's answer, within the limit times `patience`.

        Raises:
            Hung: there was none within the limit.
            RuntimeError: the library raised an error, or the process ended.
        """
        lines = self._started()
        lines.go_on()
        lines.write(json.dumps([command, arguments]))
        answer = self._answer(lines, patience)
        lines.pause()
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        if self._lines is not None:
            self._lines.kill()
            self._lines = None

    def _started(self) -> Lines:
        if self._lines is None:
            self._lines = Lines(self.command, self.settings)
            self._answer(self._lines, PATIENCE)
        return self._lines

    def _answer(self, lines: Lines, patience: float) -> Any:
        try:
            line = lines.read(self._limit * patience)
        except Hung:
            self._lines = None
            raise
        if not line:
            self.close()
            raise RuntimeError("the process ended")
        return json.loads(line)


def installed(library: str) -> bool:
    return importlib.util.find_spec(PACKAGES.get(library, "jax")) is not None


def environment() -> dict[str, Any]:
    """The environment that the numbers depend on."""
    versions = {}
    for package in MEASURED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def device() -> str:
    """What JAX runs on, asked in another process so that this one does not hold the device."""
    code = "import jax; print(jax.devices()[0].device_kind)"
    env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return run.stdout.strip()


def commit() -> str:
    """Which sources of gaussjax were measured."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("diff", "HEAD", "--", "gaussjax")
    digest = f" with changes {zlib.crc32(changed.encode()):08x}" if changed else ""
    return (git("rev-parse", "--short", "HEAD") or "an unknown commit") + digest


def write(name: str, markdown: str, data: dict[str, Any]) -> None:
    """Prints the Markdown and writes it, and the data as JSON, to `benchmarks/results/`."""
    publish(name, markdown, {**environment(), **data})


def publish(name: str, markdown: str, data: dict[str, Any]) -> None:
    """As `write`, of data that tell their environment."""
    text = f"{markdown.rstrip()}\n\n{footer(data)}\n"
    save(name, data)
    path_of(name, "md").write_text(text)
    print(text)
    print(f"Written to {path_of(name, 'md')} and .json", file=sys.stderr)


def footer(env: dict[str, Any]) -> str:
    """The environment in one line."""
    versions = ", ".join(f"{package} {version}" for package, version in env["versions"].items())
    return f"{env['date']}, {env['device']}; {env['machine']}; Python {env['python']}; {versions}"


def save(name: str, data: dict[str, Any]) -> None:
    """Writes JSON atomically."""
    path, partial = path_of(name, "json"), path_of(name, "json.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(compact(data) + "\n")
    partial.replace(path)


def compact(data: dict[str, Any]) -> str:
    """JSON with a line for each entry, and for each item of a list."""
    lines = []
    for key, value in data.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(x) for x in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def load(name: str) -> dict[str, Any]:
    return json.loads(path_of(name, "json").read_text())


def path_of(name: str, suffix: str) -> Path:
    """A file among the results, or an absolute path as it is."""
    return RESULTS / f"{name}.{suffix}"


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
