"""The command line: train, report, resume; Ctrl-C saves and stops.

Every process of a run starts here. All compute; only the first writes and prints.
"""

import json
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from examples.vae import checkpoint, devices, report
from examples.vae.config import EVALUATION, WHERE, Config
from examples.vae.data import Dataset, load
from examples.vae.objective import Evaluation
from examples.vae.train import State, Trainer, make_trainer


class Interrupt:
    """Ctrl-C asks for a stop at the end of the epoch; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def main(config: Config) -> Evaluation | None:
    """Trains, and reports; the figures of the test set, if all epochs are done."""
    with devices.together(config):
        return _run(config)


def _run(config: Config) -> Evaluation | None:
    console = Console(quiet=not config.first)
    data = load(config.data, config.data_dir)
    trainer = make_trainer(config, data)
    if config.dry_run:
        _describe(config, trainer, data, console)
        return None
    config.out_dir.mkdir(parents=True, exist_ok=True)
    state = _first_state(config, trainer, console)
    if config.first:
        _write_config(config)
    state = _train(config, trainer, state, console)
    if int(state.epoch) < config.epochs:
        console.print(f"Stopped after epoch {int(state.epoch)}. Continue with --resume.")
        return None
    return _report(config, trainer, state, data, console)


def _describe(config: Config, trainer: Trainer, data: Dataset, console: Console) -> None:
    """Says what a run would do. The first of two epochs compiles, the second is timed."""
    state, _ = trainer.epoch(trainer.start())
    begin = time.perf_counter()
    state = jax.block_until_ready(trainer.epoch(state)[0])
    seconds = time.perf_counter() - begin
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    steps = len(data.train) // config.batch_size
    console.print(report.protocol(config, data))
    console.print(f"{parameters:,} parameters; {steps} steps an epoch")
    console.print(
        f"{seconds:.2f} s an epoch: about {config.epochs * seconds / 60:.1f} minutes for all, "
        "without evaluations. Nothing was written."
    )


def _first_state(config: Config, trainer: Trainer, console: Console) -> State:
    start = trainer.start()
    if config.resume:
        if config.first:
            _refuse_other_settings(config)
        state = checkpoint.load_newest(_checkpoints(config), start)
        if state is not None:
            console.print(f"Resuming from epoch {int(state.epoch)}.")
            if config.first:
                report.drop_metrics_after(_metrics(config), int(state.epoch))
            return state
        console.print("No good checkpoint to resume from: starting afresh.")
    if config.first:
        _forget_run(config)
    return start


def _forget_run(config: Config) -> None:
    shutil.rmtree(_checkpoints(config), ignore_errors=True)  # of another run: not to be resumed
    _metrics(config).unlink(missing_ok=True)


def _train(config: Config, trainer: Trainer, state: State, console: Console) -> State:
    interrupt = Interrupt()
    with Progress(console=console) as progress:
        task = progress.add_task("compiling", total=config.epochs, completed=int(state.epoch))
        last = int(state.epoch) >= config.epochs
        while not last:
            begin, cpu_begin = time.perf_counter(), time.process_time()
            state, metrics = trainer.epoch(state)
            epoch = int(state.epoch)  # waits for the device
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
            asked = devices.any_process(config, interrupt.asked)
            last = epoch == config.epochs or asked  # read once: what stops is saved
            if int(metrics.consecutive_skipped) >= config.max_bad_batches:
                raise SystemExit(
                    f"Gradients of the last {int(metrics.consecutive_skipped)} batches were not "
                    f"finite (epoch {epoch}): giving up. Try a smaller --learning-rate."
                )
            row = {name: float(value) for name, value in metrics._asdict().items()}
            row |= {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
            if epoch % config.eval_every == 0 or last:
                result = trainer.evaluate(state)
                row |= {f"test_{name}": float(x) for name, x in result._asdict().items()}
                checkpoint.save(_checkpoints(config), state)
            if config.first:
                report.append_metrics(_metrics(config), epoch=epoch, **row)
            loss = row["distortion"] + row["rate"]
            text = f"−ELBO {loss:.2f} = {row['distortion']:.2f} + {row['rate']:.2f} (rate)"
            progress.update(task, completed=epoch, description=text)
    return state


def _report(
    config: Config, trainer: Trainer, state: State, data: Dataset, console: Console
) -> Evaluation:
    result = trainer.evaluate(state, config.samples_at_end)
    if config.first:
        metrics = report.read_metrics(_metrics(config))
        report.save_pictures(config.out_dir, trainer.model(state), data, metrics)
    report.print_table(console, result, config, data)
    console.print(f"Pictures, metrics and checkpoints are in {config.out_dir}/")
    return result


def _write_config(config: Config) -> None:
    (config.out_dir / "config.json").write_text(json.dumps(_values(config), indent=1))


def _refuse_other_settings(config: Config) -> None:
    """A run must resume as it began; only paths, machines and the evaluation may change."""
    path = config.out_dir / "config.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    free = {"out_dir", "data_dir", "resume", "dry_run", *EVALUATION, *WHERE}
    for name, value in _values(config).items():
        if name not in free and saved.get(name, value) != value:
            flag = f"--{name.replace('_', '-')}"
            raise SystemExit(f"--resume needs {flag} {saved[name]} as before, got {value}.")


def _values(config: Config) -> dict[str, Any]:
    return {name: str(x) if isinstance(x, Path) else x for name, x in vars(config).items()}


def _checkpoints(config: Config) -> Path:
    return config.out_dir / "checkpoints"


def _metrics(config: Config) -> Path:
    return config.out_dir / "metrics.jsonl"


if __name__ == "__main__":
    main(tyro.cli(Config))
