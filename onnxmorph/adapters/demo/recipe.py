"""What the demo trains, on how much, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from onnxmorph.errors import OnnxMorphError


@dataclass(frozen=True)
class Recipe:
    """One run of the demo.

    The seed network is trained for ``seed_epochs``; every morphed network and both width multipliers then
    for ``morph_epochs + tune_epochs`` more, at the same learning rates, with the same batches.
    """

    data: str
    train_images: int
    test_images: int
    widths: tuple[int, ...]  # of the stages; each must divide by 4, the groups of the grouped block
    depth: int  # residual blocks in a stage
    batch: int
    rate: float
    decay: float
    shift: int  # augmentation: random shifts by up to so many pixels
    flip: bool  # augmentation: mirrored at random
    seed_epochs: int
    morph_epochs: int
    tune_epochs: int
    threads: int  # of training; fixed, because sums in another order give another network
    latency_batch: int
    latency_rounds: int
    budget: str = "flops=50%"
    regrow: str = "flops=100%"
    lasts: str = ""

    @property
    def total_epochs(self) -> int:
        """Of every trained row of the table but the seed's."""
        return self.seed_epochs + self.morph_epochs + self.tune_epochs


RECIPES = {
    "digits": Recipe(
        data="digits",
        train_images=600,
        test_images=1197,
        widths=(16, 16),
        depth=1,
        batch=50,
        rate=0.1,
        decay=1e-4,
        shift=2,
        flip=False,
        seed_epochs=60,
        morph_epochs=60,
        tune_epochs=60,
        threads=1,
        latency_batch=64,
        latency_rounds=300,
        lasts="1 to 2 minutes on 2 cores",
    ),
    "cifar10": Recipe(
        data="cifar10",
        train_images=10_000,
        test_images=10_000,
        widths=(20, 20, 20),
        depth=1,
        batch=100,
        rate=0.1,
        decay=5e-4,
        shift=3,
        flip=True,
        seed_epochs=5,
        morph_epochs=5,
        tune_epochs=5,
        threads=2,
        latency_batch=16,
        latency_rounds=100,
        lasts="about 15 minutes on 2 cores",
    ),
}


def recipe_for(data: str) -> Recipe:
    """The recipe of a data set. Raises OnnxMorphError where there is none."""
    if data not in RECIPES:
        message = f"there is no demo on {data!r}; the data sets are {', '.join(RECIPES)}"
        raise OnnxMorphError(message, code="demo-data")
    return RECIPES[data]
