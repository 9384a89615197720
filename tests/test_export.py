"""Functions of Gaussians as bytes: `jax.export` with an unknown batch size, in a fresh process."""

import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import DENSE, STRUCTURES
from compiling import QUICK_FLAGS, quick_jit
from jax import export

import gaussjax as gj

KEY = jax.random.key(0)
# Dense kernels change at 16.
CASES = [(kind, d) for kind in STRUCTURES for d in (4, 18) if d == 4 or kind in DENSE]


# Of a batch of Gaussians and of vectors; Gaussians among the results.
FUNCTIONS = {
    "log_prob": lambda g, x: gj.log_prob(g, x),
    "gradient": lambda g, x: jax.grad(lambda g: jnp.sum(gj.log_prob(g, x)))(g),
    "kl": lambda g, x: gj.kl_divergence(g, gj.from_scale(x, 1.5)),
    "kl of two": lambda g, x: gj.kl_divergence(g, gj.scale_by(g, 1.5)),
    "gradient of kl": lambda g, x: jax.grad(
        lambda g: jnp.sum(gj.kl_divergence(g, gj.standard(g.dim)))
    )(g),
    "cross_entropy": lambda g, x: gj.cross_entropy(g, gj.from_scale(x, 1.5)),
    "entropy": lambda g, x: gj.entropy(g),
    "moments": lambda g, x: (
        gj.mean(g),
        gj.variance(g),
        gj.stddev(g),
        gj.covariance(g),
        gj.precision(g),
    ),
    "sample": lambda g, x: gj.sample(KEY, g, (2,)),
    "sample_and_log_prob": lambda g, x: gj.sample_and_log_prob(KEY, g),
    "color": lambda g, x: (gj.color(g, x), gj.color_symmetric(g, x), gj.whiten(g, x)),
    "score": lambda g, x: (gj.score(g, x), gj.mahalanobis(g, x)),
    "algebra": lambda g, x: (gj.logdet(g), gj.solve(g, x), gj.matvec(g.cov, x)),
    "trace_solve": lambda g, x: gj.trace_solve(g.cov, gj.from_scale(x, 1.5).cov),
    "add": lambda g, x: gj.add(g.cov, gj.standard(g.dim).cov),
    "shift": lambda g, x: gj.shift(g, x),
    "scale_by": lambda g, x: (gj.scale_by(g, x), gj.scale_by(g, 2.0)),
    "affine": lambda g, x: gj.affine(g, jnp.eye(2, g.dim), offset=x[:, :2]),
    "marginal": lambda g, x: gj.marginal(g, [0, 2]),
    "condition": lambda g, x: (
        gj.condition(g, [1], x[:, :1]),
        gj.condition(g, jnp.array([1]), x[:, :1]),
    ),
    "condition_where": lambda g, x: gj.condition_where(g, x, mask=x > 0),
    "log_prob_observed": lambda g, x: gj.log_prob_observed(g, x, mask=x > 0),
    "impute": lambda g, x: gj.impute(KEY, g, x, mask=x > 0),
    "convolve": lambda g, x: gj.convolve(g, gj.standard(g.dim)),
    "joint": lambda g, x: gj.joint(g, jnp.eye(2, g.dim), gj.standard(2)),
    "observe": lambda g, x: gj.observe(g, jnp.eye(2, g.dim), gj.standard(2), x[:, :2]),
    "product": lambda g, x: gj.product(g, gj.standard(g.dim)),
    "concatenate": lambda g, x: gj.concatenate([g, gj.standard(1)]),
    "stack": lambda g, x: gj.stack([g, g]),
    "take": lambda g, x: (gj.take(g, 0), gj.take(g, jnp.array([1]))),
    "broadcast_to": lambda g, x: gj.broadcast_to(g, (2, *g.batch_shape)),
    "as_cholesky": lambda g, x: gj.as_cholesky(g),
    "safe_cholesky": lambda g, x: gj.linalg.safe_cholesky(gj.covariance(g), jitter=1e-6),
    "downdate": lambda g, x: gj.linalg.downdate(gj.as_cholesky(g).cov.lower, 0.1 * x[:, :, None]),
    "from_covariance": lambda g, x: gj.from_covariance(x, gj.covariance(g)),
}
FEW = ("log_prob", "gradient", "gradient of kl", "sample", "condition_where", "observe")


def program_of(kind, d):
    """All functions of one structure, and of the others those that call their kernels."""
    names = FUNCTIONS if (kind, d) == ("cholesky", 4) else FEW
    return lambda g, x: {name: FUNCTIONS[name](g, x) for name in names}


CHILD = """
import pickle, sys
from pathlib import Path
import jax, gaussjax
for path in Path(sys.argv[1]).glob("*.exported"):
    program = jax.export.deserialize(path.read_bytes())
    arguments = pickle.loads(path.with_suffix(".arguments").read_bytes())
    path.with_suffix(".results").write_bytes(pickle.dumps(program.call(*arguments)))
"""


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """Results of every program, exported here and called in one fresh process."""
    folder = tmp_path_factory.mktemp("exported")
    (b,) = export.symbolic_shape("b")
    expected = {}
    for kind, d in CASES:
        covs = [STRUCTURES[kind](np.random.default_rng(i), d, np.float32)[0] for i in range(3)]
        cov = jax.tree.map(lambda *leaves: jnp.stack(leaves), *covs)
        g, x = gj.Gaussian(jnp.ones((3, d)), cov), jnp.linspace(-1.0, 1.0, 3 * d).reshape(3, d)
        of_any_batch = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype), (g, x)
        )
        exported = export.export(jax.jit(program_of(kind, d)))(*of_any_batch)
        path = folder / f"{kind}-{d}.exported"
        path.write_bytes(exported.serialize())
        path.with_suffix(".arguments").write_bytes(pickle.dumps((g, x)))
        expected[kind, d] = path, g, x
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK_FLAGS])
    result = subprocess.run(
        [sys.executable, "-c", CHILD, folder],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return expected


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("export")
@pytest.mark.parametrize(("kind", "d"), CASES)
def test_every_function_goes_through_bytes_with_any_batch_size(called, kind, d):
    path, g, x = called[kind, d]
    got = pickle.loads(path.with_suffix(".results").read_bytes())
    expected = quick_jit(program_of(kind, d))(g, x)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for name, values in expected.items():
        for a, e in zip(jax.tree.leaves(got[name]), jax.tree.leaves(values), strict=True):
            size = float(np.max(np.abs(e), initial=1e-3))
            np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-4 * size, err_msg=name)


def test_a_structure_has_one_name_in_bytes_and_static_fields_come_back():
    law = gj.Gaussian(jnp.zeros((2, 3)), gj.Kronecker((gj.Isotropic(1.0, 1), gj.Isotropic(2.0, 3))))
    exported = export.export(jax.jit(lambda g: gj.shift(g, jnp.ones(3))))(law)
    again = export.deserialize(exported.serialize())
    assert again.in_tree == exported.in_tree
    assert [f.dim for f in again.call(law).cov.factors] == [1, 3]
