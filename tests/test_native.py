"""Native kernels: the same as the plain computation, in every program; absent without harm."""

import functools
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gaussjax as gj
from gaussjax.linalg import (
    factor,
    moments,
    orthonormal,
    roots,
    semidefinite,
    sums,
    triangular,
)
from gaussjax.linalg import vector_products as vectors
from gaussjax.linalg._kernels import native
from gaussjax.linalg.laws import conditional, divergence, exchange, trace

pytestmark = pytest.mark.skipif(not native.kernels(), reason="there are no native kernels here")

SIZES = (2, 3, 8, 9, 16, 33)
DTYPES = ("float32", "float64")


def lower(rng, d):
    return np.tril(rng.normal(size=(d, d)) * 0.3 / np.sqrt(d)) + np.diag(rng.uniform(0.5, 2, d))


def spd(rng, d):
    root = lower(rng, d)
    return root @ root.T


def vector(rng, d):
    return rng.normal(size=d)


def wide(rng, d):
    return rng.normal(size=(d, d + 2))


def tall(rng, d):
    return rng.normal(size=(d, max(d // 2, 1)))


def measured(rng, d):
    return rng.normal(size=(max(d // 2, 1), d))


def noise(rng, d):
    return lower(rng, max(d // 2, 1))


def values(rng, d):
    return vector(rng, max(d // 2, 1))


def exchanged(rng, d):
    """[Z, T; S] and pairs of an observation that is more precise than what was known."""
    h, r = measured(rng, d), 1e-3 * noise(rng, d)
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, exchange.eliminate(h, r, np.ones(d)))


@functools.cache
def kept_and_given(d):
    order = np.random.default_rng(d).permutation(d)
    m = max(d // 2, 1)
    return tuple(np.sort(order[m:]).tolist()), tuple(np.sort(order[:m]).tolist())


# The kernel of each name, for a size, and what makes its arguments.
KERNELS = {
    "cholesky": (lambda d: factor._factor, (spd,)),
    "cholesky_cotangent": (lambda d: factor._cotangent, (lower, lower)),
    "divergence": (lambda d: divergence._value, (lower, lower, vector)),
    "divergence_gradients": (lambda d: divergence._gradients_of_batch, (lower, lower, vector)),
    "trace": (lambda d: trace._value, (lower, lower, vector)),
    "trace_gradients": (lambda d: trace._gradients_of_batch, (lower, lower, vector)),
    "solve_lower": (lambda d: triangular._solver(transpose=False), (lower, tall)),
    "solve_lower_transpose": (lambda d: triangular._solver(transpose=True), (lower, tall)),
    "solutions": (lambda d: triangular._both, (lower, vector)),
    "product": (lambda d: vectors._times_one_by_one, (lower, vector)),
    "inv_quad": (lambda d: triangular._length, (lower, vector)),
    "triangular_root": (lambda d: roots._root, (wide,)),
    "rank_revealing_root": (lambda d: semidefinite._by_rows, (wide,)),
    "orthonormal_rows": (lambda d: orthonormal._rows_in_turn, (wide,)),
    "moments": (lambda d: moments._moments, (wide, lambda rng, d: rng.uniform(0, 2, size=d))),
    "root_of_sum": (lambda d: sums._root, (spd, wide)),
    "root_cotangent": (lambda d: roots._cotangent, (lower, wide, lower)),
    "exchange": (lambda d: exchange._exchange_of, (measured, noise, lambda rng, d: np.ones(d))),
    "exchange_cotangents": (lambda d: exchange._cotangents, (exchanged, wide)),
    "observe": (lambda d: conditional._observed_in_tiles, (wide, measured, noise, values)),
    "condition_triangle": (lambda d: conditional._condition(*kept_and_given(d)), (lower, values)),
    "reordered_root": (lambda d: conditional._reordered_root(*kept_and_given(d)), (lower,)),
}


def cotangents(rng, moves, factor, d):
    (rows, m), k = moves.shape, factor.shape[1]
    return rng.normal(size=(rows, k + m)), rng.normal(size=(rows, m)), rng.normal(size=())


def arguments(name, d, dtype, size=21):
    rng = np.random.default_rng(d)
    made = [[make(rng, d) for make in KERNELS[name][1]] for _ in range(size)]
    if name == "root_of_sum":  # the matrix is that of the factor
        made = [[f @ f.T, f] for _, f in made]
    if name == "exchange_cotangents":
        made = [[*z, f, *cotangents(rng, z.moves, f, d)] for z, f in made]
    return [np.stack(x).astype(dtype) for x in zip(*made, strict=True)]


def plain(kernel, *arrays):
    """Each element of a batch by itself, in JAX alone."""
    one_by_one = jax.jit(lambda arrays: jax.lax.map(lambda x: kernel.__wrapped__(*x), arrays))
    return jax.tree.leaves(one_by_one(arrays))


def assert_near(got, want, dtype, factor=1.0):
    for x, y in zip(jax.tree.leaves(got), want, strict=True):
        if y.size:
            scale = np.max(np.abs(y))
            np.testing.assert_allclose(x, y, rtol=0, atol=factor * scale * np.finfo(dtype).eps)


def test_every_kernel_is_tested_here():
    assert set(KERNELS) == set(gj.linalg.kernels())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_what_jax_does(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        for d in SIZES:
            kernel, arrays = KERNELS[name][0](d), arguments(name, d, dtype)
            reference = [x.astype("float64") for x in arrays]
            with jax.enable_x64(True):
                want = plain(kernel, *reference)
            assert_near(jax.jit(jax.vmap(kernel))(*arrays), want, dtype, 30 * (d + 1))


def test_an_export_of_many_points_solves_for_them_together():
    g = gj.Gaussian(jnp.zeros(16), gj.Cholesky(jnp.eye(16)))
    exported = jax.export.export(jax.jit(gj.log_prob))(g, jnp.ones((100, 16)))
    assert "stablehlo.while" not in exported.mlir_module()


def test_what_has_no_distance_or_direction_is_nan():
    lower = np.eye(20, dtype=np.float32)
    lower[-1, -1] = np.inf
    assert np.isnan(triangular._length(jnp.asarray(lower), jnp.ones(20)))
    rows = np.concatenate([np.eye(2, 5), np.zeros((1, 5))]).astype(np.float32)
    lower, units = jax.vmap(orthonormal._rows_in_turn)(np.stack([rows] * 3))
    want = orthonormal._rows_in_turn.__wrapped__(jnp.asarray(rows))
    np.testing.assert_array_equal(lower[0], want[0])
    np.testing.assert_array_equal(units[0], want[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "size"), [(20, 3), (40, 1), (300, 9)])
@pytest.mark.parametrize("name", ["inv_quad", "orthonormal_rows", "solutions"])
def test_few_matrices_and_large_ones_go_one_by_one(name, d, size, dtype):
    with jax.enable_x64(dtype == "float64"):
        kernel, arrays = KERNELS[name][0](d), arguments(name, d, dtype, size)
        with jax.enable_x64(True):
            want = plain(kernel, *(x.astype("float64") for x in arrays))
        mapped = jax.jit(jax.vmap(kernel))
        assert f"gaussjax.{name}" in mapped.lower(*arrays).as_text()
        assert_near(mapped(*arrays), want, dtype, 30 * (d + 1))
        alone = jax.jit(kernel)
        assert f"gaussjax.{name}" in alone.lower(*(x[0] for x in arrays)).as_text()
        got = [x[None] for x in jax.tree.leaves(alone(*(x[0] for x in arrays)))]
        assert_near(got, [x[:1] for x in want], dtype, 30 * (d + 1))


def test_long_rows_keep_their_digits():
    rows = np.abs(np.random.default_rng(0).normal(size=(3, 200_000))).astype(np.float32) + 1
    lower, units = orthonormal._rows_in_turn(jnp.asarray(rows))
    want = np.linalg.cholesky(rows.astype(float) @ rows.astype(float).T)
    np.testing.assert_allclose(lower, want, rtol=3e-6, atol=3e-6 * np.max(want))
    units = np.asarray(units, float)
    np.testing.assert_allclose(units @ units.T, np.eye(3), atol=1e-6)


def test_one_singular_matrix_has_the_distance_that_it_has_among_others():
    lower = np.diag(np.array([2.0, 0.0, 1.0] * 8, np.float32))
    on, off = np.ones(24, np.float32), np.ones(24, np.float32)
    on[1::3] = 0
    for vector, want in ((on, 8 / 4 + 8), (off, np.inf), (np.full(24, np.nan), np.nan)):
        alone = triangular._length(jnp.asarray(lower), jnp.asarray(vector, jnp.float32))
        np.testing.assert_allclose(alone, want, rtol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_takes_what_the_batch_shares_and_a_batch_of_batches(name):
    d = 9
    kernel, arrays = KERNELS[name][0](d), arguments(name, d, "float32", 12)
    whole = jax.vmap(kernel)(*arrays)
    nested = [x.reshape(3, 4, *x.shape[1:]) for x in arrays]
    twice = jax.tree.leaves(jax.vmap(jax.vmap(kernel))(*nested))
    for x, y in zip(twice, jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(x.reshape(y.shape), y)
    for i, shared in enumerate(arrays[:-1]):
        axes = [None if j == i else 0 for j in range(len(arrays))]
        own = [shared[0] if j == i else x for j, x in enumerate(arrays)]
        same = [np.broadcast_to(x[:1], x.shape) if j == i else x for j, x in enumerate(arrays)]
        got = jax.tree.leaves(jax.vmap(kernel, in_axes=axes)(*own))
        for x, y in zip(got, jax.tree.leaves(jax.vmap(kernel)(*same)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", KERNELS)
def test_a_bad_matrix_leaves_its_neighbours_alone(name, bad):
    kernel, arrays = KERNELS[name][0](9), arguments(name, 9, "float32")
    good = jax.tree.leaves(jax.vmap(kernel)(*arrays))
    arrays[0][5, 0, 0] = bad
    for x, y in zip(jax.tree.leaves(jax.vmap(kernel)(*arrays)), good, strict=True):
        np.testing.assert_array_equal(np.delete(x, 5, 0), np.delete(y, 5, 0))


def total(lower, mean, x):
    g = gj.Gaussian(mean, gj.Cholesky(lower))
    law = gj.condition(g, [0, 3], x[..., :2])
    return jnp.sum(gj.log_prob(g, x)) + jnp.sum(gj.kl_divergence(law, gj.standard(7)))


def batch():
    rng = np.random.default_rng(0)
    arrays = (np.stack([lower(rng, 9) for _ in range(8)]), *rng.normal(size=(2, 8, 9)))
    return tuple(x.astype(np.float32) for x in arrays)


def test_what_is_exported_needs_no_kernels():
    gradient = jax.jit(jax.grad(total))
    assert "gaussjax." in gradient.lower(*batch()).as_text()
    exported = jax.export.export(gradient)(*batch())
    assert "gaussjax." not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(*batch()), gradient(*batch()), rtol=1e-3, atol=1e-4)


def test_without_jit_every_operation_runs_by_itself():
    expected = jax.grad(total)(*batch())
    with jax.disable_jit():
        np.testing.assert_allclose(jax.grad(total)(*batch()), expected, rtol=1e-3, atol=1e-4)


def test_calls_at_once_do_not_wait_for_each_other():
    rng = np.random.default_rng(0)
    matrices = jnp.asarray(np.stack([spd(rng, 12)] * 4000).astype(np.float32))
    factor = jax.jit(jax.vmap(gj.linalg.cholesky))
    want, found = np.asarray(factor(matrices)), []

    def work():
        for _ in range(50):
            found.append(np.array_equal(factor(matrices), want))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(found) == 200
    assert all(found)


WITHOUT = """
import numpy as np, jax, gaussjax as gj
from tests.test_native import batch, total
assert gj.linalg.kernels() == ()
gradient = jax.jit(jax.grad(total))
assert "gaussjax." not in gradient.lower(*batch()).as_text()
print(*np.ravel(gradient(*batch())).tolist())
"""


def test_without_kernels_results_are_the_same_to_rounding():
    env = {**os.environ, native.SWITCH: "0"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, env=env
    )
    plain = np.array(run.stdout.split(), float).reshape(8, 9, 9)
    np.testing.assert_allclose(jax.grad(total)(*batch()), plain, rtol=1e-3, atol=1e-4)
