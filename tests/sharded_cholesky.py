"""One Gaussian over eight devices: programs for `test_sharded_cholesky`, which print findings."""

import functools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import random_lower
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gaussjax as gj
from gaussjax.linalg import sharded

KEY = jax.random.key(0)
RESULT = (
    r"= (.*?) (all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("
)

MEASURED = ("log_prob", "sample", "kl", "gradient of log_prob", "gradient of kl")

# Functions of two means and two factors; `of` makes a Gaussian of a mean and a factor.
FUNCTIONS = {
    "log_prob": lambda of, m, a, n, b: gj.log_prob(of(m, a), n),
    "mahalanobis": lambda of, m, a, n, b: gj.mahalanobis(of(m, a), n),
    "score": lambda of, m, a, n, b: gj.score(of(m, a), n),
    "sample": lambda of, m, a, n, b: gj.sample(KEY, of(m, a), (2,)),
    "whiten": lambda of, m, a, n, b: gj.whiten(of(m, a), n),
    "variance": lambda of, m, a, n, b: gj.variance(of(m, a)),
    "entropy": lambda of, m, a, n, b: gj.entropy(of(m, a)),
    "kl": lambda of, m, a, n, b: gj.kl_divergence(of(m, a), of(n, b)),
    "kl of close ones": lambda of, m, a, n, b: gj.kl_divergence(of(m, a), of(m, 1.0001 * a)),
    "kl to a diagonal": lambda of, m, a, n, b: gj.kl_divergence(of(m, a), diagonal(n)),
    "kl from a diagonal": lambda of, m, a, n, b: gj.kl_divergence(diagonal(n), of(m, a)),
    "gradient of log_prob": lambda of, m, a, n, b: jax.grad(
        lambda m, a: gj.log_prob(of(m, a), n), (0, 1)
    )(m, a),
    "gradient of kl": lambda of, m, a, n, b: jax.grad(
        lambda m, a, n, b: gj.kl_divergence(of(m, a), of(n, b)), (0, 1, 2, 3)
    )(m, a, n, b),
    "gradient of kl from a diagonal": lambda of, m, a, n, b: jax.grad(
        lambda n, a: gj.kl_divergence(diagonal(n), of(m, a)), (0, 1)
    )(n, a),
}


def diagonal(mean):
    return gj.Gaussian(mean, gj.Diagonal(1 + jnp.square(mean)))


def dense(mean, lower):
    return gj.Gaussian(mean, gj.Cholesky(lower))


def shared(mean, lower):
    return gj.Gaussian(mean, gj.ShardedCholesky(lower, "rows"))


def of_matrix(cholesky, weights, matrix):
    """A factor, and the gradient and a directional derivative of a sum over it."""

    def total(matrix):
        return jnp.sum(weights * cholesky(matrix))

    gradient = jax.grad(total)(matrix)
    return cholesky(matrix), gradient, jax.jvp(total, (matrix,), (matrix,))[1]


def everything(of, cholesky, m, a, n, b, matrix):
    values = {name: function(of, m, a, n, b) for name, function in FUNCTIONS.items()}
    return values | {"cholesky and its derivatives": of_matrix(cholesky, b, matrix)}


SHARED = functools.partial(everything, shared, functools.partial(sharded.cholesky, axis="rows"))


def error(got, expected):
    """Largest difference, relative to the largest entry of each leaf."""
    pairs = zip(*(map(np.asarray, jax.tree.leaves(t)) for t in (got, expected)), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)


def collectives(text):
    """Numbers in the result of every collective of a program."""
    results = [result for result, _ in re.findall(RESULT, text)]
    shapes = [re.findall(r"\w+\[([\d,]*)\]", result) for result in results]
    return [sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in of) for of in shapes]


def arguments(d, rng):
    (m, n), (a, b) = rng.normal(size=(2, d)), (random_lower(rng, d) for _ in range(2))
    return [np.asarray(x, np.float32) for x in (m, a, n, b, a @ a.T)]


def mesh_of(devices, axis_type):
    return jax.make_mesh(
        (devices,), ("rows",), axis_types=(AxisType[axis_type],), devices=jax.devices()[:devices]
    )


def compiled(function, d, mesh):
    """The program for means on every device and matrices in rows; nothing is run."""
    with jax.set_mesh(mesh):
        over, whole = (NamedSharding(mesh, PartitionSpec(x)) for x in ("rows", None))
        vector = jax.ShapeDtypeStruct((d,), jnp.float32, sharding=whole)
        matrix = jax.ShapeDtypeStruct((d, d), jnp.float32, sharding=over)
        more = [matrix] if function is SHARED else []
        return jax.jit(function).lower(vector, matrix, vector, matrix, *more).compile()


def compare(axis_type, d=128):
    """Values of everything against one device, and the collectives."""
    values = arguments(d, np.random.default_rng(0))
    expected = jax.jit(functools.partial(everything, dense, gj.linalg.cholesky))(*values)
    mesh = mesh_of(8, axis_type)
    program = compiled(SHARED, d, mesh)
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows" if x.ndim == 2 else None)))
            for x in values
        ]
        got = program(*placed)
        bad = sharded.cholesky(placed[4] - 5, axis="rows")
        try:
            gj.from_sharded_covariance(placed[0], -placed[4], axis="rows")
            refused = ""
        except ValueError as sentence:
            refused = str(sentence)
        g = gj.from_sharded_covariance(*placed[::4], axis="rows")
        made = error(g.cov.lower, values[1])
    matrices = [x for x in jax.tree.leaves(got) if x.ndim == 2 and x.shape[0] == d]
    return {
        "errors": {name: error(got[name], expected[name]) for name in expected},
        "made": made,
        "nans": int(np.sum(np.isnan(bad))),
        "refused": refused,
        "shards": sorted({x.sharding.shard_shape(x.shape) for x in matrices}),
        "collectives": collectives(program.as_text()),
        "d": d,
    }


def measure(d=512):
    """What each device holds and sends, from programs that are not run."""

    def factor(m, a, n, b):
        return sharded.cholesky(a, axis="rows")

    functions = {
        **{name: functools.partial(FUNCTIONS[name], shared) for name in MEASURED},
        "cholesky": factor,
        "gradient of cholesky": jax.grad(lambda *x: jnp.sum(factor(*x)), 1),
    }
    report = {}
    for name, function in functions.items():
        counts = (1, 2, 4, 8) if name == "gradient of kl" else (1, 8)
        programs = [compiled(function, d, mesh_of(n, "Auto")) for n in counts]
        shares = [n * bytes_of(p) / (4 * d * d) for n, p in zip(counts, programs, strict=True)]
        sent = collectives(programs[-1].as_text())
        report[name] = {"shares": shares, "collectives": sent}
    larger = compiled(functions["gradient of kl"], 2 * d, mesh_of(8, "Auto"))
    report["gradient of kl"]["at twice the size"] = len(collectives(larger.as_text()))
    return report


def bytes_of(program):
    """What one device holds at once."""
    found = program.memory_analysis()
    return found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps({"compare": compare, "measure": measure}[what](*rest)))
