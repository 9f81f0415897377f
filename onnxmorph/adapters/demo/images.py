"""The demo's images: scikit-learn's digits, or CIFAR-10 from an npz of JPEG bytes."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.adapters.demo.recipe import Recipe
from onnxmorph.errors import OnnxMorphError
from onnxmorph.files import whole

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

FORMAT = "an npz with train_bytes, train_offsets, train_labels and the same for test, as docs/demo.md says"
CACHE = "cifar10_decoded.npz"


@dataclass(frozen=True)
class Images:
    """Standardised images, ``[n, channels, height, width]``, and their labels, ``[n]``."""

    train: Floats
    train_labels: Labels
    test: Floats
    test_labels: Labels

    @property
    def classes(self) -> int:
        """How many."""
        return int(self.train_labels.max()) + 1


def read_images(recipe: Recipe, data_path: str | os.PathLike[str] | None, out: Path) -> Images:
    """The images of a recipe: the first ones of each split for CIFAR-10, a stratified split for the digits.

    Raises:
        OnnxMorphError: the file is missing or malformed.
    """
    if recipe.data == "digits":
        if data_path is not None:
            message = "the digits come with scikit-learn; leave --data-path out, or add --data cifar10"
            raise OnnxMorphError(message, code="demo-data-path")
        return _digits(recipe)
    if data_path is None:
        message = f"--data {recipe.data} needs --data-path FILE: {FORMAT}"
        raise OnnxMorphError(message, code="demo-data-path")
    return _cifar10(recipe, Path(data_path), out)


def _standardised(train: NDArray[Any], test: NDArray[Any], labels: tuple[NDArray[Any], NDArray[Any]]) -> Images:
    """Mean 0 and deviation 1 over the training images, per colour."""
    mean = train.mean((0, 2, 3), np.float64, keepdims=True)
    deviation = train.std((0, 2, 3), np.float64, keepdims=True)
    one, two = (((x - mean) / deviation).astype(np.float32) for x in (train, test))
    return Images(one, labels[0].astype(np.int64), two, labels[1].astype(np.int64))


def _digits(recipe: Recipe) -> Images:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test, *both = train_test_split(
        pixels.reshape(-1, 1, 8, 8),
        labels,
        train_size=recipe.train_images,
        test_size=recipe.test_images,
        stratify=labels,
        random_state=0,
    )
    return _standardised(train, test, (both[0], both[1]))


def _cifar10(recipe: Recipe, path: Path, out: Path) -> Images:
    try:
        content = path.read_bytes()
    except OSError as e:
        message = f"--data-path {path} cannot be read ({e.strerror}); give {FORMAT}"
        raise OnnxMorphError(message, code="demo-data-path") from None
    key = hashlib.sha256(content).hexdigest() + f"/{recipe.train_images}/{recipe.test_images}"
    cache = out / CACHE
    if any(path.samefile(each) for each in out.iterdir()):
        message = f"--data-path {path} lies in {out}, where the demo writes; keep it elsewhere"
        raise OnnxMorphError(message, code="demo-data-path")
    stored = _stored(cache, key)
    if stored is None:
        stored = _decoded(recipe, path, content)
        with whole(cache) as place:
            np.savez(place, allow_pickle=False, key=np.array(key), **stored)
    labels = (stored["train_labels"], stored["test_labels"])
    return _standardised(stored["train"], stored["test"], labels)


def _stored(cache: Path, key: str) -> Mapping[str, NDArray[Any]] | None:
    """What an earlier run decoded from the same file; anything else in its place is not read."""
    try:
        with np.load(cache, allow_pickle=False) as found:
            return dict(found) if str(found["key"]) == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _decoded(recipe: Recipe, path: Path, file: bytes) -> Mapping[str, NDArray[Any]]:
    """The first images of each split, uint8 ``[n, 3, 32, 32]``, and their labels."""
    wanted = {"train": recipe.train_images, "test": recipe.test_images}
    result: dict[str, NDArray[Any]] = {}
    try:
        with np.load(io.BytesIO(file), allow_pickle=False) as found:
            for split, count in wanted.items():
                content, offsets, labels = (found[f"{split}_{what}"] for what in ("bytes", "offsets", "labels"))
                result[split] = _pictures(content, offsets, min(count, len(labels)))
                result[f"{split}_labels"] = labels[:count]
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, zipfile.BadZipFile) as e:
        message = f"--data-path {path} is not the file that was expected ({e}); give {FORMAT}"
        raise OnnxMorphError(message, code="demo-data-file") from None
    return result


def _pictures(content: NDArray[Any], offsets: NDArray[Any], count: int) -> NDArray[np.uint8]:
    """The first JPEG files of many that stand end to end, ``[count, 3, 32, 32]``."""
    from PIL import Image

    if not 0 < count < len(offsets) or content.dtype != np.uint8:
        raise ValueError(f"{len(offsets)} offsets for {count} images, and bytes of type {content.dtype}")
    raw, ends = content.tobytes(), offsets.tolist()
    pictures = np.empty((count, 3, 32, 32), np.uint8)
    for i in range(count):
        with Image.open(io.BytesIO(raw[ends[i] : ends[i + 1]])) as image:
            pixels = np.asarray(image.convert("RGB"))
        if pixels.shape != (32, 32, 3):
            raise ValueError(f"image {i} is {pixels.shape[1]}×{pixels.shape[0]}, not 32×32")
        pictures[i] = pixels.transpose(2, 0, 1)
    return pictures
