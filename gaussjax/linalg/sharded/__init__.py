"""One matrix too large for a device: its rows over an axis of the mesh."""

from gaussjax.linalg.sharded.triangles import (
    cholesky,
    is_symmetric,
    solve_lower,
    solve_lower_transpose,
)

__all__ = ["cholesky", "is_symmetric", "solve_lower", "solve_lower_transpose"]
