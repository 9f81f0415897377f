"""An experiment: what is trained on what, for how long, by which methods; read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
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
    threads: int = 1  # where there is no GPU
    validation: int = 0  # the last so many training images take the place of the test images: to choose methods by
    precision: str = "float32"  # or bfloat16: autocast


@dataclass(frozen=True)
class Method:
    """One way to get a network of a certain cost."""

    name: str
    kind: str  # width, morph, choose, scratch, torch-pruning
    target: str
    networks: tuple[str, ...] = ()  # only these of the experiment's; all where there are none
    seeds: tuple[int, ...] = ()  # likewise
    changed: Mapping[str, Any] = field(default_factory=dict)  # of the recipe
    options: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, usual: Recipe) -> Recipe:
        """The experiment's, but for what this method changes."""
        return replace(usual, **self.changed)


@dataclass(frozen=True)
class Run:
    """One training, and its name."""

    network: str
    method: Method
    seed: int

    @property
    def key(self) -> str:
        return f"{self.network} {self.method.name} {self.method.target} {self.seed}".replace("=", "").replace("%", "")

    @property
    def file(self) -> str:
        return self.key.replace(",", "").replace(" ", "_")


@dataclass(frozen=True)
class Experiment:
    name: str
    about: str  # what it is to show
    recipe: Recipe
    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]

    def runs(self) -> Iterator[Run]:
        """Seeds last, so that a half-done experiment has all methods."""
        for seed in self.seeds:
            for network in self.networks:
                for m in self.methods:
                    if network in (m.networks or self.networks) and seed in (m.seeds or self.seeds):
                        yield Run(network, m, seed)


def read(name: str) -> Experiment:
    """The experiment of that name, beside this module."""
    found = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    own = {f.name for f in fields(Method)}
    methods = []
    for table in found["methods"]:
        targets = [table["target"]] if isinstance(table["target"], str) else table["target"]
        options = {k: v for k, v in table.items() if k not in own}
        only = tuple(table.get("networks", ())), tuple(table.get("seeds", ()))
        changed = table.get("changed", {})
        methods += [Method(table["name"], table["kind"], target, *only, changed, options) for target in targets]
    networks, seeds = tuple(found["networks"]), tuple(found["seeds"])
    return Experiment(name, found["about"].strip(), Recipe(**found["recipe"]), networks, seeds, tuple(methods))
