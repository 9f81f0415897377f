"""Results as tables for people and as JSON documents for machines.

Tables are what rich can draw; they read without colour and fit 80 columns. Names come from files that anyone
may have written, so no control character reaches a terminal and nothing in them is read as markup.
"""

from onnxmorph.report.analysed import analysis, document, fixed_table, group_table, op_table, uncovered
from onnxmorph.report.compared import calibration, calibration_document, comparison, comparison_document
from onnxmorph.report.differing import difference, difference_document
from onnxmorph.report.documents import VERSIONS, Document
from onnxmorph.report.documents import document as versioned
from onnxmorph.report.drawing import amount, cost_name, percent, plain, quantity, shorten
from onnxmorph.report.explained import explanation, explanation_document, names, names_document
from onnxmorph.report.latencies import latency, latency_document
from onnxmorph.report.reports import reported, reported_document
from onnxmorph.report.results import morphed, morphed_document, verification, verification_document
from onnxmorph.report.runs import run, run_document, sweep, sweep_document

__all__ = [
    "VERSIONS",
    "Document",
    "amount",
    "analysis",
    "calibration",
    "calibration_document",
    "comparison",
    "comparison_document",
    "cost_name",
    "difference",
    "difference_document",
    "document",
    "explanation",
    "explanation_document",
    "fixed_table",
    "group_table",
    "latency",
    "latency_document",
    "morphed",
    "morphed_document",
    "names",
    "names_document",
    "op_table",
    "percent",
    "plain",
    "quantity",
    "reported",
    "reported_document",
    "run",
    "run_document",
    "shorten",
    "sweep",
    "sweep_document",
    "uncovered",
    "verification",
    "verification_document",
    "versioned",
]
