"""Files that are broken on purpose, by the ten thousand: ``python -m benchmarks.fuzz`` (docs/security.md)."""
