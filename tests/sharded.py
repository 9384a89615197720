"""Programs on batches sharded over eight devices, for `test_sharding`: prints what it finds.

python tests/sharded.py Auto | Explicit
"""

import contextlib
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import STRUCTURES, random_lower
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gaussjax as gj

SMALL, LARGE, HUGE = 4, 34, 136  # at 34 each part of a structure is beyond the unrolled kernels
KEY = jax.random.key(0)
COLLECTIVES = r"(all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("

# Of a batch of Gaussians and one of vectors; of two Gaussians; of two lower triangles.
VALUES = {
    "log_prob": lambda p, x: gj.log_prob(p, x),
    "score": lambda p, x: gj.score(p, x),
    "mahalanobis": lambda p, x: gj.mahalanobis(p, x),
    "whiten": lambda p, x: gj.whiten(p, x),
    "color": lambda p, x: gj.color(p, x),
    "color_symmetric": lambda p, x: gj.color_symmetric(p, x),
    "sample": lambda p, x: gj.sample(KEY, p),
    "sample of a shape": lambda p, x: jnp.moveaxis(gj.sample(KEY, p, (3,)), 1, 0),
    "sample_and_log_prob": lambda p, x: gj.sample_and_log_prob(KEY, p),
    "entropy": lambda p, x: gj.entropy(p),
    "mean": lambda p, x: gj.mean(p),
    "variance": lambda p, x: gj.variance(p),
    "stddev": lambda p, x: gj.stddev(p),
    "covariance": lambda p, x: gj.covariance(p),
    "precision": lambda p, x: gj.precision(p),
    "gradient of log_prob": lambda p, x: jax.grad(lambda p: jnp.sum(gj.log_prob(p, x)))(p),
    "affine": lambda p, x: gj.affine(p, jnp.ones((2, p.dim)) + jnp.eye(2, p.dim), offset=x[:, :2]),
    "shift": lambda p, x: gj.shift(p, x),
    "scale_by": lambda p, x: (gj.scale_by(p, x), gj.scale_by(p, 2.0)),
    "marginal": lambda p, x: gj.marginal(p, [0, 2]),
    "condition": lambda p, x: gj.condition(p, [0], x[:, :1]),
    "marginal and condition at traced indices": lambda p, x: (
        gj.marginal(p, jnp.array([0, 2])),
        gj.condition(p, jnp.array([2, 0]), x[:, :2]),
    ),
    "condition_where": lambda p, x: gj.condition_where(p, x, mask=x > 0),
    "log_prob_observed": lambda p, x: gj.log_prob_observed(p, x, mask=x > 0),
    "impute": lambda p, x: gj.impute(KEY, p, x, mask=x > 0),
    "observe": lambda p, x: gj.observe(p, jnp.eye(2, p.dim), gj.standard(2), x[:, :2]),
    "joint": lambda p, x: gj.joint(p, jnp.eye(2, p.dim), gj.standard(2), offset=x[:, :2]),
    "concatenate": lambda p, x: gj.concatenate([p, p]),
    "stack": lambda p, x: jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), gj.stack([p, p])),
}
PAIRS = {
    "kl": lambda p, q: gj.kl_divergence(p, q),
    "gradient of kl": lambda p, q: jax.grad(lambda p: jnp.sum(gj.kl_divergence(p, q)))(p),
    "cross_entropy": lambda p, q: gj.cross_entropy(p, q),
    "logdet_divergence": lambda p, q: gj.logdet_divergence(p.cov, q.cov),
    "product": lambda p, q: gj.product(p, q),
    "convolve": lambda p, q: gj.convolve(p, q),
    "add": lambda p, q: gj.add(p.cov, q.cov),
    "trace_solve": lambda p, q: gj.trace_solve(p.cov, q.cov),
}
LINALG = {
    "cholesky": lambda a, b: gj.linalg.cholesky(_gram(a)),
    "safe_cholesky": lambda a, b: gj.linalg.safe_cholesky(_gram(a), jitter=1e-6),
    "symmetric_sqrt": lambda a, b: gj.linalg.symmetric_sqrt(_gram(a)),
    "factor_of_sum": lambda a, b: gj.linalg.factor_of_sum(a, b),
    "lower_product": lambda a, b: gj.linalg.lower_product(a, b),
    "logdet_lower": lambda a, b: gj.linalg.logdet_lower(a),
    "solve_lower": lambda a, b: gj.linalg.solve_lower(a, b),
    "solve_lower_transpose": lambda a, b: gj.linalg.solve_lower_transpose(a, b),
    "update": lambda a, b: gj.linalg.update(a, b[..., :2]),
    "downdate": lambda a, b: gj.linalg.downdate(a, 0.1 * b[..., :2]),
    "append": lambda a, b: gj.linalg.append(a, b[..., :2], 90.0 * jnp.eye(2)),
    "delete": lambda a, b: gj.linalg.delete(a, [0, 2]),
    "derivatives": lambda a, b: jax.grad(
        lambda a: jnp.sum(gj.linalg.cholesky(a)) + jnp.sum(gj.linalg.symmetric_sqrt(a))
    )(_gram(a)),
}
PARAMETERS = {
    "lower_from_vector": lambda a, b: gj.parametrize.lower_from_vector(_vector(a)),
    "vector_from_lower": lambda a, b: _vector(a),
    "scaled_lower": lambda a, b: gj.parametrize.scaled_lower_from_vector(
        gj.parametrize.vector_from_scaled_lower(a)
    ),
    "correlation": lambda a, b: gj.parametrize.vector_from_correlation(
        gj.parametrize.correlation_from_vector(gj.parametrize.vector_from_correlation(a))
    ),
    "gaussian_from_vector": lambda a, b: gj.parametrize.gaussian_from_vector(
        jnp.concatenate([b[..., 0], _vector(a)], axis=-1), a.shape[-1]
    ),
    "gradient of lower_from_vector": lambda a, b: jax.grad(
        lambda v: jnp.sum(gj.parametrize.lower_from_vector(v) ** 2)
    )(_vector(a)),
}
CONSTRUCTORS = {
    "from_cholesky": lambda a, b: gj.from_cholesky(b[..., 0], a),
    "from_covariance": lambda a, b: gj.from_covariance(b[..., 0], _gram(a)),
    "from_precision": lambda a, b: gj.from_precision(b[..., 0], _gram(a)),
    "from_scale": lambda a, b: gj.from_scale(b[..., 0], jnp.diagonal(a, 0, -2, -1)),
    "from_variance": lambda a, b: gj.from_variance(b[..., 0], jnp.diagonal(a, 0, -2, -1)),
    "from_low_rank": lambda a, b: gj.from_low_rank(
        b[..., 0], jnp.diagonal(a, 0, -2, -1), a[..., :2]
    ),
    "from_kronecker": lambda a, b: gj.from_kronecker(
        jnp.concatenate([b[..., 0], b[..., 1]], -1), [_gram(a[..., :2, :2]), _gram(a)]
    ),
    "from_block_diagonal": lambda a, b: gj.from_block_diagonal(
        jnp.concatenate([b[..., 0], b[..., 1]], -1), [_gram(a), _gram(b)]
    ),
    "from_circulant": lambda a, b: gj.from_circulant(b[..., 0], _column(a)),
    "from_toeplitz": lambda a, b: gj.from_toeplitz(b[..., 0], _column(a)),
    "from_banded_precision": lambda a, b: gj.from_banded_precision(
        b[..., 0], jnp.stack([3.0 + jnp.abs(a[..., 0]), jnp.tanh(b[..., 0])], axis=-2)
    ),
}
MATRICES = LINALG | PARAMETERS | CONSTRUCTORS


