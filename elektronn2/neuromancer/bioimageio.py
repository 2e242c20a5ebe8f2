"""bioimage.io packages: an ONNX program with a description, from which other programs know how to run it and where its
output lies (https://bioimage.io/docs, model description 0.5).

How the geometry is said there, per spatial axis: legal input lengths are ``min + n * step``; the output has
``input / scale + offset`` voxels, where ``scale`` is the network's stride, and a negative ``offset`` what convolutions
without padding cut off, equally on both sides; ``halo`` is how many of the outermost output voxels see zero-padding.
As ``input / scale`` must be a whole number, a network whose lengths are no multiples of its stride gets a few voxels
more at the ends of its input, which the program cuts off.
"""
import contextlib
import hashlib
import importlib
import inspect
import re
import tempfile
import warnings
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import torch

from elektronn2.utils.validate import suggest

IMAGES = {None: 1, "uint8": 255, "uint16": 65535}  # dtype -> the grey value that networks are trained to see as 1


def check_about(**about):
    """TypeError for what :func:`package` does not know, before anything is computed."""
    known = [n for n, p in inspect.signature(package).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in about:
        if name not in known:
            raise TypeError(f"export: unknown option {name!r}.{suggest(name, known)} Those of a bioimage.io package: "
                            f"{', '.join(known)}.")
    if about.get("image_dtype") not in IMAGES:
        raise ValueError(f"export: image_dtype must be one of {', '.join(map(repr, IMAGES))}, got {about['image_dtype']!r}.")


def package(prediction, program, *, name=None, description=None, authors=(), license=None, cite=(), documentation=None,
            tags=(), covers=(), image_dtype=None, test_input=None):
    """Bytes of a zip file: the ONNX ``program``, bioimageio.yaml, README.md and arrays for testing.

    ``authors``: names, or dicts with ``name``, ``affiliation``, ``email``, ``github_user``, ``orcid``; ``license``: an SPDX
    name like 'CC-BY-4.0'; ``cite``: dicts with ``text`` and ``doi`` or ``url``; ``documentation``: Markdown, as text;
    ``covers``: picture files; ``image_dtype``: 'uint8' or 'uint16' if the package takes such images (it divides them by
    255 or 65535, as prediction does here; default: floats in 0..1); ``test_input``: an array (b, f, \\*L) of that dtype to
    test with, as large as the network permits (default: random).

    Nothing is looked up in the net. Raises ValueError for networks that cannot be described, or descriptions that are not
    valid.
    """
    spec = importlib.import_module("bioimageio.spec")
    v0_5 = importlib.import_module("bioimageio.spec.model.v0_5")
    source, node, halos = prediction.sources[0], prediction.node, _halos(prediction.node.shape)
    sizes = {t: _large_enough(prediction, t, s, halos[t]) for t, s in prediction.sizes.items()}
    prediction = replace(prediction, sizes=sizes)
    image, output = _test_arrays(prediction, image_dtype, test_input)
    name = name or re.sub(r"[^\w+() -]", "-", f"ELEKTRONN2 {node.name}")
    readme = documentation or _readme(name, prediction, image_dtype)
    with tempfile.TemporaryDirectory() as folder, _offline(spec):
        def file(file_name, content):
            path = Path(folder, file_name)
            if isinstance(content, np.ndarray):
                np.save(path, content)
            else:
                path.write_bytes(content)
            return {"source": path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

        model = dict(
            name=name, description=description or f"The prediction {node.name!r} of a network made with ELEKTRONN2.",
            authors=[{"name": a} if isinstance(a, str) else dict(a) for a in authors], cite=[dict(c) for c in cite],
            license=license, tags=["elektronn2", *tags], documentation=file("README.md", readme.encode()),
            covers=[Path(c) for c in covers], format_version=v0_5.ModelDescr.implemented_format_version, type="model",
            inputs=[dict(id=_id(source.name), axes=_input_axes(source, prediction),
                         data={"type": str(image.dtype)}, preprocessing=_preprocessing(image_dtype),
                         test_tensor=file("test_input.npy", image))],
            outputs=[dict(id=_id(node.name), axes=_output_axes(node, prediction, source, halos),
                          data={"type": str(output.dtype)}, test_tensor=file("test_output.npy", output))],
            weights={"onnx": {**file("weights.onnx", program), "opset_version": _opset(program)}},
            config={"elektronn2": prediction.geometry()})
        described = spec.build_description(model)
        if not isinstance(described, v0_5.ModelDescr):
            raise ValueError(f"The description of the package is not valid: {described.get_reason()}")
        v0_5.validate_tensors({t.id: (t, a) for t, a in ((described.inputs[0], image), (described.outputs[0], output))},
                              pad_inputs="allow", crop_outputs="allow")
        return spec.save_bioimageio_package(described, output_path=Path(folder, "package.zip")).read_bytes()


@contextlib.contextmanager
def _offline(spec):
    """Checks without looking things up in the net, and without warnings about files that the checks leave open."""
    with spec.ValidationContext(perform_io_checks=False, log_warnings=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _id(name):
    """A name as identifiers are there: small letters, digits and underscores."""
    return re.sub(r"\W", "_", name.lower())


def _opset(program):
    onnx = importlib.import_module("onnx")
    return next(o.version for o in onnx.load_from_string(program).opset_import if o.domain in ("", "ai.onnx"))


def describable(prediction):
    """The prediction with input lengths that fit the description; ValueError for networks that it has no words for."""
    name, shape = prediction.node.name, prediction.node.shape
    if len(prediction.sources) != 1:
        raise ValueError(f"A bioimage.io package needs a prediction of one input; {name!r} has "
                         f"{[s.name for s in prediction.sources]}. Export it as ONNX.")
    source = prediction.sources[0]
    for n, s in ((source.name, source.shape), (name, shape)):
        if set(s.tags) - set("bfzyx"):
            raise ValueError(f"A bioimage.io package has axes b, f, z, y and x; {n!r} is {s}. Export it as ONNX.")
    if len(shape.mfp_offsets) > 1:
        raise ValueError(f"{name!r} ends in {len(shape.mfp_offsets)} MFP fragments; add FragmentsToDense, or export the "
                         "model without max-fragment pooling.")
    if "b" not in prediction.opened and prediction.batch != 1:
        raise ValueError(f"A bioimage.io package needs batch size 1 or any; {source.name!r} is {source.shape}. "
                         "Rebuild the model with imposed_batch_size=1.")
    ends = {}
    for tag, stride in zip(shape.spatial_tags, shape._strides):
        if tag in prediction.opened and (extra := -prediction.sizes[tag].smallest % stride.numerator):
            ends[tag] = (extra // 2, extra - extra // 2)
    return prediction.with_ends(ends) if ends else prediction


# -- geometry -----------------------------------------------------------------------------------------
def _halos(shape):
    """Letter -> outermost output voxels that see padding, in whole input voxels."""
    return {t: ceil(p / s.denominator) * s.denominator for t, p, s in zip(shape.spatial_tags, shape.padded, shape._strides)}


def _large_enough(prediction, tag, sizes, halo):
    """The legal lengths of which something is left without the halo."""
    while prediction.output_length(tag, sizes.smallest) <= 2 * halo:
        sizes = replace(sizes, smallest=sizes.nth(1))
    return sizes


def _axis(tag, shape):
    if tag == "f":
        return {"type": "channel", "channel_names": [f"channel{i}" for i in range(shape["f"])]}
    return {"type": "space", "id": tag}


def _batch(prediction):
    return {"type": "batch"} if "b" in prediction.opened else {"type": "batch", "size": 1}


def _input_axes(source, prediction):
    axes = []
    for tag in source.shape.tags:
        axis = _batch(prediction) if tag == "b" else _axis(tag, source.shape)
        if axis["type"] == "space":
            axis["size"] = prediction.fixed_length(tag)
            if tag in prediction.opened:
                axis["size"] = {"min": prediction.sizes[tag].smallest, "step": prediction.sizes[tag].step}
        axes.append(axis)
    return axes


def _output_axes(node, prediction, source, halos):
    shape, axes = node.shape, []
    strides = dict(zip(shape.spatial_tags, shape._strides))
    for tag in shape.tags:
        axis = _batch(prediction) if tag == "b" else _axis(tag, shape)
        if tag == "f" and node.feature_names:
            axis["channel_names"] = list(node.feature_names)
        if axis["type"] == "space":
            axis["scale"] = float(strides[tag])
            n = prediction.sizes[tag].smallest if tag in prediction.opened else prediction.fixed_length(tag)
            offset = prediction.output_length(tag, n) - n / strides[tag]
            if offset.denominator == 1:
                axis["size"] = {"tensor_id": _id(source.name), "axis_id": tag, "offset": int(offset)}
                if halos[tag]:
                    axis["halo"] = halos[tag]
            else:
                axis["size"] = prediction.output_length(tag, n)
        axes.append(axis)
    return axes


# -- content ------------------------------------------------------------------------------------------
def _preprocessing(image_dtype):
    if image_dtype is None:
        return []
    to_float = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    return [to_float, {"id": "scale_linear", "kwargs": {"gain": 1 / IMAGES[image_dtype], "offset": 0.0}}, to_float]


def _test_arrays(prediction, image_dtype, test_input):
    """Input of the package, and the network's output for it."""
    top = IMAGES[image_dtype]
    if test_input is None:
        image = prediction.inputs(1, prediction.lengths())[0].numpy()
        image = image if image_dtype is None else (image * top).astype(image_dtype)
    else:
        image = np.asarray(test_input)
        dtype = image_dtype or str(prediction.inputs(1, prediction.lengths())[0].dtype).removeprefix("torch.")
        if str(image.dtype) != dtype:
            raise TypeError(f"export: test_input must have dtype {dtype}, got {image.dtype}.")
    x = torch.from_numpy(image.astype("float32") / np.float32(top) if image_dtype else np.ascontiguousarray(image))
    return image, prediction([x]).numpy()


def _readme(name, prediction, image_dtype):
    shape, source, known = prediction.node.shape, prediction.sources[0], prediction.geometry()
    grey = "Floating-point images, grey values in 0..1." if image_dtype is None else f"{image_dtype} images."
    lines = [f"# {name}", "", "Made with ELEKTRONN2.", "", grey, "",
             f"Input axes {','.join(source.shape.tags)}, output axes {','.join(shape.tags)}."]
    if shape.ndim:
        lines += ["", f"On axes {','.join(shape.spatial_tags)}, in input voxels: the field of view is {known['fov']}, "
                  f"output voxels are {known['strides']} apart, and the first lies at {known['centre']}."]
    return "\n".join([*lines, "", "## Validation", "", "Compare with labels of volumes that were not trained on.", ""])
