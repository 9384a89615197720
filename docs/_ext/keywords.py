"""Words that people search for and that a page does not have, given to the search of the site.

The search knows single words and takes a page only if it has all of a query.
"""

from docutils import nodes
from sphinx.application import Sphinx

PAGES = {
    "start/tour": "install installation installing pip quickstart beginner introduction",
    "start/why": "reasons advantages comparison",
    "start/recipes": "how example snippets cookbook",
    "start/troubleshooting": "why error debug bug inf infinite nan nans slow hang deadlock freeze "
    "indefinite positive definite gpu gpus tpu cuda recompile",
    "programs": "vmap batch batched pytree jit scan cond while export pickle serialize",
    "structures": "custom own new type cost complexity",
    "structures-pictures": "choose which type diagram",
    "estimation": "fit learn estimate matrix samples sample mle maximum likelihood nan values "
    "imputation robust online streaming",
    "distances": "divergence metric score fid kl bures hellinger renyi",
    "singular": "degenerate rank deficient semidefinite zero variance invertible covariance",
    "libraries": "integration adapters convert interoperability",
    "scale": "multiple gpu gpus devices memory large million distributed parallel",
    "speed": "benchmark benchmarks fast faster performance comparison",
    "releases": "random reproducible reproducibility semver deprecation",
    "tutorials/reparameterization": "sample sampling reparameterized reparameterised "
    "reparametrized reparameterization reparameterisation reparametrization trick gradient "
    "gradients rsample pathwise",
    "tutorials/learning-a-covariance": "fit estimate mle maximum likelihood positive definite "
    "constraint",
    "tutorials/kl": "kullback leibler formula negative",
    "tutorials/vae": "vae vaes elbo encoder decoder mnist",
    "tutorials/conditioning": "conditional condition values nan impute imputation coordinates",
    "tutorials/kalman": "filter filters tracking state space rts time series",
    "tutorials/gaussian-processes": "gp gps kernel sparse",
    "tutorials/trust-regions": "rl reinforcement learning ppo trpo policy natural gradient",
    "tutorials/variational-inference": "vi advi svi elbo bayesian",
    "tutorials/scaling-out": "multiple multi gpu gpus tpu parallel sharding distributed pmap",
    "tutorials/programs": "save load checkpoint checkpoints pickle serialize restore",
    "about/background": "derivation proof formula numerics woodbury",
    "about/design": "architecture principles",
    "coming-from/tfp": "tensorflow",
    "coming-from/scipy": "multivariate_normal",
    "coming-from/scikit-learn": "sklearn scikit",
    "coming-from/torch": "torch",
    "coming-from/optimal-transport": "wasserstein",
    "coming-from/index": "library",
}
COMING_FROM = "equivalent equivalents migrate migration switch replace counterpart"
NAMES = {  # of the API
    "as_cholesky": "convert dense",
    "chi_squared_divergence": "chi2",
    "color": "reparameterize reparameterise reparametrize trick noise",
    "condition": "conditional given posterior observed",
    "condition_where": "conditional missing mask nan",
    "confidence_region": "credible interval ellipse ellipsoid",
    "correlation": "corrcoef",
    "covariance": "matrix dense",
    "fit": "estimate mle likelihood maximum samples data learn covariance",
    "fit_missing": "em nan values missing expectation maximization",
    "frechet_distance": "fid inception score",
    "from_cholesky": "scale_tril tril triangular factor",
    "from_covariance": "multivariate normal full matrix",
    "from_low_rank": "woodbury factor diagonal plus",
    "from_precision": "inverse information matrix",
    "from_scale": "diagonal independent stddev sigma",
    "from_variance": "diagonal independent",
    "impute": "fill missing values nan",
    "kl_divergence": "kullback leibler relative entropy",
    "log_prob": "density pdf logpdf likelihood log evaluate batch",
    "log_prob_observed": "missing values nan likelihood",
    "mahalanobis": "distance quadratic form",
    "marginal": "subset coordinates marginalize marginalise",
    "matvec": "multiply product vector",
    "maximum_mean_discrepancy": "mmd kernel",
    "observe": "kalman update measurement bayes linear regression",
    "precision": "inverse covariance information matrix",
    "product": "multiply experts fuse",
    "safe_cholesky": "jitter indefinite positive definite nan",
    "sample": "draw random rsample reparameterize reparameterise reparametrize trick gradient rvs",
    "smooth_step": "kalman rts rauch smoother",
    "solve": "inverse linear system",
    "stddev": "standard deviation sigma std",
    "symmetric_sqrt": "sqrtm square root matrix",
    "wasserstein2": "optimal transport bures distance w2 earth mover",
    "wasserstein2_map": "optimal transport monge",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds them once a page is read."""
    app.connect("doctree-read", add_keywords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_keywords(app: Sphinx, document: nodes.document) -> None:
    """As a tag of the page's head, which the search reads."""
    page = app.env.current_document.docname
    words = PAGES.get(page, "").split()
    if page.startswith("coming-from/"):
        words += COMING_FROM.split()
    if page.startswith("reference/names/"):
        name = page.rpartition(".")[2]
        words += [*name.lower().split("_"), *NAMES.get(name, "").split()]
    if words:
        document.insert(0, nodes.meta(name="keywords", content=", ".join(words)))
