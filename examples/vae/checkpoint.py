"""Checkpoints by orbax, each with the checksums of its files, so that a load can be verified.

All processes of a run save and load together, in one folder that each of them sees; orbax makes
them wait for each other. The first alone lists, renames and deletes.
"""

import hashlib
import json
import shutil
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from examples.vae.train import State

KEEP = 2
MANIFEST = "checksums.json"


def save(folder: Path, state: State) -> Path:
    """Writes the state beside the older ones; it gets its name only once it is complete."""
    folder = folder.resolve()
    target = folder / f"epoch_{int(state.epoch):08d}"
    partial = folder / f"partial_{target.name}"
    first = jax.process_index() == 0
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (partial, target):
            shutil.rmtree(leftover, ignore_errors=True)
    ocp.save(str(partial), state._asdict())
    if first:
        _publish(partial, target)
    return target


def load_newest(folder: Path, like: State) -> State | None:
    """The newest checkpoint whose checksums match; prints a message if it skips one."""
    for path in _newest_first(folder.resolve()):
        problem = _problem(path)
        if problem is None:
            abstract = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
                like._asdict(),
            )
            return State(**ocp.load(str(path), abstract))
        print(f"Skipping the checkpoint {path.name}: {problem}.")
    return None


def _publish(partial: Path, target: Path) -> None:
    (partial / MANIFEST).write_text(json.dumps(_checksums(partial), indent=1))
    partial.rename(target)
    for old in _newest_first(target.parent)[KEEP:]:
        shutil.rmtree(old)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch_*"), reverse=True)


def _problem(path: Path) -> str | None:
    try:
        expected = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return "its list of checksums is missing or broken"
    found = _checksums(path)
    wrong = [name for name in expected if found.get(name) != expected[name]]
    return f"{wrong[0]} is damaged or missing" if wrong else None


def _checksums(path: Path) -> dict[str, str]:
    files = sorted(f for f in path.rglob("*") if f.is_file() and f.name != MANIFEST)
    return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
