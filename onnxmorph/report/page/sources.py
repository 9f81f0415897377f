"""From paths to what a report is of: folders of runs, sweeps and the demo, structures, models, logs and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxmorph import latency
from onnxmorph.algorithm import VERSION
from onnxmorph.analysis import Analysis, analyze_graph
from onnxmorph.bounds import Bounds
from onnxmorph.errors import ModelError, OnnxMorphError
from onnxmorph.formats import refusal, version_of
from onnxmorph.graph import Graph
from onnxmorph.model import load
from onnxmorph.report.page.subject import Point, Series, Subject, of_structure
from onnxmorph.report.page.tables import is_log, joined, read_table
from onnxmorph.rounds import Plan
from onnxmorph.structure import Structure
from onnxmorph.sweeps import FAILED
from onnxmorph.visited import FINAL, Visited, visited

EXPECTED = "give the folder of morph, sweep or the demo, a structure (.json), a model (.onnx), or a log or table (.csv)"
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Reader:
    """How models are analysed: sizes of dynamic inputs, and the device for latency."""

    shapes: Shapes = field(default_factory=dict)
    device: str | None = None
    progress: Callable[[int], None] = lambda done: None  # is told how many paths are done

    def analysis(self, model: Path | Graph, bounds: Bounds | None = None) -> Analysis:
        """Of a model in a file, or one that is loaded."""
        found = analyze_graph(model if isinstance(model, Graph) else self.graph(model), bounds)
        if self.device is None:
            return found
        return found.with_costs(**latency.costs(found, latency.load(self.device)))

    def graph(self, path: Path) -> Graph:
        """What is in a file."""
        return load(path, self.shapes)


def subjects(paths: Sequence[str | Path], reader: Reader | None = None) -> list[Subject]:
    """What these paths hold, in order.

    A model that a structure among them was made from is that structure's network before, and nothing of its own; a log
    belongs to what stands before it.

    Args:
        paths: files and folders; a structure finds its model among them, or beside itself.
        reader: how models are read.

    Raises:
        OnnxMorphError: a path holds nothing that a report can be of, or it cannot be read.
    """
    reader, paths = reader or Reader(), expanded(paths)
    models = {path: reader.analysis(path) for path in paths if path.suffix == ".onnx"}
    used: set[Path] = set()
    found: list[Subject | Path] = []
    for number, path in enumerate(paths):
        reader.progress(number)
        if path in models:
            found.append(path)  # unless a structure takes it
        elif path.is_dir():
            found.append(_folder(path, reader))
        elif path.suffix == ".json":
            found.append(_structure(path, models, used, reader))
        elif path.suffix == ".csv":
            _add_table(path, found, models)
        else:
            what = f"{path} holds nothing to report" if path.exists() else f"there is no {path}"
            raise OnnxMorphError(f"{what}; {EXPECTED}", code="report-source")
    left = [each for each in found if isinstance(each, Subject) or each not in used]
    return _named([each if isinstance(each, Subject) else _model(each, models[each]) for each in left])


def expanded(paths: Sequence[str | Path]) -> list[Path]:
    """The same, with the jobs of a sweep in the place of its folder."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(at.parent for at in path.glob("*/run.json")) or [path]
    return found


def _name(path: Path) -> str:
    """With its folder; `_named` drops that where it is not needed."""
    whole = path.resolve()
    return f"{whole.parent.name}/{whole.name}"


