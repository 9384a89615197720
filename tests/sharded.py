"""Programs on batches sharded over eight devices, for `test_sharding`: prints what it finds."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import STRUCTURES
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gaussjax as gj

B, D = 16, 4
KEY = jax.random.key(0)
FUNCTIONS = {
    "log_prob": lambda p, q, x: gj.log_prob(p, x),
    "score": lambda p, q, x: gj.score(p, x),
    "mahalanobis": lambda p, q, x: gj.mahalanobis(p, x),
    "whiten": lambda p, q, x: gj.whiten(p, x),
    "color": lambda p, q, x: gj.color(p, x),
    "entropy": lambda p, q, x: gj.entropy(p),
    "variance": lambda p, q, x: gj.variance(p),
    "covariance": lambda p, q, x: gj.covariance(p),
    "precision": lambda p, q, x: gj.precision(p),
    "sample": lambda p, q, x: gj.sample(KEY, p),
    "sample_and_log_prob": lambda p, q, x: gj.sample_and_log_prob(KEY, p),
    "kl": lambda p, q, x: gj.kl_divergence(p, q),
    "cross_entropy": lambda p, q, x: gj.cross_entropy(p, q),
    "product": lambda p, q, x: gj.product(p, q),
    "condition": lambda p, q, x: gj.condition(p, [0], x[:, :1]),
    "marginal": lambda p, q, x: gj.marginal(p, [0, 2]),
    "gradient of kl": lambda p, q, x: jax.grad(lambda p: jnp.sum(gj.kl_divergence(p, q)))(p),
    "gradient of log_prob": lambda p, q, x: jax.grad(lambda p: jnp.sum(gj.log_prob(p, x)))(p),
}
COLLECTIVES = r"(all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("


def batch(kind, rng):
    covs = [STRUCTURES[kind](rng, D, np.float32)[0] for _ in range(B)]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *covs)
    return gj.Gaussian(jnp.asarray(rng.normal(size=(B, D)), np.float32), stacked)


def compare(got, expected):
    """Largest difference, relative to the largest entry of each leaf."""
    pairs = zip(
        *(jax.tree.leaves(jax.tree.map(np.asarray, t)) for t in (got, expected)), strict=True
    )
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b), initial=1e-30)) for a, b in pairs)


def compiled(function, *arguments):
    program = jax.jit(function).lower(*arguments).compile()
    return program(*arguments), program.as_text()


def main(axis_type):
    rng = np.random.default_rng(0)
    cases = {kind: (batch(kind, rng), batch(kind, rng)) for kind in KINDS}
    x = rng.normal(size=(B, D)).astype(np.float32)
    alone = {
        (kind, name): jax.tree.map(np.asarray, jax.jit(function)(*pair, x))
        for kind, pair in cases.items()
        for name, function in FUNCTIONS.items()
    }
    one = gj.from_cholesky(jnp.zeros(D), jnp.eye(D) + 0.1)

    def mean(g, x):
        return jnp.mean(gj.log_prob(g, x))

    expected = jax.tree.map(np.asarray, jax.value_and_grad(mean)(one, x))
    one, (p, q) = jax.tree.map(np.asarray, (one, cases["cholesky"]))
    mixed_alone = np.asarray(gj.kl_divergence(p, q))

    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType[axis_type],))
    over = NamedSharding(mesh, PartitionSpec("batch"))
    report = {"batched": {}}
    with jax.set_mesh(mesh):
        for (kind, name), value in alone.items():
            arguments = jax.tree.map(lambda leaf: jax.device_put(leaf, over), (*cases[kind], x))
            got, text = compiled(FUNCTIONS[name], *arguments)
            specs = {leaf.sharding.spec[0] for leaf in jax.tree.leaves(got)}
            report["batched"][f"{name} of {kind}"] = {
                "error": compare(got, value),
                "collectives": sorted(set(re.findall(COLLECTIVES, text))),
                "sharding": specs.pop() if len(specs) == 1 else sorted(map(str, specs)),
            }
        here = jax.tree.map(jnp.asarray, one)
        got, text = compiled(jax.value_and_grad(mean), here, jax.device_put(x, over))
        line = next((row for row in text.splitlines() if "all-reduce(" in row), "")
        shapes = re.findall(r"f32\[([\d,]*)\]", line.split("all-reduce(")[0])
        report["mean"] = {
            "error": compare(got, expected),
            "collectives": re.findall(COLLECTIVES, text),
            "reduced": sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(one)),
        }
        sharded = jax.tree.map(lambda leaf: jax.device_put(leaf, over), p)
        report["mixed"] = compare(
            gj.kl_divergence(sharded, jax.tree.map(jnp.asarray, q)), mixed_alone
        )
    print(json.dumps(report))


KINDS = ("isotropic", "diagonal", "cholesky", "precision")

if __name__ == "__main__":
    main(*sys.argv[1:])
