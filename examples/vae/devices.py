"""One device or many, in one process or several, and what happens if a process is lost.

The devices share a batch; everything else is replicated. So a step has two sums over the devices,
of the rate and of the gradients, and results differ only by the order of those sums.
"""

import contextlib
import dataclasses
import hashlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from examples.vae.config import Config

T = TypeVar("T")

LATE = "Not all {0.processes} processes met at {0.coordinator} within {0.patience} seconds."
LOST = "Another process of this run failed or was lost: start all of them again with --resume."
FAILED = "This process failed, as said above; the others of this run end with it."
# Ends when this process has ended, for whatever reason.
HELPER = "import sys; sys.exit(sys.stdin.read().splitlines()[-1] or 0)"


@contextlib.contextmanager
def together(config: Config) -> Iterator[None]:
    """Requests devices and joins the other processes; if one is lost, this one ends too."""
    if config.devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started: it has the devices it has
            jax.config.update("jax_num_cpu_devices", config.devices)
    if config.processes == 1:
        yield
        return
    with last_words() as will_say:
        will_say(LATE.format(config))
        _join(config)
        will_say(LOST)
        _refuse_different_settings(config)
        yield
        multihost_utils.sync_global_devices("the run is complete")


def mesh(config: Config) -> Mesh:
    """The run's devices: as many of each process."""
    chosen = [d for i in range(config.processes) for d in jax.local_devices(i)[: config.devices]]
    if len(chosen) < config.devices * config.processes:
        raise SystemExit(
            f"--devices {config.devices} needs as many in each process, got {len(chosen)} in all. "
            "CPUs have as many as are asked for before JAX starts: "
            f"jax.config.update('jax_num_cpu_devices', {config.devices})."
        )
    return jax.make_mesh((len(chosen),), ("batch",), (AxisType.Auto,), devices=chosen)


def batch_sharding(config: Config) -> NamedSharding:
    """The first axis is sharded over the devices."""
    return NamedSharding(mesh(config), PartitionSpec("batch"))


def replicated(config: Config) -> NamedSharding:
    """Each device has all of it."""
    return NamedSharding(mesh(config), PartitionSpec())


def on_each(config: Config, tree: T) -> T:
    """Copies of arrays, which are the same in every process, on every device of the run."""
    sharding = replicated(config)

    def copies(x: jax.Array) -> jax.Array:
        value = np.array(x)
        return jax.make_array_from_callback(value.shape, sharding, lambda _: value)

    return jax.tree.map(copies, tree)


def on_one(tree: T) -> T:
    """The arrays of `on_each` as one device of this process has them."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def any_process(config: Config, flag: bool) -> bool:
    """Whether it is true in any process: a decision that all of them must share."""
    if config.processes == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


@contextlib.contextmanager
def last_words() -> Iterator[Callable[[str], None]]:
    """A function that sets the message to print if this process ends inside.

    The failure of another process raises here (a gloo connection broke), or ends this one from C++
    before Python can react (the coordinator is gone, or a process hangs). So a helper outlives this
    process, to print the message in either case.
    """
    command = [sys.executable, "-ISc", HELPER]
    # In a session of its own, so that Ctrl-C does not end it.
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def will_say(words: str) -> None:
        print(words, file=helper.stdin, flush=True)

    try:
        yield will_say
    except BaseException as error:
        if isinstance(error, SystemExit | KeyboardInterrupt):
            will_say(str(error))
        elif "Gloo" not in str(error):
            traceback.print_exc()
            will_say(FAILED)
        sys.stdout.flush()
        # The usual exit waits for the other processes, which may wait for this one. The helper
        # prints once this process is gone: JAX's own threads may still print.
        os._exit(1)
    will_say("")
    helper.communicate()


def _join(config: Config) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is to end a process
    jax.distributed.initialize(
        config.coordinator,
        config.processes,
        config.process_id,
        cluster_detection_method="deactivate",
        coordinator_bind_address=config.coordinator,  # the default is every address of the machine
        initialization_timeout=config.patience,
        heartbeat_timeout_seconds=config.patience,
        shutdown_timeout_seconds=config.patience,
    )


def _refuse_different_settings(config: Config) -> None:
    """Processes that compile different programs would deadlock."""
    same = dataclasses.replace(config, process_id=0, data_dir=None)
    digest = np.frombuffer(hashlib.sha256(repr(same).encode()).digest(), np.uint8)
    if len(np.unique(multihost_utils.process_allgather(digest), axis=0)) > 1:
        raise SystemExit("The processes differ in more than --process-id and --data-dir.")
