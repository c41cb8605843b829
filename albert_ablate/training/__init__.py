"""Optimisation: update rules, schedule, checkpoints and the training loop."""
