"""A process that holds one library, and times or evaluates what its parent asks for.

Commands come as JSON lines on standard input, answers go as JSON lines to standard output:
`prepare` compiles a measure ahead of time and warms it up, `round` times it a few times,
`evaluate` gives its values on the arrays of a file.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import libraries

SECONDS = 0.2  # that a round should take


class Library:
    """One library and the measure that was prepared last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.call: Callable[[], Any] = lambda: None
        self.repeats = 1
        if name == "torch":
            libraries.torch("kl")  # the import
        else:
            import jax

            libraries.LIBRARIES[name]("sample")  # the import
            jax.block_until_ready(jax.jit(lambda x: x + 1)(0.0))  # the device

    def prepare(self, measure: str, batch: int, dim: int) -> dict[str, float]:
        arrays = inputs(measure, batch, dim)
        if self.name == "torch":
            self.call, seconds = self._torch(measure, arrays), 0.0
        else:
            self.call, seconds = self._jax(measure, arrays)
        self.call()
        start = time.perf_counter()
        self.call()
        self.repeats = int(np.clip(SECONDS / (time.perf_counter() - start), 3, 50))
        return {"compile": seconds}

    def round(self) -> list[float]:
        times = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            self.call()
            times.append(time.perf_counter() - start)
        return times

    def evaluate(self, measure: str, path: str) -> list[list[float]]:
        """Values of a measure, or of each gradient, as flat lists."""
        with np.load(path) as file:
            arrays = [file[name] for name in file.files]
        call = (
            self._torch(measure, arrays) if self.name == "torch" else self._jax(measure, arrays)[0]
        )
        result = call()
        parts = result if isinstance(result, tuple) else (result,)
        return [np.asarray(part, np.float64).ravel().tolist() for part in parts]

    def _jax(self, measure: str, arrays: list[np.ndarray]) -> tuple[Callable[[], Any], float]:
        import jax
        import jax.numpy as jnp

        args = [jnp.asarray(x) for x in arrays]
        if measure == "sample":
            args[-1] = jax.random.key(0)
        start = time.perf_counter()
        compiled = jax.jit(libraries.LIBRARIES[self.name](measure)).lower(*args).compile()
        seconds = time.perf_counter() - start
        return lambda: jax.block_until_ready(compiled(*args)), seconds

    def _torch(self, measure: str, arrays: list[np.ndarray]) -> Callable[[], Any]:
        import torch  # pyright: ignore[reportMissingImports]  # optional

        device = "cuda" if torch.cuda.is_available() else "cpu"
        args = [torch.as_tensor(x, device=device) for x in arrays]
        function = libraries.torch(measure)

        def call() -> Any:
            result = function(*args)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return call


def inputs(measure: str, batch: int, dim: int) -> list[np.ndarray]:
    """Means, and factors with a positive diagonal, the same in every process."""
    rng = np.random.default_rng(0)

    def gaussian() -> list[np.ndarray]:
        mean = rng.normal(size=(batch, dim))
        lower = np.tril(rng.normal(size=(batch, dim, dim)), -1) * 0.5 / np.sqrt(dim)
        return [mean, lower + np.eye(dim) * np.exp(0.3 * rng.normal(size=(batch, 1, dim)))]

    second = gaussian() if measure.startswith("kl") else [rng.normal(size=(batch, dim))]
    return [x.astype(np.float32) for x in (*gaussian(), *second)]


def main(name: str) -> None:
    warnings.simplefilter("ignore")  # of other packages
    answers, sys.stdout = sys.stdout, sys.stderr  # a package that prints must not answer
    library = Library(name)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        try:
            answer = getattr(library, command)(**arguments)
        except Exception as error:  # whatever a library raises is its answer
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
