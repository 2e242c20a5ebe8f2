"""Names that existing scripts import from here."""
from elektronn2.neuromancer.manager import GraphManager, model_manager

__all__ = ["GraphManager", "model_manager"]
