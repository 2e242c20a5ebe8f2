"""What images and labels must be, so that a network can be trained on them: errors and notes that name cube and place."""
import logging
import threading

import numpy as np

from elektronn2.utils.basic import as_float

logger = logging.getLogger("elektronn2log")

IGNORE = -666  # the target where labels are NaN; losses leave out all negative targets


class Notes:
    """Warnings that are logged once, from whatever thread.

    >>> notes = Notes()
    >>> notes.first("scale"), notes.first("scale")
    (True, False)
    """

    def __init__(self):
        self._told, self._lock = set(), threading.Lock()

    def __getstate__(self):
        """For a copy in another process: it gets a lock of its own."""
        return self._told

    def __setstate__(self, told):
        self._told, self._lock = told, threading.Lock()

    def first(self, what):
        """Whether ``what`` is asked for the first time."""
        with self._lock:
            first = what not in self._told
            self._told.add(what)
        return first

    def warn(self, what, *message):
        """Log a warning, if it is the first of its kind."""
        if self.first(what):
            logger.warning(*message)


class InputChecks:
    """Checks of images and labels, whose errors and warnings begin with ``where``, the name of the cube.

    ``n_f``: channels of the images (None: those of the first one, found here afterwards). ``t_dtype``: dtype of the target;
    ``n_class``: its number of classes, None if it is not for class ids; ``targets``: a
    :class:`~elektronn2.data.targets.TargetMaker` for what is made of ids, or None. ``notes``: a :class:`Notes`.
    """

    def __init__(self, n_f, t_dtype, n_class, targets, notes):
        self.n_f, self.t_dtype, self.n_class, self.targets, self.notes = n_f, t_dtype, n_class, targets, notes
        self._beyond = {}  # image channel: where and how far its values leave 0..1

    # -- images ----------------------------------------------------------------------------------
    def image(self, where, image):
        """Whether the network can take the image, a :class:`~elektronn2.data.volumes.Volume`."""
        if 0 in image.shape[1:]:
            raise ValueError(f"{where}: the image has no voxels; its shape is {tuple(image.stored.array.shape)}, axes "
                             f"{image.axes}.")
        try:
            as_float(np.zeros(1, image.dtype))
        except TypeError as error:
            signed = " Or are images and labels exchanged?" * (image.dtype.kind == "i")
            raise TypeError(f"{where}: {error}{signed}") from None
        self.n_f = self.n_f or len(image)  # the input node may leave it open
        if len(image) != self.n_f:
            raise ValueError(f"{where}: the image has {len(image)} channels, but the input node, or the first cube, has "
                             f"{self.n_f}. It has shape {tuple(image.stored.array.shape)}, read as axes {image.axes}; if "
                             "they are others, give an address that ends in, for example, '?axes=fxy'.")

    def values(self, where, image):
        """Whether the values of an image (f, ...) are finite and, as far as can be seen, scaled to 0..1."""
        if image.dtype == np.uint16 and 0 < image.max() < 65535 / 16:
            self.notes.warn("scale", "%s: the image is uint16, of which 65535 becomes 1, but its largest value is %d: the "
                            "network gets values up to %.3f. If these are 12 bits or less, scale them, for example "
                            "raw.astype('float32') / raw.max().", where, image.max(), image.max() / 65535)
        if image.dtype.kind != "f":
            return
        space = tuple(range(1, image.ndim))
        for channel, (low, high) in enumerate(zip(image.min(space), image.max(space))):
            if not np.isfinite([low, high]).all():
                count = image.size - np.count_nonzero(np.isfinite(image))
                raise ValueError(f"{where}: {count:,} of {image.size:,} values of the image are NaN or infinite, which "
                                 f"would spoil all weights; they lie in {box_of(~np.isfinite(image))}. Replace them, for "
                                 "example raw[~np.isfinite(raw)] = 0.")
            if max(-low, high) > 16:  # also of standardised images
                self.notes.warn("large", "%s: channel %d of the image has values %g to %g, and floating-point images are "
                                "taken as they are. Networks learn badly from values that large: scale the image to about "
                                "0..1, for example raw / 255.", where, channel, low, high)
            if low < -1e-3 or high > 1 + 1e-3:
                self._beyond.setdefault(channel, f"{where}: channel {channel} of the image has values {low:g} to {high:g}")

    def clipping(self, channels):
        """Warn once if the grey values outside of 0..1 of one of these channels are lost."""
        if found := [self._beyond[c] for c in channels if c in self._beyond]:
            self.notes.warn("clipping", "%s, but grey_augment_channels, nga_blur_noise_probability and augmentations clip "
                            "to 0..1. Scale the image first: divide values of 0 to 255 by 255.", found[0])

    # -- labels ----------------------------------------------------------------------------------
    def are_numbers(self, where, volume, what="labels"):
        """Whether labels, or a mask, can be read as numbers at all."""
        if volume.dtype.kind not in "biuf":
            raise TypeError(f"{where}: the {what} are of dtype {volume.dtype}, but must be integers or real numbers. Is "
                            "this the right data set?")
        if not len(volume):
            raise ValueError(f"{where}: the {what} have shape {tuple(volume.shape)}: there is no channel.")

    def labels(self, where, labels):
        """Whether the target can hold the labels, and they are classes if it needs such; tells whether any is labelled.

        Below 0 they are unlabelled, but in targets of real numbers only -666 is.
        """
        whole, kind = self.t_dtype.kind in "iu", f"{self.t_dtype}. Give it dtype='float32'"
        if self.targets and not self.targets.makes_ids:
            return self._ids(where, labels[0])
        if self.n_class:
            kind = f"class ids, for {self.n_class} classes. Is this the right file? If so, round the labels"
        if labels.dtype.kind == "f":
            if np.isinf(labels).any():
                raise ValueError(f"{where}: the labels are infinite in {box_of(np.isinf(labels))}, which would spoil all "
                                 "weights. Mark what is not labelled by NaN or -1.")
            labels = np.where(np.isnan(labels), IGNORE, labels)
            if (whole or self.n_class) and np.any(labels != np.floor(labels)):
                raise ValueError(f"{where}: the labels are no whole numbers in {box_of(labels != np.floor(labels))}, but "
                                 f"the target node has {kind}.")
        low, high = labels.min(), labels.max()
        if self.n_class and high >= self.n_class:
            classes = "only class 0" if self.n_class == 1 else f"{self.n_class} classes (0 to {self.n_class - 1})"
            raise ValueError(f"{where}: labels go up to {high:g}, but the network has {classes}; larger ones lie in "
                             f"{box_of(labels >= self.n_class)}. "
                             "Renumber the labels, for example (lab > 0).astype('int16'), mark what is unlabelled by -1, or "
                             "give the network more classes. Is this the right file?")
        limits = np.iinfo(self.t_dtype) if whole else None
        if whole and not (limits.min <= low and high <= limits.max):
            beyond = box_of((labels < limits.min) | (labels > limits.max))
            raise ValueError(f"{where}: labels of {low} to {high} do not fit into the target's {self.t_dtype} ({limits.min} "
                             f"to {limits.max}; NaN becomes {IGNORE}); the others lie in {beyond}. Renumber "
                             "them, or give the target node another dtype.")
        if self.t_dtype == np.float32 and labels.dtype.kind in "iu" and high > 2 ** 24:
            self.notes.warn("float32", "%s: labels up to %d lose digits in float32, so that some become equal. Renumber "
                            "them, or give the target node dtype='int32'.", where, high)
        return bool(high >= 0 if whole or self.n_class else low != IGNORE or high != IGNORE)

    def _ids(self, where, ids):
        """Whether labels (z, x, y) are ids of objects, of which targets are made; tells whether any is labelled."""
        if ids.dtype.kind == "f":
            wrong = (ids != np.floor(ids)) & ~np.isnan(ids) | np.isinf(ids)
            if wrong.any():
                raise ValueError(f"{where}: targets are made of ids, but the labels are no whole numbers in "
                                 f"{box_of(wrong)}. Is this the right file?")
        elif ids.dtype == np.uint64 and ids.max() >= 2 ** 63:
            raise ValueError(f"{where}: ids go up to {ids.max()}, in {box_of(ids >= 2 ** 63)}, but targets are made of "
                             "int64. Renumber them.")
        return bool(np.any(ids >= 0))

    def label_channels(self, n, target_vec_ix, target_discrete_ix):
        """Whether ``n`` channels of labels are vectors, ids or classes, as the two arguments of the data set say."""
        vectors = [i for triple in target_vec_ix or () for i in triple]
        if self.targets and (0 in vectors or (target_discrete_ix is not None and 0 not in target_discrete_ix)):
            raise ValueError("targets are made of ids in label channel 0: name it in target_discrete_ix, not target_vec_ix.")
        if bad := [i for i in vectors + list(target_discrete_ix or ()) if i not in range(n)]:
            raise ValueError(f"target_vec_ix and target_discrete_ix name channels {bad} of labels that have {n}.")
        interpolated = target_discrete_ix is not None and set(target_discrete_ix) != set(range(n))
        if (self.t_dtype.kind != "f" or self.n_class) and (vectors or interpolated):
            kind = "class ids. Name" if self.n_class else f"{self.t_dtype}. Give it dtype='float32', or name"
            raise ValueError(f"Vectors and interpolated labels are no whole numbers, but the target node has {kind} all "
                             "channels in target_discrete_ix.")

    def made_targets(self, n, target):
        """Whether a target node of shape ``target`` can hold what is made of ``n`` label channels; tells how many it is."""
        made = self.targets(np.zeros((n, *self.targets.margin.sum(1) + 1), np.int64))
        steps = ", ".join(name for name, _ in self.targets.steps)
        if target["f"] not in (None, len(made)):
            raise ValueError(f"targets={steps!r} makes {len(made)} channels, but the target node is {target}. Give it "
                             f"override_f={len(made)}.")
        if made.dtype.kind == "f" and (self.t_dtype.kind != "f" or self.n_class):
            raise ValueError(f"targets={steps!r} makes real numbers, but the target node has {self.t_dtype}"
                             f"{' and is for classes' * bool(self.n_class)}. Give it dtype='float32' and a loss on numbers.")
        if self.n_class and (self.targets.n_class or 0) > self.n_class:
            raise ValueError(f"targets={steps!r} makes {self.targets.n_class} classes, but the network has {self.n_class}.")
        return len(made)


def box_of(where):
    """The box that holds all True elements of an array, in the way it would be indexed.

    >>> box_of(np.array([[0, 0, 0, 0], [0, 1, 0, 1]], bool))
    '[1:2, 1:4]'
    """
    found = [np.flatnonzero(where.any(tuple(k for k in range(where.ndim) if k != axis))) for axis in range(where.ndim)]
    return f"[{', '.join(f'{f[0]}:{f[-1] + 1}' for f in found)}]"
