"""Labels with a mask volume beside them, which says where they are to be used."""
import numpy as np

_SIGNED = {"bool": np.int8, "uint8": np.int16, "uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


class Masked:
    """Labels that are -1 (NaN if they are floats) where ``mask`` is 0; read like a :class:`~elektronn2.data.volumes.Volume`.

    ``labels``, ``mask``: volumes (f, z, x, y) of the same spatial shape, the mask with one channel or as many. Labels of
    unsigned integers become signed ones of twice the size. ValueError, beginning with ``where``, if shapes differ.
    """

    def __init__(self, where, labels, mask):
        if mask.shape[1:] != labels.shape[1:] or mask.shape[0] not in (1, labels.shape[0]):
            raise ValueError(f"{where}: the mask has shape {tuple(mask.shape)}, but the labels {tuple(labels.shape)}. Its "
                             "axes must be as long, with one channel or as many.")
        self.labels, self.mask, self.shape = labels, mask, labels.shape
        self.dtype = np.dtype(_SIGNED.get(labels.dtype.name, labels.dtype))

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, box):
        wanted = box if len(self.mask) > 1 else (slice(None), *box[1:])
        return self._masked(self.labels[box], self.mask[wanted])

    def load(self):
        """All of it as an array."""
        return self._masked(self.labels.load(), self.mask.load())

    def _masked(self, labels, mask):
        if labels.dtype == np.uint64 and labels.max(initial=0) >= 2 ** 63:
            raise ValueError(f"Labels of up to {labels.max()} leave no number for what a mask takes out. Renumber them.")
        return np.where(mask != 0, labels.astype(self.dtype), np.nan if self.dtype.kind == "f" else -1).astype(
            np.float32 if self.dtype.kind == "f" else self.dtype)
