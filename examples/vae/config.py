"""The options of a run, from which the command line is made."""

import dataclasses
from pathlib import Path
from typing import Literal

AT_LEAST_ONE = (
    "latents",
    "hidden",
    "epochs",
    "batch_size",
    "iwae_k",
    "max_bad_batches",
    "eval_samples",
    "eval_every",
    "devices",
    "processes",
    "patience",
)

EVALUATION = ("eval_samples", "eval_every", "final_samples")
WHERE = ("devices", "processes", "process_id", "coordinator", "patience")


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
    dry_run: bool = False
    """Say what the run would do and how long it would take, from two epochs; write nothing."""
    seed: int = 0
    """Seed of the parameters, the order of the data and the noise."""

    posterior: Literal["diagonal", "low-rank", "full"] = "full"
    """Covariance of q(z|x)."""
    prior: Literal["standard", "learned"] = "standard"
    """N(0, I), or a Gaussian with a learned mean and full covariance."""
    latents: int = 16
    """Dimensions of z."""
    hidden: int = 256
    """Width of the two hidden layers of encoder and decoder."""

    epochs: int = 300
    """Passes over the training images; the learning rate's schedule depends on it."""
    batch_size: int = 64
    """Images in a step; what is left of an epoch's order is dropped."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    warmup_epochs: int = 5
    """Linear warm-up of the learning rate; a cosine takes it down to zero after that."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    clip_norm: float = 10.0
    """Global norm that gradients are clipped to."""
    beta_epochs: int = 10
    """Epochs over which the weight of the rate rises to 1."""
    free_bits: float = 0.0
    """Nats of rate that cost nothing."""
    iwae_k: int = 1
    """Samples of the importance-weighted bound that is trained; 1 is the ELBO.

    Above 1, --beta-epochs and --free-bits have no effect: the bound has no separate rate."""
    max_bad_batches: int = 20
    """Consecutive batches with a gradient that is not finite before the run gives up."""

    eval_samples: int = 1000
    """Samples of the importance-weighted estimate of the NLL."""
    eval_every: int = 10
    """Epochs between two evaluations and checkpoints."""
    final_samples: int | None = None
    """Samples of the NLL in the table at the end; as many as --eval-samples if not given."""

    devices: int = 1
    """Devices of each process; all of them share every batch, so they must divide --batch-size.

    CPUs are as many devices as are asked for."""
    processes: int = 1
    """Processes of this run, on one machine or several.

    Start each with the same arguments and its own --process-id; all of them see --out-dir. Ctrl-C
    in one stops all. If one is lost the others end, and --resume goes on with any number."""
    process_id: int = 0
    """Which of the processes this one is, from 0."""
    coordinator: str | None = None
    """HOST:PORT at which the processes meet: an address of the first one's machine, a free port."""
    patience: int = 60
    """Seconds to wait for another process to start or to give a sign of life."""

    def __post_init__(self) -> None:
        """Refuses invalid options before anything is compiled."""
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                flag = f"--{name.replace('_', '-')}"
                raise SystemExit(f"{flag} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.process_id < self.processes:
            raise SystemExit(
                f"--process-id must be from 0 to {self.processes - 1}, got {self.process_id}."
            )
        if self.processes > 1 and self.coordinator is None:
            raise SystemExit("--processes needs --coordinator HOST:PORT, where they meet.")
        if self.final_samples is not None and self.final_samples < 1:
            raise SystemExit(f"--final-samples must be at least 1, got {self.final_samples}.")
        devices = self.devices * self.processes
        if self.batch_size % devices != 0:
            raise SystemExit(
                f"--batch-size must be a multiple of the {devices} devices that share a batch, "
                f"got {self.batch_size}."
            )

    @property
    def samples_at_end(self) -> int:
        """Samples of the NLL in the table at the end."""
        return self.final_samples or self.eval_samples

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.process_id == 0