def _named(every: Sequence[Subject]) -> list[Subject]:
    """With names that differ: of the file, or else of file and folder, or else numbered."""
    files = Counter(each.name.rpartition("/")[2] for each in every)
    seen: Counter[str] = Counter()
    result = []
    for each in every:
        file = each.name.rpartition("/")[2]
        name = file if files[file] == 1 else each.name
        seen[name] += 1
        result.append(replace(each, name=name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return result


def _model(path: Path, analysis: Analysis) -> Subject:
    return Subject(_name(path), "model", analysis, points=(Point(path.name, analysis.count()),))


def _structure(path: Path, models: Mapping[Path, Analysis], used: set[Path], reader: Reader) -> Subject:
    structure = Structure.load(path)
    given = next((at for at, of in models.items() if of.graph.fingerprint == structure.model), None)
    analysis: Analysis | None
    if given is not None:
        used.add(given)
        held = models[given].bounds.holding == structure.bounds.holding
        analysis = models[given] if held else reader.analysis(given, structure.bounds)
    else:
        analysis = next(_beside(path, structure, reader), None)
    if analysis is not None:
        structure.copies(analysis)  # raises where it is not of this model
    return of_structure(_name(path), structure, analysis)


def _beside(path: Path, structure: Structure, reader: Reader) -> Iterator[Analysis]:
    """Analyses of the model of a structure that lies in its folder."""
    for model in sorted(path.resolve().parent.glob("*.onnx")):
        try:
            graph = reader.graph(model)
        except ModelError:  # none, or one for other sizes
            continue
        if graph.fingerprint == structure.model:
            yield reader.analysis(graph, structure.bounds)


def _add_table(path: Path, found: list[Subject | Path], models: Mapping[Path, Analysis]) -> None:
    series, points = read_table(path)
    last = found[-1] if found else None
    if series is None:
        found.append(Subject(_name(path), "table", points=points))
    elif last is None or (isinstance(last, Subject) and last.kind in ("log", "table")):
        found.append(Subject(_name(path), "log", series=series))
    else:
        last = last if isinstance(last, Subject) else _model(last, models[last])
        found[-1] = replace(last, series=series)


# -- folders -------------------------------------------------------------------------------------


def _folder(path: Path, reader: Reader) -> Subject:
    if (path / "run.json").exists():
        return _run(path, reader)
    if (path / "table.csv").exists() and (path / "structure.json").exists():
        return _demo(path, reader)
    raise OnnxMorphError(f"{path} is the folder of no run; {EXPECTED}", code="report-source")


def _run(path: Path, reader: Reader) -> Subject:
    """What a run has done so far: the network that it began with against its last one."""
    plan = _plan(path / "run.json")
    reader = replace(reader, shapes=reader.shapes or plan.shapes, device=reader.device or plan.device)
    found = visited(path, plan.costs)
    before = reader.analysis(path / "seed.onnx", plan.bounds)
    networks = [each for each in found if each.network is not None and (path / each.network).exists()]
    last = next((each for each in networks if each.kind == FINAL), networks[-1] if networks else None)
    facts = [("budget", plan.budget), ("target of a round", str(plan.shrink)), ("seed", str(plan.seed))]
    after, stated = None, {}
    if last is not None:
        of = reader.analysis(path / str(last.network), plan.bounds)
        after, stated = {g.id: g.width for g in of.groups}, {"after": of.count()}
        facts.append(("shown", _label(last)))
    if (path / FAILED).exists():
        facts.append(("failed", str(_table(path / FAILED).get("message"))))
    points = tuple(Point(_label(each), each.costs, each.metric, best=each.pareto) for each in found)
    series = _logged(path) or _on_the_way(path, before, found)
    return Subject(_name(path), "run", before, after, stated, points, series, tuple(facts))


def _plan(path: Path) -> Plan:
    """What a run was asked for."""
    said = _table(path)
    major, _ = version_of(said.get("version")) or (None, None)
    if major != VERSION:
        raise OnnxMorphError(refusal(str(path), said.get("version"), VERSION), code="report-source")
    known = {key: said[key] for key in Plan.__dataclass_fields__ if key in said}
    try:
        plan = Plan(**{**known, "bounds": Bounds(**known.get("bounds", {}))})
        if not isinstance(plan.shapes, dict) or not isinstance(plan.device, str | None):
            raise TypeError("shapes are a table, a device is a name")
    except (ValueError, TypeError, AttributeError) as e:
        raise OnnxMorphError(f"{path} is of no run ({e}); give the folder of a run", code="report-source") from None
    return plan


def _table(path: Path) -> dict[str, Any]:
    """A JSON object in the folder of a run."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise OnnxMorphError(f"{path} cannot be read ({e}); give the folder of a run", code="report-source") from None


def _label(of: Visited) -> str:
    number = f" {of.structure.rpartition('-')[2].removesuffix('.json')}" if of.kind == "milestone" else ""
    return of.kind if of.kind == FINAL else f"round {of.round}, {of.kind}{number}"


def _logged(path: Path) -> Series | None:
    """The logs that the train function wrote into the folders of its rounds."""
    files = (file for work in sorted(path.glob("*/work")) for file in sorted(work.rglob("*.csv")) if is_log(file))
    logs = [(file.relative_to(path).parts[0], series) for file in files if (series := read_table(file)[0]) is not None]
    return joined(logs) if logs else None


def _on_the_way(path: Path, before: Analysis, found: Sequence[Visited]) -> Series | None:
    """The structures of a run in the order in which they were met."""
    if not found:
        return None
    rows: list[Mapping[str, Any]] = [{g.id: g.width for g in before.groups}]
    rows += ({g.id: len(g.keep) for g in Structure.load(path / each.structure).groups} for each in found)
    ids = dict.fromkeys(id for row in rows for id in row)
    costs = [before.count(), *(each.costs for each in found)]
    shared = [name for name in costs[0] if all(name in row for row in costs)]
    marks = [(float(i), _label(each)) for i, each in enumerate(found, 1) if each.kind != "milestone"]
    return Series(
        list(range(len(rows))),
        None,
        {name: [row[name] for row in costs] for name in shared},
        {id: [row.get(id) for row in rows] for id in ids},
        marks,
        "structure",
    )


def _demo(path: Path, reader: Reader) -> Subject:
    """The demo's structure, and the networks that it compared."""
    structure = Structure.load(path / "structure.json")
    _, points = read_table(path / "table.csv")
    subject = of_structure(_name(path), structure, reader.analysis(path / "seed.onnx", structure.bounds))
    return replace(subject, kind="demo", points=points)
