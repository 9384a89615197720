"""Factorisations and solves: values, derivatives of every order, batches, and failures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import random_lower
from compiling import quick_jit

from gaussjax import linalg
from gaussjax.linalg._kernels.batch import kernel as kernel_of
from gaussjax.linalg.products import product_with_transpose
from gaussjax.linalg.triangular import solve_triangle
from gaussjax.linalg.vector_products import lower_times_vector

DIMS = (1, 3, 16, 17)  # on both sides of the unrolled kernels' limit


def spd(seed, d, dtype=np.float64):
    lower = random_lower(np.random.default_rng(seed), d, np.float64)
    return jnp.asarray(lower @ lower.T, dtype)


def lower(seed, d, dtype=np.float64):
    return jnp.asarray(random_lower(np.random.default_rng(seed), d, np.float64), dtype)


def vector(seed, *shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def solve_by_inverse(matrix, rhs):
    return jnp.linalg.solve(jnp.tril(matrix), rhs)


def solve_transpose_by_inverse(matrix, rhs):
    return jnp.linalg.solve(jnp.tril(matrix).T, rhs)


@pytest.mark.parametrize("d", [1, 16, 21, 32, 33, 37, 64, 65, 100, 256, 1025])
def test_products_with_vectors_never_read_above_the_diagonal(d):
    with jax.enable_x64(True):
        a = jnp.stack([lower(seed, d) for seed in (0, 1)])
        x = vector(2, 3, 2, d)
        expected = np.einsum("mij,nmj->nmi", a, x)
        a = a + jnp.triu(jnp.full((1, d, d), jnp.nan), 1)
        each = jax.vmap(lower_times_vector)
        results = [
            (jax.vmap(each, (None, 0))(a, x), expected),
            (each(a, x[0]), expected[0]),
            (jax.vmap(lower_times_vector, (None, 0))(a[0], x[:, 0]), expected[:, 0]),
            (jax.vmap(lower_times_vector, (0, None))(a, x[0, 0])[0], expected[0, 0]),
            (lower_times_vector(a[0], x[0, 0]), expected[0, 0]),
        ]
        for got, wanted in results:
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [4, 40, 70])
def test_products_with_vectors_can_be_transposed(d, dtype):
    near = 1e3 * np.finfo(dtype).eps
    with jax.enable_x64(True):
        a, x = lower(0, d, dtype), vector(1, d, dtype=dtype)
        (transposed,) = jax.linear_transpose(lambda v: lower_times_vector(a, v), x)(x)
        np.testing.assert_allclose(transposed, a.T @ x, rtol=near, atol=near)
        each = jax.vmap(lower_times_vector, (None, 0))
        (transposed,) = jax.linear_transpose(lambda v: each(a, v), x[None])(x[None])
        np.testing.assert_allclose(transposed[0], a.T @ x, rtol=near, atol=near)


@pytest.mark.parametrize("d", [16, 17, 21, 32, 40, 64, 65])
def test_solves_of_a_batch_for_vectors_never_read_above_the_diagonal(d):
    with jax.enable_x64(True):
        a, x = jnp.stack([lower(seed, d) for seed in (0, 1)]), vector(2, 2, d)
        garbage = a + jnp.triu(jnp.full((d, d), jnp.nan), 1)[None]
        for solve, matrix in (
            (linalg.solve_lower, a),
            (linalg.solve_lower_transpose, a.mT),
        ):
            expected = np.linalg.solve(matrix, x[..., None])[..., 0]
            np.testing.assert_allclose(jax.vmap(solve)(garbage, x), expected, rtol=1e-9, atol=1e-9)


def test_a_kernel_is_traced_once_for_its_value_its_batch_and_its_next_use():
    shapes = []

    def kernel(matrix):
        shapes.append(matrix.shape)
        return 2 * matrix

    twice = kernel_of("d d -> d d")(kernel)
    for _ in range(2):
        jax.jit(jax.vmap(twice))(jnp.ones((5, 3, 3)))
        jax.jit(twice)(jnp.ones((3, 3)))
    assert shapes == [(3, 3)]


def sqrt_by_newton(matrix):
    """Denman-Beavers iteration: independent of eigenvectors, and differentiable."""

    def step(_, pair):
        y, z = pair
        return 0.5 * (y + jnp.linalg.inv(z)), 0.5 * (z + jnp.linalg.inv(y))

    return jax.lax.fori_loop(0, 30, step, (matrix, jnp.eye(len(matrix))))[0]


def factor_by_cholesky(a, b):
    return jnp.linalg.cholesky(a @ a.T + b @ b.T)


CASES = {
    "cholesky": (linalg.cholesky, jnp.linalg.cholesky, lambda d: (spd(0, d),)),
    "solve_lower": (
        linalg.solve_lower,
        solve_by_inverse,
        lambda d: (lower(0, d), vector(1, d)),
    ),
    "solve_lower, matrix": (
        linalg.solve_lower,
        solve_by_inverse,
        lambda d: (lower(0, d), vector(1, d, 2)),
    ),
    "solve_lower_transpose": (
        linalg.solve_lower_transpose,
        solve_transpose_by_inverse,
        lambda d: (lower(0, d), vector(1, d)),
    ),
    "logdet_lower": (
        linalg.logdet_lower,
        lambda x: jnp.linalg.slogdet(jnp.tril(x))[1],
        lambda d: (lower(0, d),),
    ),
    "lower_product": (
        linalg.lower_product,
        lambda a, b: jnp.tril(a) @ jnp.tril(b),
        lambda d: (lower(0, d), lower(1, d)),
    ),
    "symmetric_sqrt": (
        lambda x: linalg.symmetric_sqrt(0.5 * (x + x.T)),
        lambda x: sqrt_by_newton(0.5 * (x + x.T)),
        lambda d: (spd(0, d),),
    ),
    "factor_of_sum": (
        linalg.factor_of_sum,
        factor_by_cholesky,
        lambda d: (vector(0, d, d), vector(1, d, d + 1)),
    ),
}


def direction(arguments, seed):
    return [vector(seed + i, *x.shape) / max(x.size, 1) ** 0.5 for i, x in enumerate(arguments)]


def along(function, arguments):
    """A fixed linear functional of the function along a line through the arguments."""
    ways = direction(arguments, 10)
    weights = vector(99, *jax.eval_shape(function, *arguments).shape)

    def line(t):
        return jnp.sum(
            weights * function(*(x + t * w for x, w in zip(arguments, ways, strict=True)))
        )

    return line


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("name", CASES)
def test_values_agree_with_numpy(name, d):
    ours, naive, make = CASES[name]
    with jax.enable_x64(True):
        arguments = make(d)
        np.testing.assert_allclose(ours(*arguments), naive(*arguments), atol=1e-11 * d)


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("name", CASES)
def test_first_derivatives_agree_with_those_of_a_naive_twin(name, d):
    ours, naive, make = CASES[name]
    with jax.enable_x64(True):
        arguments = make(d)

        @quick_jit
        def derivatives(arguments):
            expected = jax.grad(along(naive, arguments))(0.0)
            return expected, [way(along(ours, arguments))(0.0) for way in (jax.grad, jax.jacfwd)]

        expected, found = derivatives(arguments)
        for got in found:
            assert abs(got - expected) <= 1e-10 * d * max(1.0, abs(expected))


@pytest.mark.parametrize("d", [3, 17])
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_agree_in_every_mix_of_modes(name, d):
    ours, naive, make = CASES[name]
    with jax.enable_x64(True):
        arguments = make(d)

        @quick_jit
        def derivatives(arguments):
            mixes = itertools.product((jax.grad, jax.jacfwd), repeat=2)
            expected = jax.grad(jax.grad(along(naive, arguments)))(0.0)
            return expected, [first(second(along(ours, arguments)))(0.0) for first, second in mixes]

        expected, found = derivatives(arguments)
        for got in found:
            assert abs(got - expected) <= 1e-9 * d * max(1.0, abs(expected))


@pytest.mark.parametrize("d", [3, 17])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_a_loop_and_so_is_vmap(name, d):
    ours, _, make = CASES[name]
    with jax.enable_x64(True):
        arguments = make(d)
        batches = [jnp.stack([x, 1.1 * x, 1.3 * x]) for x in arguments]
        looped = np.stack([ours(*(x[i] for x in batches)) for i in range(3)])
        np.testing.assert_allclose(jax.vmap(ours)(*batches), looped, rtol=1e-12, atol=1e-13)
        if name == "solve_lower" or name == "solve_lower_transpose":
            batches[-1] = batches[-1][..., None]  # a batch of vectors is a matrix to a solve
            looped = looped[..., None]
        if name != "symmetric_sqrt":  # its case symmetrises one matrix
            np.testing.assert_allclose(jax.jit(ours)(*batches), looped, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("d", [3, 128, 129, 300])
def test_triangles_of_triangles_agree_with_numpy(d):
    rng = np.random.default_rng(d)
    triangle, full, other = random_lower(rng, d), rng.normal(size=(d, d)), random_lower(rng, d)
    part = np.tril(full)  # what is above the diagonal of `full` is not read
    expected = np.linalg.solve(triangle, part), np.tril(np.linalg.solve(triangle.T, part))
    for transpose in (False, True):
        got = solve_triangle(jnp.asarray(triangle), jnp.asarray(full), transpose=transpose)
        np.testing.assert_allclose(got, expected[transpose], atol=2e-5)
    got = product_with_transpose(jnp.asarray(triangle), jnp.asarray(other))
    np.testing.assert_allclose(got, np.tril(triangle @ other.T), atol=2e-5)


@pytest.mark.parametrize("d", [4, 17])
def test_one_factor_serves_many_right_hand_sides(d):
    matrix, rhs = lower(0, d, np.float32), vector(1, 50, d, dtype=np.float32)
    got = jax.vmap(linalg.solve_lower, (None, 0))(matrix, rhs)
    np.testing.assert_allclose(got, np.linalg.solve(matrix, rhs.T).T, atol=1e-4)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("outer", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("inner", [(0, 0), (0, None), (None, 0)])
def test_vectors_and_matrices_may_share_axes_of_a_batch_or_not(inner, outer, transpose):
    rng = np.random.default_rng(0)
    d, sizes = 20, (3, 2)
    lower = np.stack([random_lower(rng, d) for _ in range(6)]).reshape(*sizes, d, d)
    vectors = rng.normal(size=(*sizes, d)).astype(np.float32)
    for axis, axes in ((1, inner), (0, outer)):
        lower, vectors = (
            x if has == 0 else x.take([0], axis)
            for x, has in zip((lower, vectors), axes, strict=True)
        )
    alone = tuple(
        x.squeeze(tuple(k for k, axes in enumerate((outer, inner)) if axes[i] is None))
        for i, x in enumerate((lower, vectors))
    )
    solve = linalg.solve_lower_transpose if transpose else linalg.solve_lower
    matrices = np.swapaxes(lower, -1, -2) if transpose else lower
    expected = np.linalg.solve(matrices, vectors[..., None])
    got = jax.vmap(jax.vmap(solve, inner), outer)(*alone)
    np.testing.assert_allclose(got, expected[..., 0], atol=2e-5)


@pytest.mark.parametrize("d", [3, 17])
def test_a_bad_matrix_is_nan_and_leaves_its_neighbours_alone(d):
    good = spd(0, d, np.float32)
    batch = jnp.stack([good, -good, good, good.at[0, 0].set(jnp.nan)])

    def total(matrices):
        return jnp.nansum(linalg.cholesky(matrices))

    alike = jnp.stack([good] * len(batch))
    factors, gradients = linalg.cholesky(batch), jax.grad(total)(batch)
    for i in (0, 2):
        np.testing.assert_array_equal(factors[i], linalg.cholesky(alike)[i])
        np.testing.assert_array_equal(gradients[i], jax.grad(total)(alike)[i])
    for i in (1, 3):
        assert jnp.all(jnp.isnan(factors[i]))


def test_numerically_singular_matrices_have_no_factor():
    ones = jnp.ones((2, 2))
    assert jnp.all(jnp.isnan(linalg.cholesky(ones)))
    assert jnp.all(jnp.isnan(linalg.cholesky(jnp.zeros((2, 2)))))
    assert jnp.all(jnp.isfinite(linalg.cholesky(ones + 1e-4 * jnp.eye(2))))


def test_cholesky_does_not_depend_on_units():
    matrix = spd(0, 4, np.float32)
    scale = jnp.float32(2.0**-40)
    np.testing.assert_array_equal(
        linalg.cholesky(matrix * scale), linalg.cholesky(matrix) * 2.0**-20
    )


@pytest.mark.parametrize("d", [3, 17])
def test_safe_cholesky_uses_the_smallest_jitter_that_works(d):
    good = spd(0, d, np.float32)
    flat = jnp.ones((d, d))
    batch = jnp.stack([good, flat, -good])
    result = jax.jit(lambda x: linalg.safe_cholesky(x, jitter=(1e-9, 1e-3, 1e-1)))(batch)
    np.testing.assert_array_equal(result.status, [0, 1, 2])
    np.testing.assert_array_equal(result.jitter, np.array([0.0, 1e-3, 0.0], np.float32))
    np.testing.assert_allclose(result.lower[0], linalg.cholesky(good), rtol=1e-6, atol=1e-6)
    rebuilt = result.lower[1] @ result.lower[1].T
    np.testing.assert_allclose(rebuilt, flat + 1e-3 * jnp.eye(d), rtol=1e-5)
    assert jnp.all(jnp.isnan(result.lower[2]))


def test_safe_cholesky_differentiates_in_reverse_under_vmap_past_a_failure():
    good = spd(0, 3, np.float32)
    batch = jnp.stack([good, -good, jnp.ones((3, 3))])

    def total(matrices):
        return jnp.nansum(jax.vmap(lambda m: linalg.safe_cholesky(m, jitter=1e-3).lower)(matrices))

    gradient = jax.grad(total)(batch)
    np.testing.assert_allclose(
        gradient[0], jax.grad(lambda m: jnp.sum(linalg.cholesky(m)))(good), rtol=1e-5
    )
    assert jnp.all(jnp.isfinite(gradient[2]))


def test_symmetric_sqrt_differentiates_at_repeated_eigenvalues():
    """At A = cI: dR = dA / (2√c), and the second derivative along S is −S²/(4 c^{3/2})."""
    way = jnp.array([[1.0, 2.0], [2.0, -1.0]])

    def root(t):
        return linalg.symmetric_sqrt(4.0 * jnp.eye(2) + t * way)

    np.testing.assert_allclose(jax.jacfwd(root)(0.0), way / 4, atol=1e-6)
    np.testing.assert_allclose(jax.jacrev(root)(0.0), way / 4, atol=1e-6)
    second = jax.jacfwd(jax.jacrev(root))(0.0)
    np.testing.assert_allclose(second, -way @ way / 32, atol=1e-6)


def test_symmetric_sqrt_takes_singular_matrices_and_refuses_indefinite_ones():
    singular = jnp.array([[1.0, 1.0], [1.0, 1.0]])
    root = linalg.symmetric_sqrt(singular)
    np.testing.assert_allclose(root @ root, singular, atol=1e-6)
    assert jnp.all(jnp.isfinite(jax.jacrev(linalg.symmetric_sqrt)(singular)))
    assert jnp.all(jnp.isnan(linalg.symmetric_sqrt(jnp.diag(jnp.array([1.0, -0.5])))))


def test_factor_of_sum_keeps_what_forming_the_sum_would_lose():
    """Läuchli: in float32, 1 + δ² rounds to 1, and the sum of the products to a singular matrix."""
    delta = np.float32(1e-5)
    a, b = jnp.ones((2, 1)), delta * jnp.eye(2)
    factor = linalg.factor_of_sum(a, b)
    assert jnp.all(jnp.isnan(linalg.cholesky(a @ a.T + b @ b.T)))
    np.testing.assert_allclose(factor[1, 1], np.sqrt(2.0) * delta, rtol=1e-2)


def test_a_thin_factor_of_sum_is_the_rank_deficient_root():
    a, b = vector(0, 4, 1, dtype=np.float32), jnp.zeros((4, 1))
    factor = linalg.factor_of_sum(a, b)
    np.testing.assert_allclose(factor @ factor.T, a @ a.T, atol=1e-6)


@pytest.mark.parametrize("d", [1, 3, 8, 16, 17, 64])
@pytest.mark.parametrize("make", ["moler", "kms", "graded"])
def test_factors_are_backward_stable_in_float32(make, d):
    matrix = FAMILIES[make](d).astype(np.float32)
    factor = np.asarray(linalg.cholesky(jnp.asarray(matrix)), float)
    exact = matrix.astype(float)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.max(np.abs(factor @ factor.T - exact) / scale) <= 4 * d * 2.0**-24
    root = np.asarray(linalg.symmetric_sqrt(jnp.asarray(matrix)), float)
    assert np.linalg.norm(root @ root - exact) <= 8 * d * 2.0**-24 * np.linalg.norm(exact)
    np.testing.assert_array_equal(root, root.T)


def _moler(d):
    unit = np.eye(d) - 0.25 * np.tril(np.ones((d, d)), -1)
    return unit @ unit.T


FAMILIES = {
    "moler": _moler,
    "kms": lambda d: 0.9 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))),
    "graded": lambda d: np.diag(10.0 ** -np.linspace(0, 6, d)) + 1e-13,
}


def test_d_zero_and_empty_batches_are_defined():
    empty = jnp.zeros((0, 0))
    assert linalg.cholesky(empty).shape == (0, 0)
    assert linalg.solve_lower(empty, jnp.zeros(0)).shape == (0,)
    assert linalg.logdet_lower(empty) == 0
    assert linalg.symmetric_sqrt(empty).shape == (0, 0)
    assert linalg.factor_of_sum(jnp.zeros((0, 2)), jnp.zeros((0, 1))).shape == (0, 0)
    assert linalg.cholesky(jnp.zeros((0, 3, 3))).shape == (0, 3, 3)
    assert linalg.cholesky(jnp.zeros((0, 17, 17))).shape == (0, 17, 17)
    assert linalg.solve_lower(jnp.zeros((0, 3, 3)), jnp.zeros(3)).shape == (0, 3)
