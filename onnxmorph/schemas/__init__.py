"""JSON Schemas of what ``--json`` prints: ``NAME.json`` is that of ``"schema": "onnxmorph/NAME/VERSION"``."""
