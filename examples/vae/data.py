"""Images with the likelihood that fits them: scikit-learn's digits, or MNIST's IDX files."""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
TEST_DIGITS = 360
MAX_BYTES = 64 << 20  # no IDX file of MNIST unpacks to more


class Dataset(NamedTuple):
    """Images `(n, pixels)` of counts 0 … `trials`, and how to model them.

    With one trial the counts are 0 or 1; grey images are then intensities in [0, 1], and a new
    binary image is drawn from them at every step (`dynamic`).
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    trials: int
    dynamic: bool
    protocol: str

    @property
    def side(self) -> int:
        """Pixels along an edge."""
        return int(self.train.shape[1] ** 0.5)


def load(name: str, data_dir: Path | None) -> Dataset:
    """The data set of that name."""
    if name == "digits":
        return digits()
    if data_dir is None:
        names = "\n  ".join(MNIST_MD5)
        raise SystemExit(
            f"--data mnist needs --data-dir: a folder with the four MNIST files\n  {names}\n"
            "as Y. LeCun, C. Cortes and C. Burges published them. They are not downloaded here;\n"
            "they are at yann.lecun.com/exdb/mnist and its mirrors. Checksums are verified."
        )
    return mnist(data_dir)


def digits() -> Dataset:
    """1,797 images of 8×8 counts 0 … 16; the same 360 are always the test set."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:TEST_DIGITS], order[TEST_DIGITS:]
    counts = images.astype(np.float32)
    protocol = f"digits 8×8, Binomial(16, p), {len(train)} training and {len(test)} test images"
    return Dataset(counts[train], labels[train], counts[test], labels[test], 16, False, protocol)


def mnist(folder: Path, checksums: dict[str, str] = MNIST_MD5) -> Dataset:
    """MNIST with dynamic binarisation; each file's checksum is verified."""
    arrays = [read_idx(folder / name, md5) for name, md5 in checksums.items()]
    images = [x.reshape(len(x), -1).astype(np.float32) / 255 for x in arrays[::2]]
    protocol = (
        f"MNIST, dynamically binarised, {len(images[0])} training and {len(images[1])} test images"
    )
    return Dataset(images[0], arrays[1], images[1], arrays[3], 1, True, protocol)


def read_idx(path: Path, md5: str) -> np.ndarray:
    """The array in a gzipped IDX file of bytes."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}.") from error
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != md5:
        raise SystemExit(f"{path} has the MD5 checksum {found}, expected {md5}.")
    with gzip.open(path) as file:
        content = file.read(MAX_BYTES + 1)
    zeros, kind, axes = struct.unpack_from(">HBB", content)
    shape = struct.unpack_from(f">{axes}I", content, 4)
    start = 4 + 4 * axes
    if zeros != 0 or kind != 8 or len(content) - start != np.prod(shape):
        raise SystemExit(f"{path} is not an IDX file of bytes.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
