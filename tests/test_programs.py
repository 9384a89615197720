"""What compiled programs hold, which decides their speed: memory, factorisations, operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import random_lower

import gaussjax as gj

FACTORISATIONS = ("potrf", "cholesky")


def batch(size, d, seed=0):
    rng = np.random.default_rng(seed)
    lower = np.broadcast_to(random_lower(rng, d), (size, d, d))
    return gj.Gaussian(jnp.zeros((size, d)), gj.Cholesky(jnp.asarray(lower)))


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def total(function):
    return lambda *arguments: jnp.sum(function(*arguments))


def temporary_bytes_of_divergences(d):
    p, q = batch(500, d), batch(500, d, 1)
    for function in (gj.kl_divergence, jax.grad(total(gj.kl_divergence), (0, 1))):
        yield compiled(function, p, q).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("d", [20, 64])
def test_a_divergence_keeps_less_in_between_than_half_of_a_factor(d):
    assert max(temporary_bytes_of_divergences(d)) < 500 * 4 * d * d / 2


def test_what_a_large_divergence_keeps_in_between_is_of_one_matrix():
    d = 72
    vectors = 2 * 500 * 4 * d  # such as the difference of the means
    assert max(temporary_bytes_of_divergences(d)) < vectors + 20 * 4 * d * d


@pytest.mark.parametrize("d", [8, 16])
def test_the_gradient_of_a_small_divergence_keeps_a_tile_and_not_the_batch(d):
    p, q = batch(20_000, d), batch(20_000, d, 1)
    program = compiled(jax.grad(total(gj.kl_divergence), (0, 1)), p, q)
    assert program.memory_analysis().temp_size_in_bytes < 20_000 * 4 * d * d / 2


def test_a_density_and_a_sample_of_a_batch_copy_no_factor():
    g, x = batch(2_000, 32), jnp.zeros((2_000, 32))
    factor = 2_000 * 4 * 32 * 32
    for function in (gj.log_prob, lambda g, x: gj.sample(jax.random.key(0), g)):
        assert compiled(function, g, x).memory_analysis().temp_size_in_bytes < factor / 4


@pytest.mark.parametrize(("d", "vectors"), [(64, 2), (256, 16)])  # 16 that rows are summed up in
def test_samples_of_larger_factors_copy_none_either(d, vectors):
    g = batch(200, d)
    program = compiled(gj.color, g, g.mean)
    assert program.memory_analysis().temp_size_in_bytes <= 1.1 * vectors * g.mean.nbytes


@pytest.mark.parametrize("d", [16, 32, 64, 256])
def test_a_sample_draws_its_noise_once_and_not_for_every_row(d):
    def operations(function):
        return compiled(function, batch(200, d), jnp.ones((200, d))).cost_analysis()["flops"]

    noise = operations(lambda g, x: jax.random.normal(jax.random.key(0), x.shape))
    sample = operations(lambda g, x: gj.sample(jax.random.key(0), g))
    assert sample < operations(gj.color) + 1.1 * noise


@pytest.mark.parametrize("d", [2, 4, 8, 12])
def test_a_sample_in_float64_reads_its_noise_and_does_not_compute_it_in_every_row(d):
    with jax.enable_x64(True):
        g = jax.tree.map(lambda x: x.astype(jnp.float64), batch(1_000, d))
        text = compiled(lambda g: gj.sample(jax.random.key(0), g), g).as_text()
    (result,) = [line for line in text[text.index("ENTRY") :].splitlines() if "ROOT" in line]
    operands = result[result.index("fusion(") : result.index(")", result.index("fusion("))]
    assert operands.count("%") <= 4  # mean, factor, noise, and which factors are valid


# From JAX 0.12 on XLA copies the matrix before the LAPACK call, whatever layout is asked for.
COPIES = tuple(map(int, jax.__version__.split(".")[:2])) >= (0, 12)


@pytest.mark.skipif(COPIES, reason="the XLA of JAX 0.12 copies the matrix")
@pytest.mark.parametrize("solve", [gj.linalg.solve_lower, gj.linalg.solve_lower_transpose])
def test_a_vector_is_solved_for_without_a_copy_of_the_matrix(solve):
    lower = jnp.eye(512)
    alone = compiled(solve, lower, lower[0])
    assert alone.memory_analysis().temp_size_in_bytes < lower.nbytes / 4
    many = compiled(jax.vmap(solve), jnp.stack([lower] * 3), lower[:3])
    slice_of_the_loop = lower.nbytes
    assert many.memory_analysis().temp_size_in_bytes < 1.25 * slice_of_the_loop


def test_more_vectors_than_matrices_are_columns_of_one_solve():
    lower, x = jnp.stack([jnp.eye(40)] * 3), jnp.ones((500, 3, 40))
    text = compiled(jax.vmap(jax.vmap(gj.linalg.solve_lower), (None, 0)), lower, x).as_text()
    assert "f32[40,500]{0,1}" in text  # the columns of a matrix, in the LAPACK's order


@pytest.mark.parametrize("d", [4, 8, 12, 40])
def test_many_points_in_each_of_a_few_gaussians_keep_no_matrix_each(d):
    g, x = (
        gj.Gaussian(jnp.zeros((3, d)), gj.Cholesky(jnp.stack([jnp.eye(d)] * 3))),
        jnp.ones((500, 3, d)),
    )
    for function in (gj.log_prob, gj.whiten, gj.color):
        for program in (total(function), jax.grad(total(function))):
            assert compiled(program, g, x).memory_analysis().temp_size_in_bytes < 8 * x.size * 4


def test_a_large_divergence_skips_the_half_of_its_products_that_is_zero():
    def operations(size):
        gradient = jax.grad(total(gj.kl_divergence), (0, 1))
        p, q = (gj.Gaussian(jnp.zeros(size), gj.Cholesky(jnp.eye(size))) for _ in range(2))
        return compiled(gradient, p, q).cost_analysis()["flops"]

    # XLA counts no LAPACK call, and the gradient's one product alone is 2 d³ as a whole.
    assert operations(1024) < 1.5 * 1024**3


@pytest.mark.parametrize("d", [4, 16, 20, 24, 40])
def test_many_vectors_of_one_gaussian_keep_no_matrix_each_and_are_solved_together(d):
    g, x = gj.Gaussian(jnp.zeros(d), gj.Cholesky(2 * jnp.eye(d))), jnp.ones((1_000, d))
    functions = [gj.log_prob, gj.color, gj.whiten]
    functions += [lambda g, x: gj.kl_divergence(gj.Gaussian(x, g.cov), g)] * (d == 40)
    for function in functions:
        program = compiled(jax.grad(total(function)), g, x)
        assert program.memory_analysis().temp_size_in_bytes < 8 * x.size * 4
        assert "while(" not in program.as_text()


@pytest.mark.parametrize("d", [24, 40])
def test_the_density_of_many_points_in_one_larger_gaussian_is_one_solve(d):
    g = gj.Gaussian(jnp.zeros(d), gj.Cholesky(jnp.eye(d)))
    text = compiled(gj.log_prob, g, jnp.ones((100, d))).as_text()
    calls = [line for line in text.splitlines() if "custom-call(" in line]
    assert sum("trsm" in line or "gaussjax.inv_quad" in line for line in calls) == 1
    assert "while(" not in text


def test_eager_solves_are_compiled_once():
    gj.linalg.solve_lower(jnp.eye(3), jnp.full(3, 1.0))
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        logged = []
        patch.setattr("logging.Logger.warning", lambda _, message, *args: logged.append(message))
        for x in (2.0, 3.0):
            solved = gj.linalg.solve_lower(jnp.eye(3), jnp.full(3, x))
            np.testing.assert_array_equal(solved, np.full(3, x))
    assert not [message for message in logged if "solve" in message]


def test_a_matrix_is_factorised_once_for_a_value_and_its_gradient():
    a, b = (jnp.asarray(random_lower(np.random.default_rng(s), 40)) for s in (0, 1))

    def kl(a, b):
        p, q = (gj.from_covariance(jnp.zeros(40), jnp.matmul(x, x.T)) for x in (a, b))
        return gj.kl_divergence(p, q)

    text = compiled(jax.value_and_grad(kl, (0, 1)), a, b).as_text()
    calls = [line for line in text.splitlines() if "custom-call(" in line]
    assert sum(any(name in line for name in FACTORISATIONS) for line in calls) == 2


@pytest.mark.parametrize("d", [8, 20])
def test_vmap_and_leading_axes_compile_to_the_same_work(d):
    p, q = batch(100, d), batch(100, d, 1)
    costs = []
    for function in (gj.kl_divergence, jax.vmap(gj.kl_divergence)):
        program = compiled(function, p, q)
        costs.append((program.cost_analysis()["flops"], program.memory_analysis()))
    assert costs[0][0] == costs[1][0]
    assert costs[0][1].temp_size_in_bytes == costs[1][1].temp_size_in_bytes


@pytest.mark.parametrize(
    ("d", "size"), [(6, 0), (6, 1), (6, 128), (6, 129), (6, 300), (12, 0), (12, 1025)]
)
def test_tiles_give_every_element_of_a_batch_its_own_gradient(size, d):
    rng = np.random.default_rng(size)
    p, q = (
        gj.Gaussian(
            jnp.asarray(rng.normal(size=(size, d)), jnp.float32),
            gj.Cholesky(jnp.asarray(_factors(rng, size, d))),
        )
        for _ in range(2)
    )
    found = jax.jit(jax.grad(total(gj.kl_divergence), (0, 1)))(p, q)
    alone = jax.jit(
        lambda p, q: jax.lax.map(lambda g: jax.grad(gj.kl_divergence, (0, 1))(*g), (p, q))
    )
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(alone(p, q)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def test_one_bad_element_stays_alone_in_its_tile():
    p, q = batch(300, 6), batch(300, 6, 1)
    bad = gj.Gaussian(q.mean, gj.Cholesky(q.cov.lower.at[129, 3, 3].set(-1.0)))
    gradient = jax.jit(jax.grad(total(gj.kl_divergence)))
    good, found = gradient(p, q), gradient(p, bad)
    others = np.arange(300) != 129
    np.testing.assert_array_equal(found.cov.lower[others], good.cov.lower[others])


def _factors(rng, size, d):
    return np.tril(0.3 * rng.normal(size=(size, d, d)), -1).astype(np.float32) + 1.5 * np.eye(
        d, dtype=np.float32
    )


@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_no_dimension_are_empty(batched):
    lead = (3,) if batched else ()
    g = gj.Gaussian(jnp.zeros((*lead, 0)), gj.Cholesky(jnp.zeros((*lead, 0, 0))))
    for function in (
        gj.kl_divergence,
        lambda p, q: gj.log_prob(p, q.mean),
        lambda p, q: gj.linalg.cholesky(p.cov.lower),
    ):
        found = jax.jit(jax.grad(total(function), (0, 1)))(g, g)
        shapes = [list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (found, (g, g))]
        assert shapes[0] == shapes[1]
