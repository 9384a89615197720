"""Sizes at which another kernel takes over, and why.

`python -m benchmarks.thresholds` measures both sides of them.
"""

TINY = 4
"""Largest matrix that is written out by scalars also where there is one alone: compile time."""

NATIVE_ALONE = 16
"""Largest matrix alone that a native kernel takes: it has one lane, and compiles at once."""

WRITTEN = 8
"""Largest matrix of a batch that is written out by scalars: beyond, compiling takes too long."""

WRITTEN_NUMBERS = 16
"""The same on GPUs and TPUs for what returns numbers and no matrices, and so fuses."""

NATIVE = 256
"""Largest matrix of a batch that fills a kernel's lanes: beyond, its triangles leave the cache. In
`kernels.h` too, for kernels that then take one matrix at a time."""

NATIVE_BATCH = 8
"""Smallest batch of matrices above `WRITTEN` for lanes: half in float32. See `kernels.h`."""

SHARED = 64
"""Largest matrix that many vectors share for a native kernel: beyond, LAPACK solves for all."""

TILE = 128
"""Small matrices of a batch whose intermediate results fit the cache of a CPU."""

DISTANCE = 6
"""Largest triangle whose quadratic form is written out, also where there is a native kernel."""

PRODUCT = 16
"""Largest product that is written out as a sum of columns, which fuses with what is around it."""

VECTOR = 32
"""Longest diagonal or vector that is read by entries, which fuses where a reduction does not."""

SHIFTED = 16
"""Largest pair of triangles whose divergence and shift are one kernel: many shifts of a larger pair
would keep a gradient of d² each."""
