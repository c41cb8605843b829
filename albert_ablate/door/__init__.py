"""The entry from Hydra: the only package that imports hydra and omegaconf."""
