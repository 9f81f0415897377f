"""The laws of every rule, for every row of ``rows``, against ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from laws import TOLERANCE, moved, prediction, random_cut, shuffled
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.ops_reference import reference
from onnxmorph.propagate import Plan
from onnxmorph.rules import TABLE
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.reference import masked
from onnxmorph.surgery.verify import relative
from rows import ROWS, Act, Row
from weighing import ones

OLDEST = 7  # the first opset that onnxmorph reads


@dataclass(frozen=True)
class Case:
    row: Row
    model: onnx.ModelProto
    analysis: Analysis

    @property
    def plan(self) -> Plan:
        return next(p for p in self.analysis.plans if p.node.name == "subject")

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(len(str(self.row)))

    def feeds(self, seed: int) -> dict[str, NDArray[Any]]:
        return ones(self.model.graph, seed)


@cache
def case_of(index: int) -> Case:
    model = ROWS[index].network(np.random.default_rng(index))
    return Case(ROWS[index], model, analyze(model))


@pytest.fixture(params=[pytest.param(i, id=str(r), marks=pytest.mark.xdist_group(str(r))) for i, r in enumerate(ROWS)])
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def test_every_rule_has_a_row() -> None:
    """But those that fix everything: they say so themselves."""
    assert {(row.domain, row.op) for row in ROWS} == {key for key, rule in TABLE.items() if not rule.fixed}


def test_no_two_rows_have_one_name() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)


def test_the_factors_that_can_go_are_the_ones_listed(case: Case) -> None:
    index = case.analysis.plans.index(case.plan)
    free = {name for name, rows in case.analysis.factor_rows[index].items() if rows is not None}
    assert free == set(case.row.free.split())


# ---------------------------------------------------------------- equivariance


def test_permuted_channels_give_permuted_outputs(case: Case) -> None:
    analysis = case.analysis
    rng, inputs, constants = case.rng, {}, {}
    node = next(n for n in case.model.graph.node if n.name == "subject")
    stored = {t.name: numpy_helper.to_array(t) for t in case.model.graph.initializer}
    names = [*node.input, *(f"a{i}" for i in range(len(node.input), len(case.row.inputs)))]
    for name, given in zip(names, case.row.inputs, strict=True):
        if isinstance(given, Act):
            kind = helper.tensor_dtype_to_np_dtype(given.kind)
            inputs[name] = rng.uniform(given.low, given.high, given.shape).astype(np.float32).astype(kind)
        elif name:
            constants[name] = stored[name]
    image = shuffled(analysis, rng)

    def permuted(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A parameter has channels of its own; a value (an index, a bound) has none."""
        return {n: moved(a, analysis.rows[n], image) if n in analysis.rows else a for n, a in arrays.items()}

    outputs = [n for n in node.output if n]
    plain = run_node(case.row, node, inputs, constants)
    other = run_node(case.row, node, permuted(inputs), permuted(constants))
    for name, before, after in zip(outputs, plain, other, strict=True):
        if name in analysis.rows:
            before = moved(before, analysis.rows[name], image)
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def run_node(
    row: Row, node: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]], constants: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name=n) for n in node.output if n],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=row.opsets, ir_version=10)
    return row.session(ir.from_proto(model))(inputs)


# ---------------------------------------------------------------- deletion, prediction, growth


def check(row: Row, model: ir.Model) -> None:
    """ONNX's own checker; it refuses ops that a later opset withdrew (GroupNormalization 18), and those it lacks."""
    if row.domain or (onnx.defs.has(row.op, row.opset) and not onnx.defs.get_schema(row.op, row.opset).deprecated):
        onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("seed", range(2))
def test_a_removed_channel_is_a_silent_one(case: Case, seed: int) -> None:
    copies = random_cut(case.analysis, np.random.default_rng(seed))
    wanted, small = masked(case.analysis, copies), emit(case.analysis, copies)
    check(case.row, small)
    feeds = case.feeds(seed)
    for a, b in zip(case.row.session(wanted)(feeds), case.row.session(small)(feeds), strict=True):
        assert relative(a, b) <= TOLERANCE


@pytest.mark.parametrize("most", [1, 3])
def test_the_polynomial_is_the_count(case: Case, most: int) -> None:
    """For channels removed (most = 1), and for channels removed, kept and copied."""
    analysis = case.analysis
    copies = (
        random_cut(analysis, case.rng) if most == 1 else np.append(1, case.rng.integers(1, most + 1, analysis.channels))
    )
    prediction(analysis, copies)


def test_copied_channels_give_a_network_that_runs(case: Case) -> None:
    analysis = case.analysis
    copies = np.append(1, case.rng.integers(1, 3, analysis.channels))
    wide = emit(analysis, copies)
    check(case.row, wide)
    for found in case.row.session(wide)(case.feeds(0)):
        assert np.isfinite(found).all()


