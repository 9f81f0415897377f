"""Fourier transforms."""

from __future__ import annotations

import numpy as np

from rows.row import Act, Row, floats

WAVE = Act((3, 8, 1))

ROWS = [
    Row("DFT", (WAVE,), "a0"),
    Row("DFT", (WAVE,), "a0", {"onesided": 1}, note="onesided"),
    Row("DFT", (Act((3, 4, 8, 2)),), "a0 a2", {"axis": 1, "inverse": 1}, note="inverse"),
    Row("DFT", (Act((3, 4, 8, 2)), None, np.array(2)), "a0 a1", opset=20, note="axis-input"),
    Row("DFT", (Act((3, 4, 8, 2)), np.array(6)), "a0 a1", opset=20, note="length"),
    Row("STFT", (Act((3, 16, 1)), np.array(4), floats(*np.hanning(8))), "n", {"onesided": 1}),
    Row("STFT", (Act((3, 16, 1)), np.array(4), None, np.array(8)), "n", {"onesided": 0}, note="no-window"),
]
