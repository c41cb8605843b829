"""The way in from Hydra: the only code that imports hydra and omegaconf."""