def test_the_document_of_all_ops_is_up_to_date() -> None:
    written = (Path(__file__).parents[1] / "docs" / "ops.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m onnxmorph.ops_reference > docs/ops.md"


def test_the_example_for_contributors_is_real() -> None:
    root = Path(__file__).parents[1]
    sources = [root / "onnxmorph" / "rules" / "reshape.py", root / "tests" / "rows" / "reshape.py"]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    blocks = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 2 and all(block.strip() in code for block in blocks)


def test_every_op_of_the_standard_has_an_entry() -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert known <= {op for domain, op in TABLE if not domain}


# ---------------------------------------------------------------- schema


@dataclass(frozen=True)
class Schema:
    """What an op may be given: the names of its inputs, its attributes with their defaults, and the required ones."""

    inputs: tuple[str, ...]
    most: int
    attributes: Mapping[str, Any]
    required: frozenset[str]
    version: int

    @staticmethod
    def of(schema: Any) -> Schema:
        """From one of onnx's or of ONNX Runtime's, which knows its own ops."""
        attributes = {}
        for name, a in schema.attributes.items():
            proto = a.default_value if isinstance(schema, onnx.defs.OpSchema) else onnx.AttributeProto()
            if not isinstance(schema, onnx.defs.OpSchema):
                proto.ParseFromString(a._default_value)
            value = helper.get_attribute_value(proto) if proto.type else None
            attributes[name] = value.decode() if isinstance(value, bytes) else value
        needed = frozenset(name for name, a in schema.attributes.items() if a.required)
        names = tuple(p.name for p in schema.inputs)
        return Schema(names, schema.max_input, attributes, needed, schema.since_version)

    @property
    def defaults(self) -> Mapping[str, Any]:
        return {name: value for name, value in self.attributes.items() if value is not None}


@cache
def runtime_schemas(op: str, domain: str) -> list[Schema]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found = [s for s in get_all_operator_schema() if (s.name, s.domain) == (op, domain)]
    return sorted(map(Schema.of, found), key=lambda s: s.version)


@cache
def schemas(op: str, domain: str) -> list[Schema]:
    """All versions of an op that onnxmorph can meet, oldest first."""
    newest = onnx.defs.onnx_opset_version()
    found = {
        (s := onnx.defs.get_schema(op, version, domain)).since_version: s
        for version in range(OLDEST, newest + 1)
        if onnx.defs.has(op, version, domain)
    }
    return [Schema.of(found[v]) for v in sorted(found) if not found[v].deprecated] or runtime_schemas(op, domain)


def schema_of(row: Row) -> Schema:
    """The schema that a row's node is read with."""
    version = 1 if row.domain else row.opset
    if onnx.defs.has(row.op, version, row.domain):
        return Schema.of(onnx.defs.get_schema(row.op, version, row.domain))
    return runtime_schemas(row.op, row.domain)[0]


@pytest.mark.parametrize("key", [k for k, r in TABLE.items() if r.schema], ids=lambda key: key[1])
def test_a_schema_that_a_rule_carries_is_that_of_onnx_runtime(key: tuple[str, str]) -> None:
    carried, wanted = TABLE[key].schema, runtime_schemas(key[1], key[0])[0]
    assert carried is not None
    assert carried.inputs == wanted.inputs
    assert carried.defaults == pytest.approx(wanted.defaults)


@pytest.mark.parametrize("key", TABLE, ids=lambda key: key[1])
def test_a_rule_names_inputs_that_the_schema_has(key: tuple[str, str]) -> None:
    rule = TABLE[key]
    versions = schemas(rule.op, rule.domain)
    assert versions or (rule.fixed and onnx.defs.has(rule.op, rule.domain))
    bias = [] if rule.bias is None else [rule.bias]
    assert all(i < s.most for s in versions for i in (*rule.roles, *rule.weights, *bias))


def test_parameters_that_are_rewritten_stand_in_the_schema(case: Case) -> None:
    schema = schema_of(case.row)
    known = {*schema.inputs, *schema.attributes}
    spec = case.plan.spec
    used = {w.parameter for w in spec.writes if case.plan.node.parameter(w.parameter) is not None}
    optional = {w.parameter for w in spec.writes} - used  # e.g. the split of a Split in equal parts
    later = {*schemas(case.row.op, case.row.domain)[-1].inputs, *schema.attributes}
    assert used | {t.parameter for t in spec.takes} <= known
    assert optional <= known | later


class Reads(Mapping[str, Any]):
    """Attributes that remember what was asked for."""

    def __init__(self, of: Mapping[str, Any]) -> None:
        self.of, self.names = of, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return self.of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)


def test_attributes_that_a_rule_reads_stand_in_the_schema(case: Case) -> None:
    """In some version of it, and of the ops that share its rule: not all have all."""
    node, rule = case.plan.node, TABLE[case.row.domain, case.row.op]
    reads = Reads(node.attributes)
    rule.bind(replace(node, attributes=reads))
    versions = [s for r in TABLE.values() if r.bind is rule.bind for s in schemas(r.op, r.domain)]
    known = {name for s in versions for name in (*s.attributes, *s.inputs)}
    assert reads.names <= known


def test_attributes_that_a_rule_needs_are_there_when_the_node_says_nothing(case: Case) -> None:
    """Bound to the schema's defaults and its required attributes alone, in the row's version."""
    node, rule = case.plan.node, TABLE[case.row.domain, case.row.op]
    schema = schema_of(case.row)
    needed = {name: node.attributes[name] for name in schema.required}
    rule.bind(
        replace(node, attributes={**schema.defaults, **needed})
    )  # a KeyError: the rule takes for granted what may be absent


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "ai.onnx.preview.training"])
def test_every_op_of_these_domains_has_an_entry(domain: str) -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain}
    assert {op for of, op in TABLE if of == domain} == known
