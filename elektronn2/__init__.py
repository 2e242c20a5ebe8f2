"""ELEKTRONN2: networks as graphs of nodes, for training and dense prediction on volumes."""
from elektronn2.config import config as _config_object  # noqa: F401  (elektronn2.config is the module)
from elektronn2.utils.log import setup as _setup_logging

__version__ = "1.0.dev0"
logger = _setup_logging()
