"""The VAE example on many devices and in several processes: the same numbers, and no hang."""

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import WITHOUT_CACHE

from examples.vae import checkpoint, data, report
from examples.vae.__main__ import main
from examples.vae.config import Config
from examples.vae.train import make_trainer

ROOT = Path(__file__).parents[2]
ENDLESS = Config(epochs=100_000, eval_every=2, batch_size=256, hidden=8, latents=2, eval_samples=2)
LOST = "Another process of this run failed or was lost"

COLLECTIVES = """
import re
from examples.vae.config import Config
from examples.vae.data import digits
from examples.vae.devices import together
from examples.vae.train import make_trainer

config = Config(devices=2, hidden=8, latents=2)
with together(config):
    trainer = make_trainer(config, digits())
    text = trainer.epoch.lower(trainer.start()).compile().as_text()
names = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
print(*re.findall(rf"= .*? ({names})(?:-start)?\\(.*/while/body/", text))
"""


def rows(folder: Path) -> list[dict[str, float]]:
    found = report.read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in found]


def assert_same(got: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    """Equal but for the order of sums over a batch: some 6e-8 in each of some steps."""
    for a, b in zip(got, expected, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)


def python(*arguments: str) -> subprocess.Popen:
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | WITHOUT_CACHE
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def vae(config: Config) -> subprocess.Popen:
    """The example's own command line."""
    arguments = []
    for field in dataclasses.fields(Config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default:
            arguments += [flag] if value is True else [flag, str(value)]
    return python("-m", "examples.vae", *arguments)


def free_address() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def start_two():
    """Starts both processes of a run; what still runs is killed when the test ends."""
    started = []

    def start(config: Config, of_second: dict | None = None) -> list[subprocess.Popen]:
        first = dataclasses.replace(config, processes=2, coordinator=free_address(), patience=60)
        second = dataclasses.replace(first, process_id=1, **(of_second or {}))
        started.extend(vae(each) for each in (first, second))
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 150
    while len(rows(folder)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> Path:
    """A run in this process, on one device, that Ctrl-C stops in its fourth epoch."""
    folder = tmp_path_factory.mktemp("one")
    append = report.append_metrics

    def interrupting(*arguments, **row):
        append(*arguments, **row)
        if row["epoch"] == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "append_metrics", interrupting)
        main(dataclasses.replace(ENDLESS, out_dir=folder))
    return folder


def copy_until_epoch_2(run: Path, folder: Path) -> None:
    """What a run had left behind, had it been killed after its second epoch."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    for path in (folder / "checkpoints").iterdir():
        if path.name != "epoch_00000002":
            shutil.rmtree(path)
    report.drop_metrics_after(folder / "metrics.jsonl", 2)


def test_a_run_of_one_device_goes_on_on_eight_with_the_same_losses(one_device, tmp_path):
    copy_until_epoch_2(one_device, tmp_path)
    process = vae(dataclasses.replace(ENDLESS, out_dir=tmp_path, resume=True, devices=8))
    wait_for_rows(tmp_path, 4, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Resuming from epoch 2." in output
    assert_same(rows(tmp_path)[:4], rows(one_device))


def test_devices_that_share_a_batch_exchange_the_rate_and_the_gradients_alone():
    process = python("-c", COLLECTIVES)
    output, _ = process.communicate(timeout=120)
    assert output.split() == ["all-reduce", "all-reduce"]


def test_two_processes_give_the_losses_of_one_and_stop_together(one_device, tmp_path, start_two):
    config = dataclasses.replace(ENDLESS, out_dir=tmp_path)
    first, second = start_two(config)
    wait_for_rows(tmp_path, 4, first)
    second.send_signal(signal.SIGINT)
    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert ("Continue with --resume" in output) == (process is first)  # one of them speaks
    got = rows(tmp_path)
    assert [row["epoch"] for row in got] == list(range(1, len(got) + 1))
    assert_same(got[:4], rows(one_device))

    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {f"epoch_{len(got):08d}", f"epoch_{(len(got) - 1) // 2 * 2:08d}"}
    state = checkpoint.load_newest(tmp_path / "checkpoints", start_of(config))  # on one device
    assert int(state.epoch) == len(got)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_other_but_no_checkpoint(one_device, tmp_path, start_two, victim):
    copy_until_epoch_2(one_device, tmp_path)
    config = dataclasses.replace(ENDLESS, out_dir=tmp_path, resume=True)
    processes = start_two(config)
    wait_for_rows(tmp_path, 6, processes[0])
    processes[victim].kill()
    output, _ = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode != 0
    assert LOST in output.splitlines()[-1], output
    assert_same(rows(tmp_path)[:4], rows(one_device))  # a run of one went on in two
    state = checkpoint.load_newest(tmp_path / "checkpoints", start_of(config))
    assert int(state.epoch) >= 4


def test_a_process_waits_for_the_others_only_so_long(tmp_path):
    config = dataclasses.replace(
        ENDLESS, out_dir=tmp_path, processes=2, coordinator=free_address(), patience=3
    )
    process = vae(config)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Not all 2 processes met at 127.0.0.1" in output.splitlines()[-1]


def test_processes_with_different_settings_refuse_to_start(tmp_path, start_two):
    config = dataclasses.replace(ENDLESS, out_dir=tmp_path)
    for process in start_two(config, {"seed": 1}):
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "differ in more than --process-id" in output


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(SystemExit, match="multiple of the 6 devices that share a batch, got 64"):
        Config(devices=3, processes=2, coordinator="127.0.0.1:1")
    with pytest.raises(SystemExit, match="--coordinator HOST:PORT"):
        Config(processes=2)
    with pytest.raises(SystemExit, match="--process-id must be from 0 to 1, got 2"):
        Config(processes=2, process_id=2)
    with pytest.raises(SystemExit, match="'jax_num_cpu_devices', 64"):
        make_trainer(Config(devices=64), data.digits())


def start_of(config: Config):
    return make_trainer(config, data.digits()).start()
