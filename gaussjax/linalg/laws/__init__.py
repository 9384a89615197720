"""What Gaussians with given roots say of each other: conditionals, divergences, traces."""
