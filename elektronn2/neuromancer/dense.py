"""Dense prediction of a node: its geometry, conversion of images, and logging around ``utils.dense``."""
import logging
import time
from fractions import Fraction
from math import floor, lcm

import numpy as np
import torch
from tqdm import tqdm

from elektronn2.neuromancer import graph
from elektronn2.neuromancer.function import Function, as_array, to_numpy
from elektronn2.utils.basic import as_float, out_of_memory
from elektronn2.utils.dense import Geometry, predict_tiled

logger = logging.getLogger("elektronn2log")


def geometry(node):
    """One :class:`~elektronn2.utils.dense.Geometry` per spatial axis for the node as its graph stands.

    Raises ValueError for a node without spatial axes, with several sources, with open sizes, or with a stride that
    is neither a whole number of voxels nor a fraction 1/k.
    """
    inputs = graph.sources(node)
    if len(inputs) != 1:
        raise ValueError(f"Dense prediction needs a node with one source; {node.name!r} has "
                         f"{[n.name for n in inputs]}.")
    source, shape = inputs[0].shape, node.shape
    if not shape.ndim or source.spatial_tags != shape.spatial_tags:
        raise ValueError(f"Dense prediction needs an image-to-image network; {inputs[0].name!r} is {source}, "
                         f"{node.name!r} is {shape}.")
    if None in source.spatial_shape:
        raise ValueError(f"Dense prediction needs a patch size, but {inputs[0].name!r} is {source}. "
                         "Load the model with imposed_patch_size.")
    if not inputs[0].output.dtype.startswith("float"):
        raise ValueError(f"Dense prediction scales images to 0..1, but {inputs[0].name!r} takes {inputs[0].output.dtype}; "
                         "make the input floating point.")
    nodes = graph.ancestors(node)
    joined = [n.name for n in nodes if "Concat" in [c.__name__ for c in type(n).__mro__] and n.shape.tags[n.axis] != "f"]
    if joined:
        raise ValueError(f"Dense prediction needs branches that are joined along f; {joined[0]!r} joins another axis.")
    cut = [n.name for n in nodes if getattr(n, "piece", None) and n.parent.shape.tags[n.piece[0]] != "f"]
    if cut:
        raise ValueError(f"Dense prediction needs nodes that are split along f only; {cut[0]!r} is a piece of another axis.")
    if len(shape.mfp_offsets) > 1:
        raise ValueError(f"{node.name!r} ends in {len(shape.mfp_offsets)} MFP fragments; add FragmentsToDense, "
                         "or use rebuild_model(model, override_mfp_to_active=True).")
    # a pooling network is its window at every voxel; what it would see of its own padding is not part of that
    pooled = any(s > 1 for s in shape._strides) or any(len(p.shape.mfp_offsets) > 1 for n in nodes for p in n.parents)
    axes = []
    for k, tag in enumerate(shape.spatial_tags):
        stride = Fraction(shape._strides[k])
        if stride.denominator != 1 and stride.numerator != 1:
            raise ValueError(f"Dense prediction of {node.name!r}: its voxels are {stride} input voxels apart on axis "
                             f"{tag!r}, which does not fit the input's grid.")
        scale = stride.denominator
        strides = [n.shape._strides[k] for n in nodes]
        upsamples = any(len(p.shape.mfp_offsets) == 1 and n.shape._strides[k] < p.shape._strides[k]
                        for n in nodes for p in n.parents)
        phases = [1, *(n.phases[k] for n in nodes if hasattr(n, "phases"))]
        axes.append(Geometry(
            patch=source.spatial_shape[k], out=shape.spatial_shape[k], stride=max(int(stride), 1), scale=scale,
            centre=floor(shape.centre[k] * scale + Fraction(scale - 1, 2)),
            grid=lcm(*phases, *(s.numerator for s in strides)) if upsamples or max(phases) > 1 else 1,
            border=shape.padded[k],
            keep_border=not pooled, axis=tag))
    return axes


