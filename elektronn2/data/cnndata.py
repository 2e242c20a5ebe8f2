"""Training samples: patches of image volumes, warped and augmented, with the targets that belong to them."""
import logging
import numbers
import operator
import threading
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from elektronn2.data import non_geometric_augmentation as nga
from elektronn2.data.augmentations import augment, check_augmentations
from elektronn2.data.edits import Recipe
from elektronn2.data.explain import Explanation, Facts, source_box
from elektronn2.data.image import BORDER_MODES, COPIES, EDGES, as_nhood, fit_border, make_affinities, make_nhood_targets
from elektronn2.data.input_checks import IGNORE, InputChecks, Notes
from elektronn2.data.io import check_files, file_list, mask_pairs, title
from elektronn2.data.masks import Masked
from elektronn2.data.pullback import WarpingOOBError, free_threads
from elektronn2.data.sampling import (
    BatchOptions,
    as_channels,
    as_offsets,
    as_seed,
    as_shares,
    as_triples,
    check_aniso_factor,
    check_fit,
    check_names,
    check_switches,
    check_warp_args,
    generator,
    memory_of_machine,
)
from elektronn2.data.targets import TargetMaker
from elektronn2.data.transformations import check_vectors, get_warped_slice
from elektronn2.data.volumes import open_volume
from elektronn2.data.volumes.h5 import ll_masks
from elektronn2.data.volumes.opening import open_stored
from elektronn2.data.volumes.volume import box_text
from elektronn2.data.warp_fit import what_fits
from elektronn2.utils.basic import as_float
from elektronn2.utils.validate import as_int, suggest

logger = logging.getLogger("elektronn2log")

MAX_DRAWS = 200  # of a warp, or of a place with enough labels, for one sample
OPTIONS = [f.name for f in fields(BatchOptions)]


class Cube(NamedTuple):
    """An image (f, z, x, y), its labels (f, z, x, y) or (n,), its lazy-label masks, int16 (2, n), and how it is called."""
    image: object
    labels: object
    ll_mask: np.ndarray
    name: str
    labelled: bool  # whether anything is; taken for granted while the labels stay in their file
    label_offset: tuple | None = None  # the image voxel at which the labels begin; None: they are centred


