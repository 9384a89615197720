"""Functions of Gaussians given by roots: conditionals, divergences, traces."""
