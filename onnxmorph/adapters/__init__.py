"""One module per deep-learning framework: the penalty in its training loop, its modules resized."""