class BatchCreatorImage:
    """Random patches, with their targets, of image volumes and labels.

    Parameters
    ----------
    input_node, target_node : nodes of a model, or anything with ``shape`` (a TaggedShape) and ``output.dtype``
        Patches have the spatial shape of the input; the target sits in them as the offsets and strides of ``target_node``
        say, and gets its dtype. A 2-D network gets sections of constant z of 3-D volumes.
        If the target has no spatial axes ('img-scalar'), each label data set is one number or vector for its whole image.
    d_path, l_path : folders of images and labels; ``~`` is understood
    d_files, l_files : lists of (file name, name of the data set), in pairs; instead of a file of these two, also an address
        of any format, as ``'em.zarr/0'`` or ``'precomputed://https://host/em'`` (see
        :func:`~elektronn2.data.volumes.open_volume`), or an array. Without d_path or l_path, give whole paths.
        Axes (z, x, y) or (f, z, x, y). Images are uint8 (divided by 255), uint16 (65535)
        or floating point as it is, best in 0..1. Labels are of any type; negative ones and NaN (which becomes -666) count as
        unlabelled. If a loss takes the target for class ids, they must be whole numbers below its number of classes.
        An optional data set ``ll_mask``, (2, n_classes), beside the labels holds masks for lazy labels.
    cube_prios : weights, one per training cube in order (default: its number of label elements)
    valid_cubes : indices of pairs that are kept for validation
    border_mode : for 'img-scalar': how images are fitted to the patch: 'keep', 'crop', 'mirror', '0-pad'; see
        :func:`elektronn2.data.image.fit_border`
    aniso_factor : length of a voxel in z over that in x and y; 1 for isotropic data
    target_vec_ix : triples (or one) of label channels that are vectors (z, x, y), to be turned with the patch
    target_discrete_ix : label channels (or one) that must not be interpolated (default: all); [] for probabilities
    h5stream : leave the volumes in the files, of whatever format, and read each patch from there
    max_ram : GiB; if all volumes together are larger, they are left in the files, too (default: half of the memory)
    zxy : False if the axes in the files are ([f,] x, y, z), where the files themselves do not name them
    targets : what is made of the labels in channel 0, which then are ids of objects (0: none, below 0: not labelled): a
        name, or (name, dict of arguments), or a list of such; see :class:`elektronn2.data.targets.TargetMaker`. They are
        made of each patch after it was warped, at every voxel: 'barriers', 'affinities', 'shifted', 'signed_distance'
    label_offset : (z, x, y) of the image voxel at which the labels begin, for all cubes, or a list of such, one per cube
        (default: None, the labels lie in the middle of their image)
    m_path, m_files : folder (default: ``l_path``) and list of (file name, name of the data set), or None, one per cube:
        volumes as large as the labels, which are used only where the mask is not 0
    seed : integer of at least 0; None: one that cannot be foreseen, found in ``seed`` afterwards

    Sample k of a seed is always the same, whoever asks, when, and in which thread (:meth:`sample`). Volumes are kept in the
    dtype in which they are stored.

    Raises FileNotFoundError listing all missing files, KeyError for an unknown data set, OSError for a broken file,
    TypeError for arguments of another kind, and ValueError naming cube, file and axis where shapes do not go together, an
    image has NaN or infinity, labels do not fit the target, or nothing is labelled in all training cubes. With
    ``h5stream``, values are checked patch by patch, when they are read.

    >>> import tempfile
    >>> from elektronn2 import neuromancer as nm
    >>> from elektronn2.data.synthetic import write_neuro_data
    >>> folder = write_neuro_data(tempfile.mkdtemp(), (12, 40, 40), (8, 30, 30), 1, (4, 8, 8))
    >>> image = nm.Input((2, 1, 5, 13, 13), 'b,f,z,x,y')
    >>> target = nm.Input_like(nm.Conv(image, 2, (3, 4, 4), (1, 2, 2)), override_f=1, dtype='int16')
    >>> data = BatchCreatorImage(image, target, folder, folder, [('raw_0.h5', 'raw')], [('barrier_int16_0.h5', 'lab')],
    ...                          seed=0)
    >>> images, targets = data.getbatch(2, warp=0.5, grey_augment_channels=[0])
    >>> images.shape, images.dtype, targets.shape, targets.dtype
    ((2, 1, 5, 13, 13), dtype('float32'), (2, 1, 3, 5, 5), dtype('int16'))
    """

    def __init__(self, input_node, target_node=None, d_path=None, l_path=None, d_files=None, l_files=None, cube_prios=None,
                 valid_cubes=None, border_mode="crop", aniso_factor=2, target_vec_ix=None, target_discrete_ix=None,
                 h5stream=False, zxy=True, targets=None, label_offset=None, m_path=None, m_files=None, seed=None,
                 max_ram=None):
        given = dict(target_node=target_node is not None, d_files=d_files, l_files=l_files)
        if missing := [name for name, value in given.items() if not value]:
            raise ValueError(f"BatchCreatorImage needs {', '.join(missing)}." + (
                " A model has one after model.designate_nodes(target_node=...)." if "target_node" in missing else ""))
        d_pairs, l_pairs = file_list("d_files", d_path, d_files), file_list("l_files", l_path, l_files)
        if len(d_pairs) != len(l_pairs):
            raise ValueError(f"{len(d_pairs)} image files but {len(l_pairs)} label files: they must form pairs.")
        m_pairs = mask_pairs(m_path or l_path, m_files, len(d_pairs))
        if border_mode not in BORDER_MODES:
            raise ValueError(f"border_mode must be one of {', '.join(BORDER_MODES)}; got {border_mode!r}."
                             f"{suggest(border_mode, BORDER_MODES)}")
        check_aniso_factor(aniso_factor)
        check_switches(dict(h5stream=h5stream, zxy=zxy), ("h5stream", "zxy"))
        self.border_mode, self.aniso_factor, self.h5stream, self.zxy = border_mode, aniso_factor, h5stream, zxy
        self._default_axes = ("xy", "zxy", "fzxy") if zxy else ("xy", "xyz", "fxyz")
        if isinstance(max_ram, bool) or not isinstance(max_ram, numbers.Real | None):
            raise TypeError(f"max_ram must be a number of GiB, got {max_ram!r}.")
        if max_ram is not None and not max_ram >= 0:
            raise ValueError(f"max_ram must be at least 0 GiB, got {max_ram!r}.")
        self.seed = as_seed(seed)
        self.target_vec_ix = as_triples(target_vec_ix)
        self.target_discrete_ix = as_channels("target_discrete_ix", target_discrete_ix)
        self._next, self._lock, self._notes = {"train": 0, "valid": 0}, threading.Lock(), Notes()
        self._take_geometry(input_node, target_node)
        self.targets = None if targets is None else TargetMaker(targets, self.ndim, aniso_factor)
        self.checks = InputChecks(input_node.shape["f"], self.t_dtype, self.n_class, self.targets, self._notes)
        if self.mode == "img-scalar" and (targets is not None or label_offset is not None or m_files):
            raise ValueError("targets, label_offset and m_files are for labels with spatial axes.")
        self._read(d_pairs, l_pairs, m_pairs, as_offsets(label_offset, len(d_pairs)), valid_cubes, cube_prios,
                   max_ram)
        self._check_channels(target_node.shape)
        self.n_successful_warp = self.n_failed_warp = self._n_patches = self._n_labelled = 0
        logger.info("%s", self)

    def __getstate__(self):
        """For a copy in another process: it gets a lock of its own."""
        return {k: v for k, v in vars(self).items() if k != "_lock"}

    def __setstate__(self, state):
        vars(self).update(state, _lock=threading.Lock())

    # -- what is read ----------------------------------------------------------------------------
    def _take_geometry(self, input_node, target_node):
        source, target = input_node.shape, target_node.shape
        self.ndim, self.t_dtype = source.ndim, np.dtype(target_node.output.dtype)
        if self.ndim not in (2, 3) or target.ndim not in (0, self.ndim):
            raise ValueError(f"Images need 2 or 3 spatial axes, and their targets as many, or none: got input {source} and "
                             f"target {target}.")
        axes = ["b", "f", *"zxy"[-self.ndim:]]
        if source.tags != axes or (target.ndim and target.tags != axes):
            raise ValueError(f"Batches have axes {','.join(axes)}, but the input node is {source} and the target node "
                             f"{target}. Give the nodes this order of axes.")
        if None in source.spatial_shape:
            raise ValueError(f"The input {source} leaves its size open: patches need a fixed one.")
        self.mode = "img-img" if target.ndim else "img-scalar"
        self.patch_size = np.array(source.spatial_shape)
        self.strides, self.offsets = np.array(target.strides), np.array(target.offsets)
        if self.strides.dtype == object:
            raise ValueError(f"The target has strides {list(map(str, self.strides))}: it is finer than the labels.")
        self.target_ps = self.strides * (np.array(target.spatial_shape) - 1) + 1
        if self.mode == "img-scalar" and (self.h5stream or self.target_vec_ix or self.target_discrete_ix is not None):
            raise ValueError("h5stream, target_vec_ix and target_discrete_ix are for labels with spatial axes.")
        losses = [node for node in getattr(target_node, "children", {}).values() if getattr(node, "target_is_sparse", False)]
        classes = [node.n_class for node in losses if hasattr(node, "n_class")]
        one = "f" in target.tags and target["f"] == 1  # affinities, which are made from ids of cells, are three
        self.n_class = min(classes) if classes and one else None

    @property
    def flat(self):
        """Whether sections of volumes are cut for a 2-D network."""
        return self.ndim == 2 and self.mode == "img-img"

    def _volume_geometry(self):
        """Patch size, offsets, strides and size of the labels on the axes (z, x, y), also of a 2-D network; the labels with
        the margin that targets are made with."""
        geometry = [self.patch_size, self.offsets, self.strides, self.target_ps]
        if self.ndim == 2:
            geometry = [(z, *values) for z, values in zip((1, 0, 1, 1), geometry)]
        if self.targets:
            geometry[1], geometry[3] = geometry[1] - self.targets.margin[:, 0], geometry[3] + self.targets.margin.sum(1)
        return [tuple(map(int, values)) for values in geometry]

    def _read(self, d_files, l_files, m_files, label_offsets, valid_cubes, cube_prios, max_ram):
        check_files(d_files + l_files + m_files)
        try:
            valid = {operator.index(i) for i in (() if valid_cubes is None else valid_cubes)}
        except TypeError:
            raise ValueError(f"valid_cubes must be a list of cube numbers, got {valid_cubes!r}.") from None
        if valid - set(range(len(d_files))):
            raise ValueError(f"valid_cubes {sorted(valid)} are not all among the {len(d_files)} cubes, numbered from 0.")
        if len(valid) == len(d_files):
            raise ValueError(f"valid_cubes={sorted(valid)} keeps all cubes for validation: none is left to train on. Leave "
                             "some out; a single cube can only be trained on, with valid_cubes=[].")
        self.cube_prios = None if cube_prios is None else as_shares(cube_prios, len(d_files) - len(valid))
        names = [f"Cube {i} ({title(d)}, {title(lab)})" for i, (d, lab) in enumerate(zip(d_files, l_files))]
        read, files = self._read_scalar, list(zip(d_files, l_files, m_files))
        if self.mode == "img-img":
            files = [[None if source is None else open_volume(source, default_axes=self._default_axes) for source in cube]
                     for cube in files]
            read = self._read_volumes
            self._choose_stream(files, max_ram)
        cubes = [read(where, *cube, offset) for where, cube, offset
                 in tqdm(zip(names, files, label_offsets), "Reading", len(files), unit="cube", delay=2, leave=False)]
        cubes = complete_masks(cubes)
        counts = [len(c.labels) for c in cubes]
        if len(set(counts)) > 1:
            raise ValueError(f"All cubes must have equally many label channels; they have {counts}, in this order.")
        self._check_labelled(cubes, valid)
        self._cubes = {"train": [c for i, c in enumerate(cubes) if i not in valid],
                       "valid": [c for i, c in enumerate(cubes) if i in valid]}
        self.train_d, self.valid_d = ([c.image for c in self._cubes[source]] for source in ("train", "valid"))
        self.train_l, self.valid_l = ([c.labels for c in self._cubes[source]] for source in ("train", "valid"))
        self.n_f, self.t_n_f = self.checks.n_f, counts[0]
        if self.cube_prios is None:
            self.cube_prios = as_shares([np.prod(c.labels.shape) for c in self._cubes["train"]], len(self.train_d))
        self.n_labelled_pixel = int(sum(np.prod(c.labels.shape[1:]) if self.h5stream else np.count_nonzero(c.labels[0] >= 0)
                                        for c in cubes))

    def _choose_stream(self, cubes, max_ram):
        """Leave the volumes in their files if that is wanted, or if they are too large for the memory."""
        limit = memory_of_machine() / 2 if max_ram is None else max_ram * 2 ** 30
        needed = sum(volume.nbytes for cube in cubes for volume in cube if volume is not None)
        if not self.h5stream and needed > limit:
            logger.info("The volumes need %.1f GiB of memory and max_ram is %.1f GiB: each patch is read from the files.",
                        needed / 2 ** 30, limit / 2 ** 30)
            self.h5stream = True

    def _read_volumes(self, where, image, labels, mask, label_offset):
        self.checks.image(where, image)
        patch, offsets, _, target_ps = self._volume_geometry()
        cuts = [range(0, int(n), int(stride)) for n, stride in zip(self.target_ps, self.strides)]
        self.checks.are_numbers(where, labels)
        check_fit(where, image.shape[1:], labels.shape[1:], patch, offsets, target_ps, label_offset, cuts)
        ll_mask = ll_masks(where, labels)
        if mask is not None:
            self.checks.are_numbers(where, mask, "values of the mask")
            labels = Masked(where, labels, mask)
        if self.h5stream:
            return Cube(image, labels, ll_mask, where, True, label_offset)
        image, labels = image.load(), labels.load()
        self.checks.values(where, image)
        return Cube(image, labels, ll_mask, where, self.checks.labels(where, labels), label_offset)

    def _read_scalar(self, where, d_file, l_file, *_):
        axes = ("xy", "fxy", "fzxy") if self.ndim == 2 else self._default_axes
        image, stored = open_volume(d_file, default_axes=axes), open_stored(l_file)[0]
        if (image.shape[1] > 1 or "z" in image.axes) != (self.ndim == 3):
            raise ValueError(f"{where}: the input has {self.ndim} spatial axes, the image shape {image.stored.array.shape}.")
        self.checks.image(where, image)
        image, label = image.load(), np.atleast_1d(stored.array[()])
        self.checks.are_numbers(where, label)
        image = image[:, 0] if self.ndim == 2 else image
        if stored.close:
            stored.close()
        self.checks.values(where, image)
        fitted = fit_border(image, self.patch_size, self.border_mode)
        if fitted.shape[1:] != tuple(self.patch_size):
            raise ValueError(f"{where}: border_mode={self.border_mode!r} leaves the image at {fitted.shape}, but the input "
                             f"needs {tuple(map(int, self.patch_size))}. Use 'mirror' or '0-pad', or another input shape.")
        if label.ndim != 1:
            raise ValueError(f"{where}: the target has no spatial axes, so the label must be a number or a vector, but it "
                             f"has shape {label.shape}.")
        return Cube(as_float(fitted).astype(np.float32), label, None, where, self.checks.labels(where, label))

    def _check_labelled(self, cubes, valid):
        """Whether there is something to learn from; ll_mask may say something of unlabelled voxels, too."""
        useless = [not c.labelled and not c.ll_mask[1].any() for c in cubes]
        names = "; ".join(c.name for c, nothing in zip(cubes, useless) if nothing)
        if all(nothing for i, nothing in enumerate(useless) if i not in valid):
            raise ValueError(f"Nothing is labelled in any training cube: all labels are negative or NaN in {names}. Number "
                             "the classes from 0 on, or give other files.")
        if names:
            logger.warning("Nothing is labelled, because all labels are negative or NaN, in %s. From these cubes nothing is "
                           "learnt: leave them out, or number the classes from 0 on.", names)

    def _check_channels(self, target):
        """Whether the target can hold the labels, or what is made of them."""
        if self.mode == "img-scalar" and "f" in target.tags and target["f"] != self.t_n_f:
            raise ValueError(f"The labels have {self.t_n_f} values per image, but the target node is {target}.")
        self.checks.label_channels(len(self.train_l[0]), self.target_vec_ix, self.target_discrete_ix)
        if self.targets:
            self.t_n_f = self.checks.made_targets(self.t_n_f, target)

    # -- samples ---------------------------------------------------------------------------------
    def getbatch(self, batch_size=1, source="train", grey_augment_channels=None, warp=False, warp_args=None,
                 ignore_thresh=False, force_dense=False, affinities=False, nhood_targets=False, ret_ll_mask=False,
                 nga_blur_noise_probability=False, blurry_blobs_probability=False, blurry_blobs_args=None,
                 noisy_random_erasing_probability=0, noisy_random_erasing_args=None, uniform_random_erasing_probability=0,
                 uniform_random_erasing_args=None, flip=True, augment_valid=False, augmentations=None, **unknown):
        """The next samples: a tuple of images (b, f, [z,] x, y) float32, targets (b, f, [z,] x, y), and what is asked for.

        Parameters
        ----------
        source : 'train' (cubes drawn by ``cube_prios``) or 'valid' (all validation cubes alike)
        grey_augment_channels : image channels (or one) whose contrast, brightness and gamma are changed; clips to 0..1
        warp : True, False, or the probability to warp a sample
        warp_args : dict of arguments of :func:`elektronn2.data.transformations.get_warped_slice`: ``sample_aniso``,
            ``warp_amount`` (0..2), ``lock_z``, ``no_x_flip``, ``perspective``, ``aniso_factor``, ``elastic``,
            ``misalignment``, ``antialias``. If 200 warps in a row fall outside of the cubes, the sample is cut without any,
            and a warning logged once; see ``warp_stats``. When it is first asked for warps of which most would not fit, a
            note says which patch would.
        ignore_thresh : draw again where more than this part of the target is unlabelled (in cubes whose second lazy-label
            mask is 0 throughout); of 200 draws the best one is taken
        force_dense : targets at every voxel, without the strides of the network
        affinities : 'malis': return (images, affinities (b, 3, ...), segmentation (b, 1, ...)), both int16, of the ids in
            label channel 0, see :func:`elektronn2.data.image.make_affinities`; 'affinity': without the segmentation. Of a
            2-D network, affinities are (b, 2, ...), along x and y, and each section is a segmentation of its own
        nhood_targets : True or offsets (n, 3), of a 2-D network also (n, 2): copies of label channel 0, shifted by these,
            see :func:`elektronn2.data.image.make_nhood_targets`
        ret_ll_mask : append the two lazy-label masks, int16 (b, n)
        nga_blur_noise_probability, blurry_blobs_..., uniform_random_erasing_..., noisy_random_erasing_... :
            probabilities and arguments of the functions of ``elektronn2.data.non_geometric_augmentation``, applied in
            this order after the grey values were changed
        flip : reflect axes and exchange them (x and y; with ``lock_z=False`` all), with or without warping
        augment_valid : warp and flip samples for validation, too. By default they are neither, so that they tell how
            well the network does on data as they are. Grey values of validation are never changed.
        augmentations : further changes of grey values, applied last and in this order: a dict, or a list of pairs, of names
            and dicts of arguments, with the ``probability`` (default 1) that a sample is changed; for example
            ``[('missing_sections', dict(section_probability=0.05)), ('gaussian_noise', dict(probability=0.5))]``. All
            are in ``elektronn2.data.augmentations.AUGMENTATIONS``. They clip to 0..1.

        Raises TypeError for unknown and ValueError for impossible arguments before any work, with ``h5stream`` also
        ValueError for a patch with NaN or infinity, or with labels that do not fit the target.
        """
        given = locals()
        options = self._options({**{name: given[name] for name in OPTIONS}, **unknown})
        self._of(source)
        batch_size = as_int(batch_size, "batch_size")
        with self._lock:
            first = self._next[source]
            self._next[source] += batch_size
        return tuple(map(np.stack, self._samples(first, batch_size, source, options)))

    def batch(self, number, batch_size=1, source="train", **options):
        """Batch ``number`` of a source: samples ``number * batch_size`` and on. Options and result as in :meth:`getbatch`.

        A pure function of the seed and its arguments, for any number of threads.
        """
        first = as_int(number, "number", 0) * as_int(batch_size, "batch_size")
        return tuple(map(np.stack, self._samples(first, batch_size, source, self._options(options))))

    def deferred_batch(self, number, batch_size=1, source="train", **options):
        """The same, but with a list of :class:`~elektronn2.data.edits.Recipe` in place of the images: only what is random is
        drawn, the voxels that it needs are copied, and the targets made. Of a 2-D network, recipes are of (f, 1, x, y).

        It is for :class:`elektronn2.training.gpu_augmentation.DeviceAugmentation`.
        """
        first = as_int(number, "number", 0) * as_int(batch_size, "batch_size")
        images, *others = self._samples(first, batch_size, source, self._options(options), True)
        return (list(images), *map(np.stack, others))

    def sample(self, index, source="train", **options):
        """Sample ``index`` of a source: what :meth:`getbatch` returns, without the batch axis."""
        return self._sample(as_int(index, "index", 0), source, self._options(options))[0]

    def explain(self, index, source="train", path=None, **options):
        """How :meth:`sample` of the same arguments came about: cube, position, matrix and augmentations, to be printed.

        ``path``: of a picture (PNG) of image and target, to be written. Returns an
        :class:`~elektronn2.data.explain.Explanation`, which also has them as attributes.
        """
        arrays, facts = self._sample(as_int(index, "index", 0), source, self._options(options))
        explanation = Explanation(facts, arrays, *self._volume_geometry()[:3], self.targets)
        if path is not None:
            explanation.draw(path)
        return explanation

    def _samples(self, first, n, source, options, defer=False):
        return zip(*(self._sample(first + i, source, options, defer)[0] for i in range(n)))

    def _options(self, given):
        check_names("getbatch", given, OPTIONS)
        options = BatchOptions(**given)
        if bad := [c for c in options.grey_augment_channels or () if c not in range(self.n_f)]:
            raise ValueError(f"grey_augment_channels names channels {bad} of images that have {self.n_f}.")
        check_augmentations(options.augmentations or (), (self.n_f, *[8] * self.ndim))
        if options.warp:
            warps = options.warp_args or {}
            bent = any(warps.get(name) is not None for name in ("elastic", "misalignment"))
            check_vectors(self.target_vec_ix, warps.get("perspective"), bent)
            if self.ndim == 2 and warps.get("misalignment") is not None:
                raise ValueError("misalignment moves sections against their neighbours, of which a 2-D network sees none: "
                                 "labels would only be out of place. Leave it out.")
        if self.targets and (options.affinities or options.shifted):
            raise ValueError("affinities and nhood_targets are made of ids, as are the targets of this data set: leave out "
                             "either.")
        self._nhood(options)
        if self.mode == "img-scalar" and (options.warp or options.affinities or options.ret_ll_mask or options.shifted
                                          or options.ignore_thresh is not False):
            raise ValueError("warp, affinities, nhood_targets, ret_ll_mask and ignore_thresh are for labels with spatial "
                             "axes, but here there are numbers per image.")
        self._note_fit(options)
        return options

    def _note_fit(self, options):
        """Note, once for the same ``warp_args``, if most warped patches would not fit into the training cubes."""
        if not options.warp:
            return
        key = f"fit {options.warp_args}"
        if not self._notes.first(key):
            return
        patch, offsets, strides, target_ps = self._volume_geometry()
        arguments = {"aniso_factor": self.aniso_factor, **(options.warp_args or {})}
        cubes = [(c.image, c.labels, c.label_offset) for c in self._cubes["train"]]
        share, better, its_share = what_fits(cubes, self.cube_prios, patch, offsets, strides, target_ps, options.flip,
                                             arguments)
        if share < 0.5:
            cure = (f"With a patch of about {better[-self.ndim:]}, {100 * its_share:.0f} % would." if better else
                    "No smaller patch would do much better: use a smaller warp_amount.")
            logger.warning("NOTE: only about %.0f %% of warped patches of %s fit into the cubes, others are drawn again, so "
                           "that strong warps are rare. %s Or use a smaller warp_amount, or no perspective.", 100 * share,
                           tuple(map(int, self.patch_size)), cure)

    def _of(self, source):
        if source not in ("train", "valid"):
            raise ValueError(f"source must be 'train' or 'valid', got {source!r}.")
        if not self._cubes[source]:
            raise ValueError("There are no validation cubes: name some in valid_cubes.")
        return self._cubes[source]

    def _draw_cube(self, rng, source):
        cubes = self._of(source)
        return cubes[rng.choice(len(cubes), p=self.cube_prios) if source == "train" else rng.integers(len(cubes))]

    def _sample(self, index, source, options, defer=False):
        """(arrays, Facts) of a sample; with ``defer``, a Recipe in place of the image."""
        self._of(source)
        facts = Facts(index, source, self.seed)
        rng = generator(self.seed, 2 * index + (source == "valid"))
        augment = source == "train" or options.augment_valid
        if self.mode == "img-scalar":
            cube = self._draw_cube(rng, source)
            image, target = cube.image, cube.labels
            if augment and options.flip:
                image = _turn(image, rng)
        else:
            cube, image, target, drawn = self._draw_patch(index, source, options, augment, rng, facts, defer)
            facts.matrix, facts.bend = drawn["matrix"], drawn["bend"]
        facts.cube = cube.name
        facts.lap("reading and warping")
        if self.h5stream:
            self._check_patch(facts, image.source if defer else image, target)
        if defer:
            image = Recipe(image.shape, image)
        if source == "train":
            everything = options.nga_blur_noise_probability or options.augmentations
            self.checks.clipping(range(self.n_f) if everything else options.grey_augment_channels or ())
            image = _spoil(image, options, rng, facts.augmentations)
            facts.lap("grey values")
        if target.dtype.kind == "f":
            target = np.where(np.isnan(target), IGNORE, target)
        targets = self._targets(target, options) if self.mode == "img-img" else (target.astype(self.t_dtype),)
        if self.flat:
            image, targets = image if defer else image[:, 0], [t[:, 0] for t in targets]
        masks = tuple(cube.ll_mask) if options.ret_ll_mask else ()
        arrays = (image if defer else np.ascontiguousarray(image), *map(np.ascontiguousarray, targets), *masks)
        facts.lap("targets")
        return arrays, facts

    def _check_patch(self, facts, image, target):
        """What is checked at once of volumes in memory, of one patch of volumes in files."""
        box = source_box(facts.matrix, self._volume_geometry()[0])[1]
        where = f"Sample {facts.index}, a patch of {facts.cube} from image voxels {box_text(box, 'zxy')}"
        self.checks.values(where, image)
        labelled = self.checks.labels(where, target)
        with self._lock:
            self._n_patches, self._n_labelled = self._n_patches + 1, self._n_labelled + labelled
            nothing = self._n_patches >= MAX_DRAWS and not self._n_labelled
        if nothing:
            self._notes.warn("unlabelled", "Nothing was labelled in the first %d patches: all labels were negative or NaN, "
                             "of which nothing is learnt. Number the classes from 0 on, or take patches where there are "
                             "labels, by ignore_thresh.", MAX_DRAWS)
        facts.lap("checks")

    def _draw_patch(self, index, source, options, augment, rng, facts, defer):
        """(cube, image, target, dict of matrix and bend); ``facts`` get what else is to be known."""
        warp = facts.warped = bool(augment and rng.random() < options.warp)
        best = None
        for facts.n_draws in range(1, MAX_DRAWS + 1):
            cube = self._draw_cube(rng, source)
            try:
                patch = self._cut(cube, options, rng, warp, augment and options.flip, defer)
            except WarpingOOBError as error:
                reason = error
                self._count(warp, False)
                continue
            self._count(warp, True)
            unlabelled = 0
            if options.ignore_thresh is not False and not cube.ll_mask[1].any():
                target = self.targets.inner(patch[1]) if self.targets else patch[1]
                unlabelled = 1 - np.mean(target >= 0)
            if best is None or unlabelled < best[0]:
                best = unlabelled, (cube, *patch)
            if unlabelled <= options.ignore_thresh:
                return best[1]
        if best is not None:
            self._notes.warn("ignore_thresh", "Sample %d: in each of %d places more than ignore_thresh=%g of the target was "
                            "unlabelled. The best place (%.3f) was taken. Raise ignore_thresh.", index, MAX_DRAWS,
                            options.ignore_thresh, best[0])
            return best[1]
        self._notes.warn("warp", "Sample %d: %d warps in a row fell outside of the cubes, so it was cut without (later ones "
                        "may be, too). The last: %s So far %s. Use a smaller warp_amount, no perspective, a smaller input "
                        "shape or larger cubes.", index, MAX_DRAWS, reason, self.warp_stats)
        facts.warped = False
        return cube, *self._cut(cube, replace(options, warp_args=None), rng, False, False, defer)

    def _cut(self, cube, options, rng, warp, flip, defer):
        """Image and target patch of a cube, and how it was warped; the target dense where all its voxels are needed."""
        drawn = {}
        patch = self.warp_cut(cube.image, cube.labels, warp, options.warp_args, rng, flip,
                              options.needs_dense or self.targets is not None, cube.label_offset, drawn, defer)
        return *patch, drawn

    def warp_cut(self, img, target, warp=False, warp_params=None, rng=None, flip=True, force_dense=False,
                 label_offset=None, facts=None, defer=False):
        """Cut a patch and its target at a random place of a volume, warped or not.

        ``img``, ``target``: arrays (f, z, x, y), the target at voxel ``label_offset`` of the image (None: centred).
        ``warp``: True, False, or the probability of a warp. ``warp_params``: dict of arguments of
        :func:`~elektronn2.data.transformations.get_warped_slice`: aniso_factor, sample_aniso, warp_amount, lock_z,
        no_x_flip, perspective, elastic, misalignment, antialias. ``rng``: a numpy Generator (default: an unpredictable
        one). ``flip``, ``force_dense``: as in :meth:`getbatch`. ``facts``: a dict that gets 'matrix', which takes image
        voxels to patch voxels, and 'bend'. ``defer``: as in :func:`~elektronn2.data.transformations.warp_slice`.

        Returns patch (f, z, x, y) float32 and target (f, z, x, y), with the margin that ``targets`` need. Raises
        WarpingOOBError if a warped patch does not fit, TypeError for an unknown name in ``warp_params``, ValueError for an
        impossible value.
        """
        check_warp_args("warp_params", warp_params)
        rng = np.random.default_rng() if rng is None else rng
        patch, offsets, strides, target_ps = self._volume_geometry()
        arguments = {"aniso_factor": self.aniso_factor, **(warp_params or {})}
        if not (warp is True or rng.random() < warp):
            arguments.update(warp_amount=0, elastic=None, misalignment=None)
        return get_warped_slice(img, patch, target=target, target_ps=target_ps, target_off=offsets,
                                target_strides=1 if force_dense else strides, target_vec_ix=self.target_vec_ix,
                                target_discrete_ix=self.target_discrete_ix, rng=rng, flip=flip, n_threads=free_threads(),
                                label_offset=label_offset, facts=facts, defer=defer, **arguments)

    def _targets(self, target, options):
        """What is trained on, from the labels of a patch (f, z, x, y)."""
        if self.targets:
            target = self.targets(target)
        target = target.astype(self.t_dtype)
        if options.shifted:
            target = make_nhood_targets(target[None], self._nhood(options))[0]
        if (options.needs_dense or self.targets) and not options.force_dense:
            target = target[(slice(None), *(slice(None, None, s) for s in self._volume_geometry()[2]))]
        if not options.affinities:
            return (target,)
        affinities, segmentation = make_affinities(target[:1], EDGES[self.ndim])
        return (affinities[0], segmentation) if options.affinities == "malis" else (affinities[0],)

    def _nhood(self, options):
        """The offsets of shifted copies; None if there are to be none."""
        if not options.shifted:
            return None
        try:
            return COPIES[self.ndim] if options.nhood_targets is True else as_nhood(options.nhood_targets, self.ndim)
        except ValueError as error:
            raise ValueError(f"nhood_targets: {error}") from None

    # -- statistics ------------------------------------------------------------------------------
    def _count(self, warp, success):
        with self._lock:
            self.n_successful_warp += bool(warp and success)
            self.n_failed_warp += bool(warp and not success)

    @property
    def warp_stats(self):
        """How many warps succeeded and failed, as text."""
        total = self.n_successful_warp + self.n_failed_warp
        return (f"{self.n_successful_warp} warps succeeded and {self.n_failed_warp} failed "
                f"({100 * self.n_successful_warp / max(total, 1):.1f} % success)")

    def __repr__(self):
        return (f"{self.t_n_f}-target Data Set with {self.n_f} input channel(s):\n#train cubes: {len(self.train_d)} and "
                f"#valid cubes: {len(self.valid_d)}, {self.n_labelled_pixel:,} labelled pixels.")


