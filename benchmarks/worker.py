"""A process that holds one library, and times or evaluates it on request.

Commands come as JSON lines on standard input, answers go as JSON lines to standard output:
`offers` names the library's operations; `prepare` compiles a measure ahead of time, `warm` calls
it, `round` times calls, `forget` frees the memory; `evaluate` gives values on the arrays of a file.
"""

import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import libraries
from benchmarks.operations import inputs, is_gradient, operation_of

CALLS = 50  # at most in a round


class Library:
    """One library and the last measure that was prepared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.operations = libraries.LIBRARIES[name]()
        self.call: Callable[[], Any] = lambda: None

    def offers(self) -> list[str]:
        """Operations that it has."""
        return list(self.operations)

    def prepare(self, measure: str, batch: int | None, dim: int, dtype: str) -> dict[str, Any]:
        """Facts about the compiled program."""
        arrays = inputs(measure, batch, dim, dtype)
        if self.name == "torch":
            self.call = self._torch(measure, arrays)
            return {}
        self.call, facts = self._jax(measure, arrays)
        return facts

    def warm(self) -> None:
        self.call()

    def round(self, seconds: float) -> list[float]:
        """Times of the calls that fit into that many seconds, at least one."""
        times: list[float] = []
        while not times or (sum(times) < seconds and len(times) < CALLS):
            start = time.perf_counter()
            self.call()
            times.append(time.perf_counter() - start)
        return times

    def forget(self) -> None:
        self.call = lambda: None

    def evaluate(self, measure: str, path: str) -> list[list[float]]:
        """Values of a measure, or of each gradient, as flat lists."""
        with np.load(path) as file:
            arrays = [file[name] for name in file.files]
        torch = self.name == "torch"
        result = (self._torch(measure, arrays) if torch else self._jax(measure, arrays)[0])()
        parts = result if isinstance(result, tuple) else (result,)
        return [np.asarray(part, np.float64).ravel().tolist() for part in parts]

    def _function(self, measure: str, arrays: list[np.ndarray], gradient: Any) -> Any:
        function = self.operations[operation_of(measure)]
        return gradient(measure, function, len(arrays)) if is_gradient(measure) else function

    def _jax(
        self, measure: str, arrays: list[np.ndarray]
    ) -> tuple[Callable[[], Any], dict[str, Any]]:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", arrays[0].dtype == np.float64)
        function = self._function(measure, arrays, libraries.jax_gradient)
        args = [jnp.asarray(x) for x in arrays]
        if operation_of(measure) == "sample":
            args.append(jax.random.key(0))
        if self.name == libraries.COPY:
            function, args = jnp.negative, [half_of_all(function, args)]
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*args).compile()
        seconds = time.perf_counter() - start
        return lambda: jax.block_until_ready(compiled(*args)), facts(compiled, seconds)

    def _torch(self, measure: str, arrays: list[np.ndarray]) -> Callable[[], Any]:
        import torch  # pyright: ignore[reportMissingImports]  # optional

        device = "cuda" if torch.cuda.is_available() else "cpu"
        args: list[Any] = [torch.as_tensor(x, device=device) for x in arrays]
        function = self._function(measure, arrays, libraries.torch_gradient)
        if operation_of(measure) == "sample":
            args.append(None)  # torch has a state instead of keys

        def call() -> Any:
            result = function(*args)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return call


def half_of_all(function: Callable[..., Any], args: list[Any]) -> Any:
    """Half the bytes of arguments and results: copying it reads and writes as many bytes."""
    import jax
    import jax.numpy as jnp

    leaves = jax.tree.leaves((args, jax.eval_shape(function, *args)))
    sizes = [x.size for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.zeros(max(1, sum(sizes) // 2), args[0].dtype)


def facts(compiled: Any, seconds: float) -> dict[str, Any]:
    """Seconds of tracing and compiling, bytes, and LAPACK or other library calls."""
    memory = compiled.memory_analysis()
    targets = re.findall(r'custom_call_target="([^"]*)"', compiled.as_text() or "")

    def count(pattern: str) -> int:
        return sum(bool(re.search(pattern, target, re.IGNORECASE)) for target in targets)

    return {
        "compile": seconds,
        "argument_bytes": getattr(memory, "argument_size_in_bytes", None),
        "output_bytes": getattr(memory, "output_size_in_bytes", None),
        "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
        "choleskys": count("potrf|cholesky"),
        "solves": count("trsm|triangular"),
    }


def main(name: str) -> None:
    warnings.simplefilter("ignore")  # of other packages
    answers, sys.stdout = sys.stdout, sys.stderr  # a package that prints must not reach the parent
    library = Library(name)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        try:
            answer = getattr(library, command)(**arguments)
        except Exception as error:  # report whatever a library raises
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
