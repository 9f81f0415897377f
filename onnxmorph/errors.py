"""Every error that onnxmorph raises on purpose.

OnnxMorphError            a stable ``code`` and one sentence that says what to do
├── ModelError            the file is not a model that can be read
├── ConversionError       a framework model could not be brought to ONNX, or back
├── RuleError             a rule of ours does not fit the op it was applied to (our bug)
├── StructureError        a structure does not belong to the model, or is malformed
│   └── TopologyError     a network does not hold together without the groups that the structure empties
├── BudgetError           a budget cannot be read, or cannot be met
├── BoundsError           a boundary cannot be read, or names nothing in the model
├── TrainingError         a training loop cannot go on as it is
├── RunError              a run of the whole algorithm cannot start, or cannot go on
├── DeviceError           a device is not known, or its file cannot be used
├── CalibrationError      a device cannot be measured
└── OutputError           a result could not be written
"""

from typing import Any


class OnnxMorphError(Exception):
    """Base of the tree; ``code`` is stable across releases, the message is not."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, for another process: pickle alone would give `__init__` the message and nothing else."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class ModelError(OnnxMorphError):
    """The model cannot be read, or uses something that no reader understands."""


class ConversionError(OnnxMorphError):
    """A framework model could not be converted."""


class RuleError(OnnxMorphError):
    """A rule does not fit the op it was applied to; always a bug in onnxmorph."""


class StructureError(OnnxMorphError):
    """A structure does not belong to the model, or is malformed."""


class TopologyError(StructureError):
    """A network does not hold together without ``groups``, which the structure empties."""

    def __init__(self, message: str, *, code: str, groups: tuple[str, ...]) -> None:
        super().__init__(message, code=code)
        self.groups = groups


class BudgetError(OnnxMorphError):
    """A budget is malformed or out of reach."""


class BoundsError(OnnxMorphError):
    """A boundary is malformed, or names nothing in the model."""


class TrainingError(OnnxMorphError):
    """A module or its optimizer is no longer what a map was made from, or its weights are no numbers."""


class RunError(OnnxMorphError):
    """A run over a train function cannot start or go on; what the function raised is the cause."""


class DeviceError(OnnxMorphError):
    """A device is not known, its file is malformed, or it cannot compute what a model asks for."""


class CalibrationError(OnnxMorphError):
    """A device cannot be measured: nothing runs there, or it is too busy to tell."""


class OutputError(OnnxMorphError):
    """A result could not be written."""
