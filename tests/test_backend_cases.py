"""The laws on onnx's own node tests: see ``backend_cases``. A spread of them always, all in all forms at night.

An op without a rule passes: everything stays. As soon as it has one, its cases test it.
"""

from __future__ import annotations

import numpy as np
import pytest

from backend_cases import EXCLUDED, FORMS, backend, cases, runner, unable
from laws import TOLERANCE, deletion, identity, permutation, prediction, random_cut
from onnxmorph.analysis import Analysis, analyze

NAMES = [name for name in cases() if name not in EXCLUDED]
SPREAD = [(name, FORMS[i % len(FORMS)]) for i, name in enumerate(NAMES[::5])]
ONE_CHANNEL = {"Resize", "Upsample"}  # ops that onnx tries on images of one channel only
HALF = ("FLOAT16", "BFLOAT16", "FLOAT8")  # kinds with few digits


@pytest.mark.parametrize(("name", "form"), SPREAD)
def test_the_laws_hold(name: str, form: str) -> None:
    check(name, form)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_the_laws_hold_in_all_forms(name: str) -> None:
    for form in FORMS:
        check(name, form)


def check(name: str, form: str) -> None:
    """Analysis never fails, every op is costed, and where something can run it, surgery is exact."""
    case = backend(name, form)
    analysis = analyze(case.model)
    costed(analysis)
    copies = random_cut(analysis, np.random.default_rng(len(name)))
    prediction(analysis, copies)
    run = None if unable(case) else runner(case)
    if run is not None:
        half = any(kind.name.startswith(HALF) for kind in analysis.graph.dtypes.values())
        tolerance = 2e-2 if half else TOLERANCE
        identity(analysis, case.feeds(0), run)
        deletion(analysis, case.feeds(1), copies, run, tolerance)
        permutation(analysis, case.feeds(2), 3, run, tolerance)


def costed(analysis: Analysis) -> None:
    """Every op that computes has a cost; one without a rule says so."""
    for plan, flops in zip(analysis.plans, analysis.op_costs["flops"], strict=True):
        if plan.rule is None:
            assert plan.spec.refuse is not None
        elif (
            plan.cost is not None
            and plan.cost.count
            and plan.node.counted
            and all(s and all(s) for s in plan.node.in_shapes)
        ):
            assert flops.value(analysis.widths) > 0, f"{plan.node} costs nothing"


@pytest.mark.nightly
def test_something_can_go_in_the_cases_of_every_rule() -> None:
    """Otherwise the laws above say nothing about it."""
    tried, free = set[str](), set[str]()
    for name in NAMES:
        for form in FORMS:
            analysis = analyze(backend(name, form).model)
            for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True):
                if plan.rule is not None and not (plan.rule.fixed or plan.rule.reads_shape):
                    tried.add(plan.node.type)
                    if any(r is not None and len(r) > 1 for r in rows.values()):
                        free.add(plan.node.type)
    assert tried - free <= ONE_CHANNEL
