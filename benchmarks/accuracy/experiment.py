"""An experiment: what is trained on what, for how long, by which methods; read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """The training that every method gets."""

    data: str  # digits or cifar10
    epochs: int
    train_images: int
    test_images: int
    batch: int = 128
    optimizer: str = "sgd"
    rate: float = 0.1
    decay: float = 5e-4
    shift: int = 4
    flip: bool = True
    shrink_images: int = 1  # so many pixels become one, each way
    threads: int = 1


@dataclass(frozen=True)
class Method:
    """One way to get a network of a certain cost."""

    name: str
    kind: str  # width, morph, scratch, torch-pruning
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training, and its name."""

    network: str
    method: Method
    seed: int

    @property
    def key(self) -> str:
        return f"{self.network} {self.method.name} {self.method.target} {self.seed}".replace("=", "").replace("%", "")


@dataclass(frozen=True)
class Experiment:
    name: str
    recipe: Recipe
    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]

    def runs(self) -> Iterator[Run]:
        """Seeds last, so that a half-done experiment has all methods."""
        for seed in self.seeds:
            for network in self.networks:
                for method in self.methods:
                    yield Run(network, method, seed)


def read(name: str) -> Experiment:
    """The experiment of that name, beside this module."""
    found = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    own = {f.name for f in fields(Method)}
    methods = []
    for table in found["methods"]:
        targets = [table["target"]] if isinstance(table["target"], str) else table["target"]
        options = {k: v for k, v in table.items() if k not in own}
        methods += [Method(table["name"], table["kind"], target, options) for target in targets]
    return Experiment(name, Recipe(**found["recipe"]), tuple(found["networks"]), tuple(found["seeds"]), tuple(methods))
