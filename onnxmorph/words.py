"""Names and numbers as people read them: safe on a terminal, short, in their unit."""

from __future__ import annotations

from math import floor, log10

BYTES = ("param_bytes", "activation_bytes", "bytes_moved", "peak_memory")
SECONDS = ("latency", "classic_latency")
UNITS = {0: "s", -1: "ms", -2: "µs", -3: "ns"}
PLURALS = {"axis": "axes"}


def plain(text: object) -> str:
    r"""One line that is safe on a terminal: control and formatting characters as escapes.

    >>> print(plain("a" + chr(27) + "[31m b"))
    a\x1b[31m b
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shorten(text: object, width: int) -> str:
    """The end of a long name, which tells more than its beginning.

    >>> shorten("backbone.layer1.0.conv1.weight", 17)
    '…1.0.conv1.weight'
    """
    line = plain(text)
    return line if len(line) <= width else f"…{line[-width + 1 :]}"


def amount(number: float) -> str:
    """Three significant digits and a unit.

    >>> amount(1814073344), amount(999.6e6), amount(512), amount(0)
    ('1.81 G', '1.00 G', '512', '0')
    """
    if abs(number) < 1000:
        return f"{number:.4g}"
    exponent = min(int(log10(float(f"{abs(number):.2e}"))) // 3, 6)
    return f"{number / 1000.0**exponent:#.3g}".rstrip(".") + f" {' kMGTPE'[exponent]}"


def quantity(name: str, number: float) -> str:
    """A cost in its unit: bytes, seconds, or a plain count; `name` is that of the cost.

    >>> quantity("peak_memory", 6_422_528), quantity("latency", 0.00042), quantity("macs", 512)
    ('6.42 MB', '420 µs', '512')
    """
    if name in SECONDS:
        number = float(f"{number:.3g}")
        exponent = min(max(floor(log10(abs(number)) / 3), -3), 0) if number else 0
        return f"{number / 1000.0**exponent:#.3g}".rstrip(".") + f" {UNITS[exponent]}"
    text = amount(number)
    return text if name not in BYTES else f"{text}B" if " " in text else f"{text} B"


def cost_name(name: str) -> str:
    """A cost as people write it.

    >>> cost_name("classic_flops"), cost_name("peak_memory")
    ('classic FLOPs', 'peak memory')
    """
    return name.replace("_", " ").replace("flops", "FLOPs").replace("macs", "MACs")


def percent(part: float, whole: float) -> str:
    """A share, or a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def plural(number: int, word: str) -> str:
    """A count and its word.

    >>> plural(1, "group"), plural(2_000, "axis")
    ('1 group', '2,000 axes')
    """
    return f"{number:,} {word if number == 1 else PLURALS.get(word, f'{word}s')}"
