"""The typed, frozen settings of a run, their validation, and the identity of a run."""
