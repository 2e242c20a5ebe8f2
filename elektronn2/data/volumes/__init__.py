"""Volumes of any format behind one interface; see docs/volumes.md."""
from elektronn2.data.volumes.convert import convert
from elektronn2.data.volumes.knossos import KnossosArray, KnossosArrayMulti
from elektronn2.data.volumes.opening import Address, open_volume
from elektronn2.data.volumes.volume import Volume

__all__ = ["Address", "KnossosArray", "KnossosArrayMulti", "Volume", "convert", "open_volume"]
