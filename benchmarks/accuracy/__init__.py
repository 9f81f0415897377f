"""Accuracy at equal cost: seed, width multiplier, onnxmorph, Torch-Pruning, on one recipe and as many epochs."""
