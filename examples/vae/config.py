"""Everything that a run can choose; the command line is made from it."""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a variational autoencoder on handwritten digits."""

    data: Literal["digits", "mnist"] = "digits"
    """digits: scikit-learn's 8×8 counts, always at hand. mnist: needs --data-dir."""
    data_dir: Path | None = None
    """Folder of the four MNIST IDX files."""
    out_dir: Path = Path("runs/vae")
    """Where numbers, pictures and checkpoints go."""
    resume: bool = False
    """Go on from the newest good checkpoint in --out-dir."""
    seed: int = 0

    posterior: Literal["diagonal", "full"] = "full"
    """Covariance of q(z|x)."""
    prior: Literal["standard", "learned"] = "standard"
    """N(0, I), or a Gaussian with a learned mean and full covariance."""
    latents: int = 16
    hidden: int = 256
    """Width of the two hidden layers of encoder and decoder."""

    epochs: int = 300
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_epochs: int = 5
    """Linear warm-up of the learning rate; a cosine takes it down to zero after that."""
    weight_decay: float = 0.1
    clip_norm: float = 10.0
    """Global norm that gradients are clipped to."""
    beta_epochs: int = 10
    """Epochs over which the weight of the rate rises to 1."""
    free_bits: float = 0.0
    """Nats of rate that cost nothing."""
    iwae_k: int = 1
    """Samples of the importance-weighted bound that is trained; 1 is the ELBO."""
    max_bad_batches: int = 20
    """Consecutive batches with a gradient that is not finite before the run gives up."""

    eval_samples: int = 1000
    """Samples of the importance-weighted estimate of the NLL."""
    eval_every: int = 10
    """Epochs between two evaluations and checkpoints."""
