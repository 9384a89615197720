"""Every function, with every structure, under JAX's transformations and hostile settings."""

import ast
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import newer_rules
import numpy as np
import pytest
from catalogue import STRUCTURES
from compiling import quick_jit
from jax.extend import core

import gaussjax as gj
from gaussjax import linalg

D = 3
KEY = jax.random.key(0)
FUNCTIONS = {
    "log_prob": lambda g, x: gj.log_prob(g, x),
    "score": lambda g, x: gj.score(g, x),
    "mahalanobis": lambda g, x: gj.mahalanobis(g, x),
    "whiten": lambda g, x: gj.whiten(g, x),
    "color": lambda g, x: gj.color(g, x),
    "color_symmetric": lambda g, x: gj.color_symmetric(g, x),
    "entropy": lambda g, x: gj.entropy(g),
    "mean": lambda g, x: gj.mean(g),
    "variance": lambda g, x: gj.variance(g),
    "stddev": lambda g, x: gj.stddev(g),
    "covariance": lambda g, x: gj.covariance(g),
    "precision": lambda g, x: gj.precision(g),
    "sample": lambda g, x: gj.sample(KEY, g),
    "sample_and_log_prob": lambda g, x: gj.sample_and_log_prob(KEY, g)[1],
    "kl from": lambda g, x: gj.kl_divergence(g, gj.from_scale(x, 1.5)),
    "kl to": lambda g, x: gj.kl_divergence(gj.from_scale(x, 1.5), g),
    "cross_entropy": lambda g, x: gj.cross_entropy(g, gj.from_scale(x, 1.5)),
    "logdet_divergence": lambda g, x: gj.logdet_divergence(g.cov, gj.standard(g.dim).cov),
}
# All functions of the structures that kernels are written for, and for the others those that their
# members decide; `test_conformance` has the rest.
DECIDED = {"log_prob", "variance", "sample", "kl to"}
BASIC = {"isotropic", "diagonal", "cholesky", "precision"}
ALL = [
    (kind, name) for kind in STRUCTURES for name in FUNCTIONS if kind in BASIC or name in DECIDED
]


def make(kind, d=D):
    cov, _ = STRUCTURES[kind](np.random.default_rng(0), d, np.float32)
    return gj.Gaussian(jnp.arange(d, dtype=np.float32) / d, cov), jnp.linspace(-1.0, 1.0, d)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_jit_agrees_with_eager_and_traces_once(kind, name):
    g, x = make(kind)
    function = FUNCTIONS[name]
    traced = jax.jit(chex.assert_max_traces(function, n=1))
    chex.clear_trace_counter()
    for scale in (1.0, 2.0):
        expected = function(g, scale * x)
        np.testing.assert_allclose(traced(g, scale * x), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "name"), [pair for pair in ALL if "sample" not in pair[1]])
