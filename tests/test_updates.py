"""Factors of changed matrices: values, derivatives, batches, and failures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import random_lower
from compiling import quick_jit

from gaussjax.linalg import updates

SIZES = [(0, 2), (1, 1), (3, 0), (3, 5), (16, 2), (17, 20), (40, 3)]
NAMES = ["update", "downdate", "append", "delete"]


def square(lower):
    return jnp.tril(lower) @ jnp.tril(lower).T


def bordered(lower, cross, corner):
    return jnp.block([[square(lower), cross], [cross.T, 0.5 * (corner + corner.T)]])


def case(name, d, k, dtype=np.float64):
    """The function, the dense matrix it factorises, and arguments: garbage above the diagonal."""
    rng = np.random.default_rng(d + 100 * k)
    whole, vectors = random_lower(rng, d + k, np.float64), rng.normal(size=(d, k))
    lower, matrix, gone = whole[:d, :d], whole @ whole.T, [int(i) for i in rng.permutation(d)[:k]]
    larger = np.linalg.cholesky(lower @ lower.T + vectors @ vectors.T)
    kept = np.setdiff1d(np.arange(d), gone).astype(int)
    ours, dense, arguments = {
        "update": (updates.update, lambda x, v: square(x) + v @ v.T, (lower, vectors)),
        "downdate": (
            lambda *x: updates.downdate(*x)[0],
            lambda x, v: square(x) - v @ v.T,
            (larger, vectors),
        ),
        "append": (updates.append, bordered, (lower, matrix[:d, d:], matrix[d:, d:])),
        "delete": (lambda x: updates.delete(x, gone), lambda x: square(x)[kept][:, kept], (lower,)),
    }[name]
    garbled = arguments[0] + np.triu(np.full((d, d), 7.0), 1)
    return ours, dense, [jnp.asarray(x, dtype) for x in (garbled, *arguments[1:])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_values_agree_with_dense_numpy_and_ignore_the_upper_triangle(name, d, k, dtype):
    with jax.enable_x64(True):
        ours, dense, arguments = case(name, d, k, dtype)
        matrix = np.asarray(dense(*(x.astype(np.float64) for x in arguments)))
        got = (quick_jit if dtype == np.float64 else jax.jit)(ours)(*arguments)
        assert got.dtype == dtype
        tolerance = 100 * (d + k + 1) * np.finfo(dtype).eps
        np.testing.assert_allclose(got, np.linalg.cholesky(matrix), atol=tolerance)


@pytest.mark.parametrize(("d", "k"), [(3, 5), (17, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_agree_in_both_modes_and_ignore_the_upper_triangle(name, d, k):
    with jax.enable_x64(True):
        ours, dense, arguments = case(name, d, k)
        rng = np.random.default_rng(1)
        ways = [rng.normal(size=x.shape) for x in arguments]
        weights = np.tril(rng.normal(size=jax.eval_shape(ours, *arguments).shape))

        def along(function):
            lines = list(zip(arguments, ways, strict=True))
            return lambda t: jnp.sum(weights * function(*(x + t * w for x, w in lines)))

        once, naive = along(ours), along(lambda *x: jnp.linalg.cholesky(dense(*x)))
        first, second = jax.jacfwd(naive), jax.jacfwd(jax.jacfwd(naive))
        derivatives = [jax.jacfwd(once), jax.grad(once), jax.jacfwd(jax.grad(once))]
        for got, expected in zip(derivatives, (first, first, second), strict=True):
            np.testing.assert_allclose(quick_jit(got)(0.0), quick_jit(expected)(0.0), rtol=1e-8)


@pytest.mark.parametrize("d", [3, 17])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_loop_and_so_is_vmap_and_one_factor_is_shared(name, d):
    ours, _, (lower, *rest) = case(name, d, 2, np.float32)
    lowers, *others = (jnp.stack([x, x, x]) for x in (lower, *rest))
    lowers = lowers * jnp.array([1.0, 1.1, 1.2])[:, None, None]
    looped = np.stack([ours(x, *rest) for x in lowers])
    for batched in (ours(lowers, *rest), jax.vmap(ours)(lowers, *others)):
        np.testing.assert_allclose(batched, looped, atol=1e-5)
    for shared in ours(lower, *others) if rest else ():
        np.testing.assert_allclose(shared, looped[0], atol=1e-5)


@pytest.mark.parametrize(("d", "k"), SIZES)
def test_downdate_undoes_update_and_delete_undoes_append(d, k):
    with jax.enable_x64(True):
        _, _, (lower, vectors) = case("update", d, k)
        back, status = updates.downdate(updates.update(lower, vectors), vectors)
        np.testing.assert_allclose(back, jnp.tril(lower), atol=1e-10)
        assert status == 0
        arguments = case("append", d, k)[2]
        back = updates.delete(updates.append(*arguments), range(-k, 0))
        np.testing.assert_array_equal(back, jnp.tril(arguments[0]))


@pytest.mark.parametrize("d", [3, 17])
@pytest.mark.parametrize("name", ["downdate", "append"])
def test_a_failure_is_nan_and_leaves_its_neighbours_and_what_they_share_alone(name, d):
    ours, _, (lower, *rest) = case(name, d, 1, np.float32)
    *others, last = (jnp.stack([x, x, x]) for x in rest)
    bad = last.at[1].set({"downdate": 100.0, "append": -1.0}[name])
    new = slice(0 if name == "downdate" else d, None)
    expected = ours(lower, *others, last).at[1, new].set(jnp.nan)
    np.testing.assert_array_equal(ours(lower, *others, bad), expected)
    gradient = jax.jit(jax.grad(lambda x, y: jnp.nansum(ours(x, *others, y)[:, new]), (0, 1)))
    (shared, own), (expected, own_expected) = gradient(lower, bad), gradient(lower, last)
    np.testing.assert_array_equal(own[::2], own_expected[::2])
    np.testing.assert_allclose(shared, expected * (2 / 3), rtol=1e-4, atol=1e-5)
    assert name == "append" or updates.downdate(lower, bad).status.tolist() == [0, 1, 0]


def test_what_is_left_of_the_size_of_rounding_noise_is_not_positive_definite():
    one, way = jnp.eye(2), np.eye(2, 1, dtype=np.float32)
    left = np.array([2.0**-24, 2.0**-18], np.float32)[:, None, None]
    np.testing.assert_array_equal(updates.downdate(one, way * (1 - left)).status, [1, 0])
    corner = updates.append(one, way, 1 + 2 * left)[:, 2, 2]
    np.testing.assert_allclose(corner, [np.nan, 2.0**-8.5], rtol=1e-6)


def test_downdate_keeps_what_forming_the_difference_would_lose():
    """In float32 the smallest eigenvalue, 1e-10 of the largest, is lost once A is formed."""
    lower = jnp.array([[1.0, 0.0], [1.0, 1e-5]])
    factor = updates.downdate(lower, 0.5 * lower[:, :1]).lower
    np.testing.assert_allclose(factor, [[0.75**0.5, 0.0], [0.75**0.5, 1e-5]], rtol=1e-6)


EYE, ROW = np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32)
ERRORS = {
    "vectors must have 3 rows like lower, got shape (1, 3).": lambda: updates.update(EYE, ROW),
    "cross must have 3 rows like lower, got shape (1, 3).": lambda: updates.append(EYE, ROW, EYE),
    "corner must have 1 rows like cross columns, got": lambda: updates.append(EYE, ROW.T, EYE),
    "indices must be from -3 to 2 for 3 rows, got (0, -4).": lambda: updates.delete(EYE, [0, -4]),
    "indices must differ from each other, got (1, -2)": lambda: updates.delete(EYE, (1, -2)),
    "indices must be integers, got bool.": lambda: updates.delete(EYE, [True, False, False]),
}


@pytest.mark.parametrize("sentence", ERRORS)
def test_bad_arguments_get_their_sentence(sentence):
    with pytest.raises((TypeError, ValueError)) as error:
        ERRORS[sentence]()
    assert str(error.value).startswith(sentence)
