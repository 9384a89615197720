"""A variational autoencoder whose posterior is a full-covariance Gaussian.

Run it with `python -m examples.vae`; `--help` lists what can be chosen.
"""