LIKE = {name: PAIRS[name] for name in ("kl", "gradient of kl", "product", "convolve")}
FEW = {name: LINALG[name] for name in ("cholesky", "solve_lower", "symmetric_sqrt", "update")}
# Those that together call every kernel of a structure; a program of all takes minutes to compile.
CORE = ("log_prob", "gradient of log_prob", "color_symmetric", "sample", "condition_where", "kl")
APART = "sample of toeplitz"  # in a program of its own: see the tests
# Explicit axes decide when a function is traced, which is done for all: few of those are compiled.
COMPILED_WITH_EXPLICIT_AXES = ("cholesky", "low_rank")


def main(axes):
    """One report for this type of mesh axes."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType[axes],))
    rng = np.random.default_rng(0)
    report, refused, unset = {}, {}, {}
    for d, some in ((SMALL, list(KINDS)[:4]), (LARGE, list(KINDS))):
        batches = {kind: (batch(kind, rng, d), batch(kind, rng, d)) for kind in some}
        x = rng.normal(size=(16, d)).astype(np.float32)
        for kind, following in zip(some, some[1:] + some[:1], strict=True):
            arguments = (*batches[kind], batches[following][0], x)
            functions = about(kind, following, d)
            if axes == "Explicit":
                refused |= traced(mesh, functions, arguments)
                if kind == "cholesky":
                    unset |= traced(mesh, functions, arguments, is_set=False)
                if kind not in COMPILED_WITH_EXPLICIT_AXES:
                    continue
            if d == LARGE or kind != "cholesky":
                functions = {
                    n: f for n, f in functions.items() if n.split(" of " + kind)[0] in CORE
                }
            for apart in (False, True):
                part = {n: f for n, f in functions.items() if n.startswith(APART) == apart}
                report |= examine(mesh, part, arguments)
    for size, d, functions in ((16, LARGE, MATRICES), (8, HUGE, FEW)):
        named = {f"{name}, d = {d}": function for name, function in functions.items()}
        report |= examine(mesh, named, matrices(rng, size, d))
    sizes = (SMALL, 40, 70)  # three ways to solve: written out, by a native kernel, by LAPACK
    found = {
        "batched": report,
        "refused": refused,
        "unset": unset,
        "transformed": under_transformations(mesh, rng),
        "shared": {d: shared(mesh, rng, d) for d in sizes},
        "crossing": crossing(AxisType[axes], rng),
        "parts": shared_parts(AxisType[axes], rng),
        "replicated": replicated(mesh),
    }
    print(json.dumps(found))


def replicated(mesh):
    """Errors of the density of a batch that each device of the mesh has whole."""
    errors = {}
    for d in (4, 7, 48):
        lower = jnp.stack([jnp.eye(d) + 0.1 * jnp.tril(jnp.ones((d, d)))] * 2)

        def density(lower, x):
            return gj.log_prob(gj.Gaussian(jnp.zeros(x.shape[-1]), gj.Cholesky(lower)), x)

        expected = density(lower, jnp.ones((2, d)))
        with jax.set_mesh(mesh):
            found = jax.jit(density)(lower, jnp.ones((2, d)))
        errors[d] = float(np.max(np.abs(np.asarray(found) / np.asarray(expected) - 1)))
    return errors


def traced(mesh, functions, arguments, *, is_set=True):
    """Functions that explicit axes refuse, or whose results they do not keep sharded."""
    found = {}
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        arguments = on(mesh, arguments)
        for name, function in functions.items():
            try:
                shapes = jax.tree.leaves(jax.eval_shape(function, *arguments))
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"[:300]
            else:
                if any(leaf.sharding.spec[:1] != ("batch",) for leaf in shapes):
                    found[name] = str([leaf.sharding.spec for leaf in shapes])
    return found


def on(mesh, tree):
    """Arrays with their first axis sharded."""
    over = NamedSharding(mesh, PartitionSpec("batch"))
    return jax.tree.map(lambda leaf: jax.device_put(leaf, over), tree)


def about(kind, following, d):
    """All functions of Gaussians p and q of one kind, r of another, and vectors x."""
    values = {
        f"{name} of {kind}, d = {d}": lambda p, q, r, x, f=f: f(p, x) for name, f in VALUES.items()
    }
    like = {
        f"{name} of {kind}, d = {d}": lambda p, q, r, x, f=f: f(p, q) for name, f in LIKE.items()
    }
    unlike = {
        f"{name} of {kind} and {following}, d = {d}": lambda p, q, r, x, f=f: f(p, r)
        for name, f in PAIRS.items()
    }
    return values | like | unlike


def examine(mesh, functions, arguments):
    """What a program of all functions shows on the mesh, next to one without a mesh."""
    expected = jax.tree.map(np.asarray, jax.jit(together(functions))(*arguments))
    return compare_on(mesh, functions, arguments, expected)


def together(functions):
    return lambda *arguments: {name: f(*arguments) for name, f in functions.items()}


def compare_on(mesh, functions, arguments, expected):
    """What one program of all functions shows; and one of each, if that shows a fault."""
    failed, collectives = "", []
    try:
        with jax.set_mesh(mesh):
            got, text = compiled(together(functions), *on(mesh, arguments))
            collectives = sorted(set(re.findall(COLLECTIVES, text)))
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"[:300]
    if (failed or collectives) and len(functions) > 1:
        alone = (
            compare_on(mesh, {name: function}, arguments, expected)
            for name, function in functions.items()
        )
        return {name: found for each in alone for name, found in each.items()}
    if failed:
        return {name: {"failed": failed} for name in functions}
    return {
        name: {
            "error": compare(got[name], expected[name]),
            "collectives": collectives,
            "sharded": all(
                leaf.sharding.spec[:1] == ("batch",) for leaf in jax.tree.leaves(got[name])
            ),
        }
        for name in functions
    }


def under_transformations(mesh, rng):
    """Errors of batches that `vmap` or `shard_map` take apart, past the sizes of tiles."""
    functions = {
        "kl": gj.kl_divergence,
        "gradient of kl": jax.grad(lambda p, q: jnp.sum(gj.kl_divergence(p, q)), (0, 1)),
        "log_prob": lambda p, q: gj.log_prob(p, q.mean),
        "color_symmetric": lambda p, q: gj.color_symmetric(p, q.mean),
    }
    over = PartitionSpec("batch")
    ways = {
        "vmap": lambda f, mesh: jax.vmap(f),
        "shard_map": lambda f, mesh: jax.shard_map(f, mesh=mesh, in_specs=over, out_specs=over),
    }
    errors = {}
    for d, size in ((6, 8 * 130), (20, 16), (130, 8)):
        lower = [np.resize(x, (size, d, d)) for x in matrices(rng, 16, d)]
        p, q = (
            gj.Gaussian(rng.normal(size=(size, d)).astype(np.float32), gj.Cholesky(x))
            for x in lower
        )
        expected = jax.tree.map(np.asarray, jax.jit(together(functions))(p, q))
        with jax.set_mesh(mesh):
            for way, change in ways.items():
                changed = {name: change(f, mesh) for name, f in functions.items()}
                got = jax.jit(together(changed))(*on(mesh, (p, q)))
                for name in functions:
                    errors[f"{way} of {name}, d = {d}"] = compare(got[name], expected[name])
    return errors


def shared(mesh, rng, d):
    """A loss of one Gaussian on sharded data, and functions of one and of a sharded batch."""
    one = gj.Gaussian(np.zeros(d, np.float32), gj.Cholesky(random_lower(rng, d)))
    one = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), one)
    x = rng.normal(size=(16, d)).astype(np.float32)
    p, q = (batch("cholesky", rng, d) for _ in range(2))

    def mean(g, x):
        return jnp.mean(gj.log_prob(g, x))

    functions = {
        "log_prob": lambda g, p, x: gj.log_prob(g, x),
        "whiten": lambda g, p, x: gj.whiten(g, x),
        "color": lambda g, p, x: gj.color(g, x),
        "score": lambda g, p, x: gj.score(g, x),
        "kl": lambda g, p, x: gj.kl_divergence(p, g),
        "kl from one": lambda g, p, x: gj.kl_divergence(g, p),
        "gradient of kl": jax.grad(lambda g, p, x: jnp.sum(gj.kl_divergence(p, g)), 1),
        "solve_lower": lambda g, p, x: jax.vmap(gj.linalg.solve_lower, (None, 0))(g.cov.lower, x),
    }
    expected = jax.tree.map(np.asarray, jax.value_and_grad(mean)(one, x))
    divergence = np.asarray(gj.kl_divergence(p, q))
    each = jax.tree.map(np.asarray, jax.jit(together(functions))(one, p, x))
    with jax.set_mesh(mesh):
        here = jax.tree.map(jnp.asarray, one)
        got, text = compiled(jax.value_and_grad(mean), here, on(mesh, x))
        mixed = compare(gj.kl_divergence(on(mesh, p), jax.tree.map(jnp.asarray, q)), divergence)
        arguments = here, *on(mesh, (p, x))
        parts, program = compiled(together(functions), *arguments)
        if talking := sorted(set(re.findall(COLLECTIVES, program))):  # which of them does
            texts = {name: compiled(f, *arguments)[1] for name, f in functions.items()}
            talking = [name for name in functions if re.findall(COLLECTIVES, texts[name])]
    line = next((row for row in text.splitlines() if "all-reduce(" in row), "")
    shapes = re.findall(r"f32\[([\d,]*)\]", line.split("all-reduce(")[0])
    return {
        "error": compare(got, expected),
        "collectives": re.findall(COLLECTIVES, text),
        "reduced": sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(one)),
        "mixed": mixed,
        "errors": {name: compare(parts[name], each[name]) for name in functions},
        "talking": talking,
    }


def crossing(axes, rng):
    """Errors on a mesh of two axes: one of them alone, and one that two operands would take."""

    def mean(lower, y):
        g = gj.Gaussian(jnp.zeros(lower.shape[-1]), gj.Cholesky(lower))
        return gj.condition(g, [2], y).mean

    def gradient(lower, y):
        return jax.grad(lambda lower: jnp.sum(mean(lower, y) ** 2))(lower)

    def solve(lower, y):
        return jax.vmap(jax.vmap(gj.linalg.solve_lower), (None, 0))(lower, y)

    batch, first, second = PartitionSpec("b"), PartitionSpec("b", None), PartitionSpec(None, "b")
    errors = {}
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(axes, axes))
    for d in (SMALL, 20):
        lower = np.stack([random_lower(rng, d) for _ in range(4)])
        y = rng.normal(size=(8, 4, d)).astype(np.float32)
        cases = {
            "value": (mean, (lower, y[0, :, :1]), (batch, batch)),
            "gradient": (gradient, (lower, y[0, :, :1]), (batch, PartitionSpec())),
        }
        if axes == AxisType.Auto:  # explicit ones refuse to broadcast such operands
            cases["crossing"] = (mean, (lower, y[..., :1]), (batch, first))
            cases["shared"] = (solve, (lower, y), (batch, batch))
            cases["both"] = (solve, (lower, y), (batch, second))
        for name, (function, arguments, specs) in cases.items():
            expected = jax.tree.map(np.asarray, jax.jit(function)(*arguments))
            with jax.set_mesh(mesh):
                placed = [
                    jax.device_put(x, NamedSharding(mesh, spec))
                    for x, spec in zip(arguments, specs, strict=True)
                ]
                got = jax.jit(function)(*placed)
            errors[f"{name}, {axes.name}, d = {d}"] = compare(got, expected)
    return errors


def shared_parts(axes, rng):
    """Errors of a sharded batch of means with one covariance, on one axis of two."""
    mesh = jax.make_mesh((2, 4), ("a", "batch"), axis_types=(axes, axes))
    mean = rng.normal(size=(8, SMALL)).astype(np.float32)
    lower = random_lower(rng, SMALL)
    functions = {
        "shift": lambda g: gj.shift(g, g.mean),
        "scale_by": lambda g: gj.scale_by(g, 2.0),
        "affine": lambda g: gj.affine(g, jnp.eye(2, SMALL)),
        "condition": lambda g: gj.condition(g, [0], g.mean[:, :1]),
        "convolve": lambda g: gj.convolve(g, gj.standard(SMALL)),
        "vmap": lambda g: jax.vmap(gj.entropy)(gj.broadcast_to(g, (8,))),
        "concatenate": lambda g: gj.mean(gj.concatenate([g, gj.standard(1)])),
        "stack": lambda g: gj.log_prob(gj.stack([g, gj.shift(g, g.mean)]), g.mean),
        "sample": lambda g: gj.sample(KEY, g),
    }
    errors = {}
    for name, function in functions.items():
        expected = jax.tree.map(np.asarray, function(gj.Gaussian(mean, gj.Cholesky(lower))))
        with jax.set_mesh(mesh):
            g = gj.Gaussian(on(mesh, mean), gj.Cholesky(jnp.asarray(lower)))
            errors[name] = compare(jax.jit(function)(g), expected)
    return errors


def _scaled(rng, d, dtype):
    cov, _ = STRUCTURES["circulant"](rng, d, dtype)
    return gj.Scaled(cov, jnp.asarray(rng.uniform(0.5, 2.0, d), dtype)), None


def _sum(rng, d, dtype):
    parts = [STRUCTURES[kind](rng, d, dtype)[0] for kind in ("circulant", "kronecker")]
    return gj.Sum(*parts), None


KINDS = STRUCTURES | {"scaled": _scaled, "sum": _sum}


def batch(kind, rng, d):
    covs = [KINDS[kind](rng, d, np.float32)[0] for _ in range(16)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *covs)
    return gj.Gaussian(rng.normal(size=(16, d)).astype(np.float32), stacked)


def matrices(rng, size, d):
    return tuple(np.stack([random_lower(rng, d) for _ in range(size)]) for _ in range(2))


def compare(got, expected):
    """Largest difference, relative to the largest entry of each leaf."""
    pairs = zip(
        *(jax.tree.leaves(jax.tree.map(np.asarray, t)) for t in (got, expected)), strict=True
    )
    ratios = [np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-30) for a, b in pairs]
    return float(np.max(ratios))  # NaN if one is


def compiled(function, *arguments):
    program = jax.jit(function).lower(*arguments).compile()
    return program(*arguments), program.as_text()


def _gram(lower):
    return jnp.matmul(lower, jnp.swapaxes(lower, -1, -2), precision="highest")


def _vector(lower):
    return gj.parametrize.vector_from_lower(lower)


def _column(lower):
    """A column that mirrors itself, and is the first of a positive definite circulant matrix."""
    head = lower[..., 0, :]
    mirrored = jnp.concatenate([head[..., :1], head[..., :0:-1]], axis=-1)
    return 0.1 * (head + mirrored) + 9.0 * (jnp.arange(head.shape[-1]) == 0)


if __name__ == "__main__":
    main(sys.argv[1])