def predict_dense(node, raw_img, as_uint8=False, pad_raw=False, progress=True):
    """Prediction of a node at every voxel of an image or volume.

    ``raw_img``: (f, z, x, y) for 3-D networks; (f, x, y), or (f, z, x, y) predicted slice by slice, for 2-D
    networks; spatial axes in the order of the node. uint8 and uint16 are divided by 255 and 65535. Any array-like
    that can be sliced will do. ``as_uint8``: the result times 255, truncated. ``pad_raw``: mirror the border so that
    the result has the size of the input; else it is smaller by the field of view minus 1.

    Returns (n_f, *L) float32 (or uint8): the network's output as if the whole image had gone through it in one pass,
    at all shifts of its pooling grid. For networks with pooling, voxels whose window reaches beyond the image
    are left out; networks with upsampling or without pooling see their own zero-padding, if they pad, at the border.

    Raises ValueError for a wrong number of axes or channels, or an image that is too small for the network.
    """
    raw_img = _sliceable(raw_img)
    axes = geometry(node)
    source = graph.sources(node)[0]
    ndim, n_f = node.shape.ndim, source.shape["f"]
    shape = tuple(raw_img.shape)
    slices = ndim == 2 and len(shape) == 4
    if len(shape) != ndim + 1 and not slices:
        tags = ", ".join(["f", *node.shape.spatial_tags])
        raise ValueError(f"predict_dense needs an array with axes ({tags}) for this {ndim}-D network, got shape {shape}."
                         + (" A single channel still needs its axis: raw[None]." if len(shape) == ndim else ""))
    if shape[0] != n_f:
        raise ValueError(f"predict_dense needs {n_f} channels on axis 0 (as in {source.shape} of {source.name!r}), "
                         f"got shape {shape}.")
    if slices and not shape[1]:
        raise ValueError(f"predict_dense got an image of no slices, shape {shape}.")
    check_statistics(node)
    as_float(np.empty(0, raw_img.dtype))
    floatx = source.output.dtype
    function = _dense_function(node, source)
    volumes = [raw_img[:, z] for z in range(shape[1])] if slices else [raw_img]

    beyond = []

    def prepare(raw):
        if raw.dtype.kind == "f" and raw.size and not beyond and np.abs(raw).max() > 16:  # also of standardised images
            beyond.append(raw.max())
            logger.warning("predict_dense: the image holds values like %g. Integers are scaled to 0..1, floats are taken as "
                           "they are: scale them as in training, for example raw / 255.", beyond[0])
        return np.ascontiguousarray(as_float(raw), dtype=floatx)

    def finish(block):
        return (block * 255).clip(0, 255).astype(np.uint8) if as_uint8 else block.astype(floatx, copy=False)

    def run(patch):
        try:
            return to_numpy(function.tensors(patch)[0])
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(f"There is too little memory to predict tiles of {tuple(patch.shape[2:])} voxels. Load the "
                              "model with a smaller imposed_patch_size (elektronn2-predict: --patch).") from error

    function.compile()
    start = time.perf_counter()
    bar, results = None, []

    def on_start(padded, blocks):
        nonlocal bar
        if bar is None:
            total = int(np.prod([n if pad_raw else g.size(n) for g, n in zip(axes, padded[1:])]))
            logger.info("Predicting img %s in %d Blocks: %s", padded, int(np.prod(blocks)), blocks)
            bar = tqdm(total=total * len(volumes), unit="voxel", unit_scale=True, leave=False, delay=2,
                       disable=None if progress else True)  # None: only on a terminal
    for volume in volumes:
        results.append(predict_tiled(run, volume, axes, node.shape["f"], pad_raw, prepare, finish, on_start=on_start,
                                     progress=lambda n: bar.update(n)))
    bar.close()
    seconds = time.perf_counter() - start
    result = np.stack(results, axis=1) if slices else results[0]
    voxels = result[0].size
    logger.info("Predicted %.3f MVoxel in %.1f s: %.4f MPix/s", voxels / 1e6, seconds, voxels / 1e6 / seconds)
    return result


def _sliceable(image):
    """What has a shape and a dtype and can be sliced stays as it is; tensors, lists and tuples become arrays."""
    if isinstance(image, torch.Tensor):
        return as_array(image)
    if isinstance(image, (list, tuple)):
        image = np.asarray(image)
    if not hasattr(image, "shape") or not hasattr(image, "dtype") or image.dtype.kind not in "biuf":
        kind = f"an array of {image.dtype}" if hasattr(image, "dtype") else f"{type(image).__name__} {image!r}"
        raise TypeError(f"predict_dense needs an array of numbers (f, *L), or what can be sliced like one, got {kind}.")
    return image


def _dense_function(node, source):
    """The node's function for batch size 1, whatever batch size the model was made with."""
    if "dense" not in node._functions:
        shape = source.shape.updateshape("b", 1) if source.shape.hastag("b") else source.shape
        node._functions["dense"] = Function([source.output], node.output, name=node.name, mode="predict",
                                            shapes=[shape.shape], names=[source.name])
    return node._functions["dense"]


def check_statistics(node):
    """Warn of nodes whose statistics are of the whole patch: tiles then give another result than the whole volume."""
    for n in graph.ancestors(node):
        if getattr(n, "patch_statistics", False):
            logger.warning("%s %r normalises by statistics of the patch: a tiled prediction differs from one of the "
                           "whole volume.", type(n).__name__, n.name)
