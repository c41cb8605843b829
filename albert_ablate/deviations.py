"""placeholder"""
from albert_ablate.config import RunConfig
def deviations_from_paper(config: RunConfig) -> list[str]:
    return []
