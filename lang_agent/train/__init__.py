"""A training run in its folder: collecting, checkpoints, logs."""
