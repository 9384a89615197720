"""Elementwise maps from real numbers to positive ones, with inverse and slope.

>>> Exp().log_slope(jnp.float32(2.0))
Array(2., dtype=float32)
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Exp:
    """x ↦ eˣ + floor, for diagonals.

    >>> Exp().inverse(Exp()(jnp.float32(-3.0)))
    Array(-3., dtype=float32)
    """

    floor: float = 0.0

    def __call__(self, x: Array) -> Array:
        """Positive value of an unconstrained one."""
        return jnp.exp(x) + self.floor

    def inverse(self, y: Array) -> Array:
        """Unconstrained value of a positive one above the floor; NaN below it."""
        return jnp.log(y - self.floor)

    def log_slope(self, x: Array) -> Array:
        """Logarithm of the derivative: x."""
        return x


@dataclasses.dataclass(frozen=True)
class Softplus:
    """x ↦ log(1 + eˣ) + floor, for diagonals: linear for large x, so gentler than `Exp`.

    >>> Softplus(floor=0.5)(jnp.float32(-80.0))
    Array(0.5, dtype=float32)
    """

    floor: float = 0.0

    def __call__(self, x: Array) -> Array:
        """Positive value of an unconstrained one."""
        return jax.nn.softplus(x) + self.floor

    def inverse(self, y: Array) -> Array:
        """Unconstrained value of a positive one above the floor; NaN below it."""
        excess = y - self.floor
        return excess + jnp.log(-jnp.expm1(-excess))  # log(eʸ − 1), which overflows

    def log_slope(self, x: Array) -> Array:
        """Logarithm of the derivative: −log(1 + e⁻ˣ)."""
        return -jax.nn.softplus(-x)


@dataclasses.dataclass(frozen=True)
class Bounded:
    """x ↦ exp(c + h tanh(x/h)) in [low, high], c and h the middle of their logarithms and half way.

    Like eᶜ eˣ in the middle and flatter towards the bounds: whatever a network emits, no scale is
    too small or too large. Far out (|x| > 10 h in float32) it is at a bound, and flat.

    >>> Bounded(0.01, 100.0)(jnp.float32(-30.0)).round(4)
    Array(0.01, dtype=float32)

    Raises:
        ValueError: not 0 < low < high < ∞.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuses invalid bounds."""
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(
                f"Bounds must be positive, finite and in order, got {self.low} and {self.high}."
            )

    def __call__(self, x: Array) -> Array:
        """Positive value of an unconstrained one."""
        return jnp.exp(self._middle + self._half * jnp.tanh(x / self._half))

    def inverse(self, y: Array) -> Array:
        """Unconstrained value of one within the bounds; infinite at a bound, NaN beyond."""
        return self._half * jnp.arctanh((jnp.log(y) - self._middle) / self._half)

    def log_slope(self, x: Array) -> Array:
        """Logarithm of the derivative: log y + log sech²(x/h)."""
        ratio = x / self._half
        sech = math.log(2) - jax.nn.softplus(-2 * ratio) - ratio  # log sech: no overflow for x ≥ 0
        mirrored = math.log(2) - jax.nn.softplus(2 * ratio) + ratio
        log_value = self._middle + self._half * jnp.tanh(ratio)
        return log_value + 2 * jnp.where(ratio >= 0, sech, mirrored)

    @property
    def _middle(self) -> float:
        return 0.5 * (math.log(self.low) + math.log(self.high))

    @property
    def _half(self) -> float:
        return 0.5 * (math.log(self.high) - math.log(self.low))


Positive = Exp | Softplus | Bounded