def test_vmap_agrees_with_a_loop_and_with_native_batches(kind, name):
    g, x = make(kind)
    function = FUNCTIONS[name]
    gs = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf]), g)
    xs = jnp.stack([x, 0.5 * x])
    each = [function(jax.tree.map(lambda leaf, i=i: leaf[i], gs), xs[i]) for i in range(2)]
    expected = np.stack(each)

    @quick_jit  # one program: compiling takes most of the time here
    def ways(g, gs, xs):
        nested = jax.vmap(jax.vmap(function, (0, None)), (None, 0))
        mapped, native = jax.vmap(function)(gs, xs), function(gs, xs)
        return mapped, native, jax.vmap(function, (None, 0))(g, xs), nested(gs, xs)

    mapped, native, shared, nested = ways(g, gs, xs)
    np.testing.assert_allclose(mapped, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(native, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(shared[0], expected[0], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(nested[1, 1], expected[1], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_forward_and_reverse_derivatives_agree(kind, name):
    g, x = make(kind)

    def total(g, x):
        return jnp.sum(jnp.sin(FUNCTIONS[name](g, x)))

    @quick_jit
    def both(g, x):
        return [way(total, (0, 1))(g, x) for way in (jax.jacfwd, jax.jacrev)]

    forward, reverse = both(g, x)
    size = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(reverse))
    chex.assert_trees_all_close(forward, reverse, atol=1e-5 * (1 + size))


def equations(jaxpr, seen=None):
    """Those of a program and of the programs that it calls, each of them once."""
    seen = set() if seen is None else seen
    if id(jaxpr) in seen:
        return
    seen.add(id(jaxpr))
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in jax.tree.leaves(
                value, is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr)
            ):
                if isinstance(inner, core.ClosedJaxpr):
                    inner = inner.jaxpr
                if isinstance(inner, core.Jaxpr):
                    yield from equations(inner, seen)


PRODUCTS = {"dot", "matmul", "einsum", "tensordot", "vdot", "vecdot", "matvec", "vecmat", "inner"}
PRODUCTS |= {"multi_dot", "matrix_power", "dot_general", "convolve", "correlate"}


def test_every_product_goes_through_the_one_of_full_precision():
    """How a CPU sees the TF32 trap: by the source, and by one program of every structure."""
    found = []
    for path in set(Path(gj.__file__).parent.rglob("*.py")) - {Path(gj.testing.__file__)}:
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            of_jax = called and ast.unparse(node.func).split(".")[0] in ("jnp", "jax", "lax")
            if isinstance(node, ast.MatMult) or (of_jax and node.func.attr in PRODUCTS):
                found.append((path.name, ast.unparse(node)))
    assert found == [("products.py", "jnp.matmul(a, b, precision=lax.Precision.HIGHEST)")]


@pytest.mark.parametrize("kind", STRUCTURES)
def test_every_product_of_a_program_is_at_full_precision(kind):
    g, x = make(kind, 17)

    def total(g, x):
        return sum(jnp.sum(function(g, x)) for function in FUNCTIONS.values())

    jaxpr = jax.make_jaxpr(jax.grad(total, (0, 1)))(g, x)
    dots = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    assert all(dot.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2 for dot in dots)


def test_the_walk_over_a_program_finds_a_default_product():
    jaxpr = jax.make_jaxpr(jax.jit(lambda x: jax.lax.map(lambda y: y @ y.T, x)))(
        jnp.ones((2, 3, 3))
    )
    dots = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    assert [dot.params["precision"] for dot in dots] == [None]


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_gaussian_is_a_carry_of_scan_and_passes_cond_while_and_checkpoint(kind):
    g, x = make(kind)

    def step(g, x):
        value = gj.log_prob(g, x)
        return jax.tree.map(lambda leaf: 1.01 * leaf, g), value

    last, values = jax.lax.scan(step, g, jnp.stack([x, x, x]))
    assert jax.tree.structure(last) == jax.tree.structure(g)
    np.testing.assert_allclose(values[0], gj.log_prob(g, x), rtol=1e-5)
    _, again = jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, step(s[1], x)[0]), (0, g)
    )
    chex.assert_trees_all_close(again, last, rtol=1e-6)
    chosen = jax.lax.cond(True, lambda g: gj.entropy(g), lambda g: gj.log_prob(g, x), g)
    np.testing.assert_allclose(chosen, gj.entropy(g), rtol=1e-6)
    saved = jax.grad(jax.checkpoint(gj.log_prob), 1)(g, x)
    np.testing.assert_allclose(saved, jax.grad(gj.log_prob, 1)(g, x), rtol=1e-6)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_tree_of_anything_unflattens(kind):
    g, _ = make(kind)
    shapes = jax.tree.map(jnp.shape, g)
    assert type(shapes.cov) is type(g.cov)
    assert jax.tree.leaves(jax.tree.map(lambda _: None, g)) == []
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(g)]
    assert paths[0] == ".mean"


