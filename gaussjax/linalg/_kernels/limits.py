"""Sizes at which another kernel takes over, and why.

`python -m benchmarks.thresholds` measures both sides of them.
"""

TINY = 4
"""Largest single matrix that is unrolled into scalars: beyond, compile time counts."""

NATIVE_ALONE = 24
"""Largest single matrix for a native kernel: it fills one lane, but compiles at once."""

WRITTEN = 8
"""Largest matrix of a batch that is unrolled into scalars: beyond, compiling takes too long."""

WRITTEN_NUMBERS = 16
"""The same on GPUs and TPUs for results that are numbers, not matrices, and so fuse."""

NATIVE = 256
"""Largest matrix of a batch that fills the lanes of a kernel: beyond, triangles leave the cache.
Also in `kernels.h`, for kernels that then take one matrix at a time."""

NATIVE_BATCH = 8
"""Smallest batch above `NATIVE_ALONE` that uses lanes, half of them in float32. See `kernels.h`."""

SHARED = 64
"""Largest matrix that many vectors share for a native kernel: beyond, LAPACK solves for all."""

TILE = 128
"""Small matrices of a batch whose intermediate results fit the cache of a CPU."""

DISTANCE = 6
"""Largest triangle whose quadratic form is unrolled, even if there is a native kernel."""

PRODUCT = 16
"""Largest product that is unrolled into a sum of columns, which fuses with the code around it."""

VECTOR = 32
"""Longest diagonal or vector read entry by entry, which fuses where a reduction does not."""

COMPARED_AGAIN = 4
"""Longest vector in which a derivative looks for infinities once more, where a value looked: for
longer ones what the value found is stored."""

SHIFTED = 16
"""Largest pair of triangles whose divergence and shift are one kernel: many shifts of a larger pair
would keep a gradient of d² each."""

COLUMNS = 64
"""Most columns of data whose moments are a native kernel: beyond, a product is faster."""
