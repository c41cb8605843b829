"""Held-out evaluation: masked LM, both sentence tasks, baselines, per-layer similarity, inference speed."""
