"""A report as one HTML file: what it is of, its numbers, and the page that draws them."""

from onnxmorph.report.page.document import document
from onnxmorph.report.page.html import page
from onnxmorph.report.page.sources import Reader, expanded, subjects
from onnxmorph.report.page.subject import Point, Series, Subject

__all__ = ["Point", "Reader", "Series", "Subject", "document", "expanded", "page", "subjects"]
