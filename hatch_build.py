"""Builds the native kernels into the wheel, where there is a C++ compiler; else a pure wheel."""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("gaussjax/linalg/_kernels/native")


class CustomBuildHook(BuildHookInterface):
    """What `pyproject.toml` names as the hook of wheels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and names the platform in the wheel's tag: the library has no Python in it."""
        folder = Path(self.root) / FOLDER
        spec = importlib.util.spec_from_file_location("build_kernels", folder / "build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if failure := module.build(folder):
            self.app.display_warning(f"gaussjax is installed without native kernels: {failure}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(str(FOLDER / module.LIBRARY))