def complete_masks(cubes):
    """The cubes, with lazy-label masks for those that have none: all classes are labelled, and none is surely absent.

    ValueError naming the cubes, if masks are of different numbers of classes, as those of a batch must not be.
    """
    lengths = {cube.name: cube.ll_mask.shape[1] for cube in cubes if cube.ll_mask is not None}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{n} in {name}" for name, n in lengths.items())
        raise ValueError(f"ll_mask must have equally many classes in all cubes, but it has {each}.")
    n = next(iter(lengths.values()), None)
    return [cube if cube.ll_mask is not None else
            cube._replace(ll_mask=np.repeat(np.array([[1], [0]], np.int16), n or len(cube.labels), 1)) for cube in cubes]


def _turn(image, rng):
    """An image (f, *spatial) with each axis reflected with probability 1/2, and x and y, if as long, exchanged."""
    image = image[(slice(None), *(slice(None, None, -1 if u < 0.5 else 1) for u in rng.random(image.ndim - 1)))]
    return image.swapaxes(-1, -2) if rng.random() < 0.5 and image.shape[-1] == image.shape[-2] else image


def _spoil(image, options, rng, applied):
    """Changes of grey values, in the order that getbatch tells; their names are added to ``applied``."""
    if options.grey_augment_channels:
        applied.append("grey_augment")
        image = nga.grey_augment(image, options.grey_augment_channels, rng)
    if rng.random() < options.nga_blur_noise_probability:
        applied += ["blur_augment", "noise_augment"]
        image = nga.noise_augment(nga.blur_augment(image), rng=rng)
    for name in ("blurry_blobs", "uniform_random_erasing", "noisy_random_erasing"):
        if rng.random() < getattr(options, f"{name}_probability"):
            applied.append(name)
            image = getattr(nga, name)(image, **(getattr(options, f"{name}_args") or {}), rng=rng)
    return augment(image, options.augmentations or (), rng, applied)