@pytest.fixture
def small_heap():
    """Each search for leaks collects garbage: not among what was there before.

    All of that counts as in use, so that a leak into something old is found as well.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize(
    ("kind", "d"), [(kind, 3) for kind in STRUCTURES] + [(kind, 17) for kind in sorted(BASIC)]
)
def test_nothing_trips_over_hostile_settings(kind, d):
    g, x = make(kind, d)
    with jax.debug_nans(True), jax.checking_leaks(), jax.debug_key_reuse(True):
        key = jax.random.key(1)
        quick_jit(gj.sample)(key, g)
        quick_jit(jax.grad(gj.log_prob))(g, x)
        if kind in BASIC:
            quick_jit(jax.grad(gj.kl_divergence))(g, gj.standard(d))


LEAKED = []


@pytest.mark.usefixtures("small_heap")
def test_the_search_for_leaks_finds_one():
    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked"):
        jax.jit(lambda x: LEAKED.append(x) or 2 * x)(1.0)
    LEAKED.clear()


def test_arguments_may_be_donated():
    g, x = make("cholesky")
    expected = gj.score(g, x)
    np.testing.assert_allclose(
        jax.jit(gj.score, donate_argnums=1)(g, jnp.copy(x)), expected, rtol=1e-6
    )


def test_a_batch_never_becomes_a_batch_of_lapack_calls_on_a_cpu():
    """jaxlib up to 0.10.2 can deadlock in two batched LAPACK calls at once (`linalg/lapack.py`)."""
    d = 17
    matrices = jnp.broadcast_to(jnp.eye(d), (5, d, d))
    functions = [
        linalg.cholesky,
        linalg.symmetric_sqrt,
        lambda m: linalg.factor_of_sum(m, m),
        lambda m: linalg.solve_lower(m, m),
        lambda m: gj.kl_divergence(
            gj.Gaussian(jnp.zeros(d), gj.Cholesky(m)),
            gj.Gaussian(jnp.ones(d), gj.PrecisionCholesky(m)),
        ),
    ]
    for function in functions:
        for program in (
            function,
            jax.vmap(function),
            jax.grad(lambda m, f=function: jnp.sum(f(m))),
        ):
            text = jax.jit(program).lower(matrices).compile().as_text()
            calls = [line for line in text.splitlines() if "lapack_" in line]
            assert calls
            assert not any("[5," in line.split("custom-call")[0] for line in calls), calls


@pytest.mark.skipif(
    "jax_custom_jvp3" not in jax.config.values, reason="this JAX has one kind alone"
)
def test_derivatives_are_the_same_under_the_newer_rules_of_jax():
    program = Path(__file__).with_name("newer_rules.py")
    newer = {"JAX_CUSTOM_JVP3": "1", "JAX_CUSTOM_VJP3": "1"}
    result = subprocess.run(
        [sys.executable, program],
        env=os.environ | newer, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = newer_rules.derivatives()
    for name, values in json.loads(result.stdout).items():
        for got, wanted in zip(values, expected[name], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("d", [3, 20])
def test_the_derivative_of_a_factor_takes_the_symmetric_part_of_a_change(d):
    """JAX 0.12's own mirrors the lower triangle of the tangent."""
    rng = np.random.default_rng(0)
    matrix, change = jnp.eye(d) + 0.5, jnp.asarray(rng.normal(size=(d, d)), jnp.float32)
    lower, moved = jax.jvp(linalg.cholesky, (matrix,), (change,))
    symmetric = np.asarray(change + change.T, float) / 2
    again = np.asarray(moved, float) @ np.asarray(lower, float).T
    np.testing.assert_allclose(again + again.T, symmetric, atol=1e-5)
    cotangent = jax.grad(lambda m: jnp.sum(linalg.cholesky(m) ** 3))(matrix)
    np.testing.assert_array_equal(cotangent, cotangent.T)
