"""Programs in a process of their own, where JAX sees eight devices."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# All eight are threads of this machine. If it is busy, one may come to a collective a minute late.
DEVICES = [
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
]
# Of a program from the cache on disk, devices may take the collectives in unlike orders, and wait
# for each other for ever (seen with jaxlib 0.10.2 and 0.12.0).
WITHOUT_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def on_eight_devices(*arguments: Any, timeout: float, flags: Sequence[str] = ()) -> str:
    """What Python prints, given these arguments."""
    given = [os.environ.get("XLA_FLAGS", ""), *DEVICES, *flags]
    settings = {"XLA_FLAGS": " ".join(given), "JAX_PLATFORMS": "cpu"} | WITHOUT_CACHE
    result = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | settings,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout
