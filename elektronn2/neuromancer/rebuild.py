"""Models from files and from other models: read, resize, turn to max-fragment pooling, lock weights."""
import inspect
import logging
import random
import string
from numbers import Integral
from pathlib import Path

import numpy as np

from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import checkpoint, legacy, serialize
from elektronn2.neuromancer.manager import GraphManager, model_manager
from elektronn2.neuromancer.neural import Conv
from elektronn2.neuromancer.node_basic import Input, Node, arguments_like
from elektronn2.neuromancer.registry import NODES
from elektronn2.neuromancer.resampling import FragmentsToDense, Pool
from elektronn2.neuromancer.torch_module import TorchModule
from elektronn2.neuromancer.variables import debiased
from elektronn2.utils.cnncalculator import nearest_patch
from elektronn2.utils.validate import as_int, as_tuple, short, suggest

logger = logging.getLogger("elektronn2log")

BN_PARAMS = ("gamma", "mean", "std")
WEIGHTS = serialize.WEIGHTS


def modelload(file_name, override_mfp_to_active=False, imposed_patch_size=None, imposed_batch_size=None, name=None,
              **restore_kwargs):
    """Read a model file into a new model, which becomes current (``name`` None: a random one).

    ``imposed_patch_size`` (spatial, in the order of the input's axes), ``imposed_batch_size``: new sizes of the input;
    a patch that does not fit is changed to the nearest one that does, with a line for each axis that changes.
    ``override_mfp_to_active``: max-fragment pooling in every pooling layer that depends on the input, for fast dense
    prediction (a network with upsampling is left as it is). Other inputs that had the batch size of the input get its new
    one. Nodes that the prediction does not need, and that do not fit the new sizes (a loss with weights per voxel, say), are
    left out with a warning that says why; the roles they had become None, or lists without them.

    ``restore_kwargs``: ``make_weights_constant``, ``replace_bn`` ('remove', 'predict', 'const'),
    ``lock_trainable_params`` (number of nodes, or names), ``unlock_all_params``, ``allow_functions``.

    Files of the first ELEKTRONN2 are read too, without executing anything in them (see ``utils/unpickle.py``).
    If the file was saved with ``optimiser_state``, the model goes on training as the saved one would have, unless other
    parameters are trained now.

    Raises ModelFileError for a file that is damaged or foreign, ValueError for sizes or options that do not fit.
    """
    description = _read(file_name, restore_kwargs.get("allow_functions", False))
    return _rebuild(*description, override_mfp_to_active, imposed_patch_size, imposed_batch_size, name,
                    **restore_kwargs)


def _read(file_name, allow_functions=False):
    """(description, tensors) of a model file, ours or of the first ELEKTRONN2."""
    if not serialize.is_old(file_name):
        return serialize.load(file_name)
    logger.info("%s is a model of the first ELEKTRONN2 and is converted each time it is read; to do that once: "
                "elektronn2-convert OLD.mdl NEW.mdl", file_name)
    return legacy.load(file_name, allow_functions)


def rebuild_model(model, override_mfp_to_active=False, imposed_patch_size=None, name=None, **kwargs):
    """A new model like ``model``, changed as :func:`modelload` describes, with new optimisers; ``model`` stays as it is."""
    if not isinstance(model, GraphManager):
        raise TypeError(f"rebuild_model takes a model, such as node.model, got {short(model)}; modelload reads files.")
    kwargs.setdefault("allow_functions", True)
    return _rebuild(*serialize.describe(model), override_mfp_to_active, imposed_patch_size,
                    kwargs.pop("imposed_batch_size", None), name, **kwargs)


def _rebuild(description, tensors, mfp, patch, batch, name, **options):
    known = [k for k in _parameters(_Restorer) if k not in ("self", "description", "tensors", "mfp", "changes", "quiet")]
    unknown = [k for k in options if k not in known]
    if unknown:
        raise TypeError(f"Unknown option {unknown[0]!r}.{suggest(unknown[0], known)} Options: {', '.join(known)}.")
    input_name = description["designations"].get("input_node")
    entries = {e["name"]: e for e in description["nodes"]}
    if (patch is not None or batch is not None or mfp) and input_name not in entries:
        raise ValueError(f"The model has no designated input node, so its sizes cannot be changed; "
                         f"designations: {description['designations']}.")
    changes = {}
    if patch is not None or batch is not None or mfp:
        scratch = _scratch(description, tensors, options)
        changes["needed"] = _needed(scratch)
        if mfp and any(scratch[n].upsamples for n in changes["needed"]):
            logger.warning("The network upsamples, so its prediction is dense already: max-fragment pooling is not used.")
            mfp = False
    if patch is not None or mfp:
        changes["patch"] = _fitting_patch(scratch, patch, mfp)
    if mfp:
        changes["dense_after"] = _moves(scratch.prediction_node)
        changes["following"] = _following(scratch)
    if batch is not None:
        batch = as_int(batch, "imposed_batch_size")
    if batch is not None or mfp:
        shape, tags = _input_shape(entries[input_name])
        old = shape[tags.index("b")]
        changes["old_batch"] = old
        changes["batch"] = 1 if batch is None and old is None else old if batch is None else batch
    restorer = _Restorer(description, tensors, mfp, changes, **options)
    with model_manager.trial(name, keep=True) as model:
        restorer.fill(model)
    return model


def _input_shape(entry):
    tags = entry["arguments"]["tags"]
    tags = serialize.decode(tags, {}, {})
    tags = [t.strip() for t in tags.split(",")] if isinstance(tags, str) else list(tags)
    return list(serialize.decode(entry["arguments"]["shape"], {}, {})), tags


def _scratch(description, tensors, options):
    """The model as it is, to ask for its geometry."""
    with model_manager.trial() as scratch:
        _Restorer(description, tensors, False, {}, quiet=True, **options).fill(scratch)
    return scratch


def _needed(scratch):
    """Names of the nodes that must be there after a change of sizes: what is predicted needs them, or their weights."""
    if scratch.prediction_node is None:
        return set(scratch.nodes)
    needed, stack = set(), [scratch.input_node, scratch.prediction_node]
    while stack:
        node = stack.pop()
        if node.name not in needed:
            needed.add(node.name)
            stack += [*node.parents, *(p.owner for p in node.shared.values() if p.owner is not None)]
    return needed


def _following(scratch):
    """Names of the nodes that depend on the designated input, or whose sizes were copied from such nodes."""
    names = {scratch.input_node.name}
    for node in scratch.nodes.values():
        if any(p.name in names for p in node.parents) or (node.like and node.like["node"] in names):
            names.add(node.name)
    return names


def _moves(node):
    """Whether a node's voxels are others than those of its parents, or see more: it must not come after fragments were
    made dense."""
    own = node.shape
    return any(own.ndim != p.shape.ndim or (own.centre, own.fov, list(own.strides)) != (
        p.shape.centre, p.shape.fov, list(p.shape.strides)) for p in node.parents)


def _fitting_patch(scratch, patch, mfp):
    """The imposed patch (or the model's own), changed to the nearest that fits the graph."""
    own = scratch.input_node.shape.spatial_shape
    wanted = own if patch is None else as_tuple(patch, len(own), "imposed_patch_size")
    shape, rules = scratch.axis_rules(mfp)
    if shape.ndim != len(own):
        return list(wanted)
    return nearest_patch(rules, wanted)


def restore(model, description, tensors, **options):
    """Build the nodes of a description in an empty model; see :meth:`Model.restore`."""
    if model.nodes:
        raise ValueError(f"Model {model.name!r} has nodes already, so none can be restored in it. Call its reset() first.")
    serialize.check_description(description, f"The description for model {model.name!r}")
    restorer = _Restorer(description, tensors, False, {}, **options)
    model_manager._make_current(model)
    try:
        restorer.fill(model)
    except Exception:
        model.reset()
        raise


class _Restorer:
    """Builds a model from its description, with changes."""

    def __init__(self, description, tensors, mfp, changes, make_weights_constant=False, replace_bn=False,
                 lock_trainable_params=False, unlock_all_params=False, allow_functions=False, quiet=False):
        if make_weights_constant and unlock_all_params:
            raise ValueError("make_weights_constant and unlock_all_params contradict each other; give one of them.")
        if replace_bn not in (False, None, "remove", "predict", "const"):
            raise ValueError(f"replace_bn must be 'remove', 'predict' or 'const', got {replace_bn!r}.")
        self.description, self.tensors = description, tensors
        self.mfp, self.changes, self.quiet = mfp, changes, quiet
        self.replace_bn, self.allow_functions = replace_bn, allow_functions
        self.constant, self.unlock = make_weights_constant, unlock_all_params
        self.params = _params_by_node(tensors)
        self.locked = self._locked(lock_trainable_params)
        self.shared_by_locked = [v.get("param") or v.get("transposed") for e in description["nodes"]
                                 if e["name"] in self.locked for v in e["arguments"].values() if isinstance(v, dict)]
        self.left_out = {}  # name of a node that does not fit the new sizes -> why

    def _locked(self, lock):
        names = [e["name"] for e in self.description["nodes"]]
        if not lock:
            return set()
        if isinstance(lock, (str, bool, float)) or (isinstance(lock, Integral) and lock < 0):
            raise ValueError(f"lock_trainable_params must be a number of nodes or a list of names, got {lock!r}.")
        if isinstance(lock, Integral):
            return set([n for n in names if n in self.params][:lock])
        unknown = [n for n in lock if n not in names]
        if unknown:
            raise ValueError(f"lock_trainable_params: the model has no node {unknown}.{suggest(unknown[0], names)}")
        return set(lock)

    def fill(self, model):
        """Build the nodes in an empty model, which is the current one."""
        where = "its description"
        try:
            for split, pieces in self.description.get("splits", {}).items():
                model.register_split(split, pieces)
            designations = dict(self.description["designations"])
            for entry in self.description["nodes"]:
                where = f"node {entry['name']!r}"
                self._restore_or_leave_out(model, entry, designations)
            if self.left_out:
                self._forget_left_out(model, designations)
            where = "its designations"
            if self.quiet:
                model.designations = designations
            else:
                model.designate_nodes(**designations)
                where = "its state of training"
                if "training" in self.description:
                    checkpoint.restore(model, self.description["training"], self.tensors)
        except Exception as error:  # whatever a damaged or changed description leads to
            if isinstance(error, ModelFileError):
                raise
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            kind = ModelFileError if isinstance(error, (KeyError, AttributeError, ImportError)) else ValueError
            raise kind(f"The model cannot be rebuilt at {where}: {text}") from error

    def _restore_or_leave_out(self, model, entry, designations):
        """Restore a node; if it was fit before the sizes were changed and no longer is, it may be missing."""
        name, mark = entry["name"], (len(model), len(model.graph))
        try:
            like = (entry.get("like") or {}).get("node")
            if like in self.left_out and name not in self.changes["needed"]:
                raise ModelFileError(f"it is like {like!r}, which is missing")
            self._restore_node(model, entry, designations)
        except Exception as error:  # whatever sizes that do not fit lead to
            if name in self.changes.get("needed", [name]):
                raise
            self.left_out[name] = error
            model.forget_from(*mark)

    def _forget_left_out(self, model, designations):
        # a ModelFileError is only about nodes left out before: the file is good, as it was restored in its own sizes
        why = [f"{name}: {error}" for name, error in self.left_out.items() if not isinstance(error, ModelFileError)]
        roles = [role for role, names in designations.items() if self.left_out.keys() & set(
            names if isinstance(names, list) else [names])]
        logger.warning("Left out, because they do not fit the new sizes and the prediction does not need them: %s.%s (%s)",
                       ", ".join(self.left_out), f" So they are missing from {', '.join(roles)}." if roles else "",
                       "; ".join(why))
        for role, names in designations.items():
            if isinstance(names, list):
                designations[role] = [n for n in names if n not in self.left_out] or None
            elif names in self.left_out:
                designations[role] = None
        for split, pieces in list(model.splits.items()):
            if self.left_out.keys() & pieces:
                del model.splits[split]

    def _restore_node(self, model, entry, designations):
        name = entry["name"]
        cls = NODES[entry["class"]]
        raw = dict(entry["arguments"])
        values = dict(self.params.get(name, {})) | self._unshared(raw)
        stored = set(values)
        arguments = {k: serialize.decode(v, model.nodes, self.tensors, self.allow_functions, f"Node {name!r}")
                     for k, v in raw.items() if not (isinstance(v, dict) and "weights" in v)}
        arguments["print_repr"] = entry.get("print_repr", True) and not self.quiet
        if issubclass(cls, Input):
            self._resize(model, entry, arguments, name == designations.get("input_node"))
        if self.mfp and issubclass(cls, (Conv, Pool)) and name in self.changes["following"]:
            arguments["mfp"] = True
        self._give_weights(entry, cls, arguments, values)
        after = False
        if self.mfp and name == designations.get("prediction_node"):
            after = self.changes["dense_after"]
            if not after:
                arguments = _to_dense_before(arguments)
        node = cls(**arguments, name=name)
        if self.replace_bn and isinstance(node, TorchModule) and node.normalises_batches and not self.quiet:
            logger.warning("replace_bn: the batch normalisation inside TorchModule %r cannot be replaced, as it is part of "
                           "its module. It stays: predictions use its running averages, training steps those of the batch.",
                           name)
        node.like = entry.get("like")
        if entry.get("feature_names"):
            node.feature_names = entry["feature_names"]
        absent = [k for k in node.params if k not in stored and k != "init_weight"]
        if absent:
            raise ModelFileError(f"The weights {[f'{name}/{k}' for k in absent]} are missing from the model file.")
        rest = {k: v for k, v in values.items() if k in node.params and not node.params[k].constant}
        if "init_weight" in node.params:
            rest.setdefault("init_weight", 0.0)
        node.set_param_values(rest)
        if after and len(node.shape.mfp_offsets) > 1:
            dense = FragmentsToDense(node, name=_random_name())
            dense._feature_names = node.feature_names
            designations["prediction_node"] = dense.name
            designations["prediction_ext"] = [designations["prediction_node"] if n == name else n
                                              for n in designations.get("prediction_ext") or []] or None

    def _resize(self, model, entry, arguments, is_input):
        like = entry.get("like")
        if is_input:
            shape, tags = _input_shape(entry)
            spatial = [i for i, t in enumerate(tags) if t in "zyx"]
            for i, n in zip(spatial, self.changes.get("patch") or ()):
                shape[i] = n
            if "b" in tags and "batch" in self.changes:
                shape[tags.index("b")] = self.changes["batch"]
            arguments["shape"] = shape
        elif like and self.changes and like["node"] in model.nodes:
            arguments.update(arguments_like(model.nodes[like["node"]].shape, like["override_f"]))
        elif "batch" in self.changes:
            shape, tags = _input_shape(entry)
            if "b" in tags and shape[tags.index("b")] == self.changes["old_batch"]:
                shape[tags.index("b")] = self.changes["batch"]
                arguments["shape"] = shape

    def _unshared(self, raw):
        """Take what batch normalisation shares with other layers out of ``raw`` arguments if it is to be replaced: values
        of its own serve as well, as none is trained then, and the other layer may have none any more."""
        if not (self.replace_bn and raw.get("batch_normalisation")):
            return {}
        shared = {k: raw.pop(k)["param"] for k in BN_PARAMS if isinstance(raw.get(k), dict) and "param" in raw[k]}
        return {k: debiased(self.params[node])[param] for k, (node, param) in shared.items()}

    def _give_weights(self, entry, cls, arguments, values):
        """Move parameters that constructors take from ``values`` to ``arguments``; replace batch normalisation."""
        mode = arguments.get("batch_normalisation")
        if mode and self.replace_bn:
            values.update(debiased(values))
            values.pop("init_weight", None)
            if self.replace_bn == "remove":
                arguments["batch_normalisation"] = False
                for key in BN_PARAMS:
                    values.pop(key, None)
            else:
                fades = mode == "fadeout"
                arguments["batch_normalisation"] = mode = "predict"
                if fades:
                    r = values["gradnet_rate"]
                    values.update(mean=r * values["mean"], std=r * values["std"] + 1 - r, gamma=r * values["gamma"] + 1 - r)
                if self.replace_bn == "const":
                    for key in ("mean", "std"):
                        arguments[key] = [values.pop(key), "const"]
        if issubclass(cls, TorchModule) and (self.unlock or self.constant or entry["name"] in self.locked):
            arguments["trainable"] = self.unlock
        saved_constants = set(entry.get("constants", ()))
        for key in list(values):
            weight_form = key in WEIGHTS or key in saved_constants
            if not weight_form or key not in _parameters(cls):
                continue
            if mode in ("train", "fadeout") and key in ("mean", "std"):
                continue
            constant = (key in saved_constants and not self.unlock) or (key in WEIGHTS and (
                self.constant or entry["name"] in self.locked or [entry["name"], key] in self.shared_by_locked))
            value = values.pop(key)
            arguments[key] = [value, "const"] if constant else value


def _parameters(cls):
    return inspect.signature(cls.__init__).parameters


def _random_name():
    return "to_dense" + "".join(random.choices(string.ascii_lowercase + string.digits, k=5))


def _to_dense_before(arguments):
    """The same arguments with FragmentsToDense behind every parent that is in fragments."""
    def dense(value):
        if isinstance(value, Node):
            return FragmentsToDense(value, name=_random_name()) if len(value.shape.mfp_offsets) > 1 else value
        if isinstance(value, (list, tuple)) and any(isinstance(v, Node) for v in value):
            return [dense(v) for v in value]
        return value
    return {k: dense(v) for k, v in arguments.items()}


def params_from_model_file(file_name):
    """Dict node -> param -> array of a model file, for nodes that have parameters.

    ``mean`` and ``std`` of batch normalisation are those that predictions use, without the share of their initial values:
    they may be given to a layer with ``batch_normalisation='predict'``.
    """
    return {node: debiased(values) for node, values in stored_params(file_name).items()}


def stored_params(file_name):
    """Dict node -> param -> array as they are in a model file."""
    return _params_by_node(_read(file_name)[1])


def _params_by_node(tensors):
    """Dict node -> param -> array from the tensors of a file; those that are no parameters are left out."""
    params = {}
    for key, value in tensors.items():
        node, _, param = key.rpartition("/")
        if not param.startswith("argument-") and not key.startswith(serialize.TRAINING):
            params.setdefault(node, {})[param] = value
    return params


def kernel_lists_from_node_descr(description):
    """(filters, pools, mfp flags) of the Conv nodes of a model, of a model file, or of a description, as
    :meth:`Model.serialise` gives it.

    Raises ValueError for a Conv with a stride or dilation, which these lists cannot tell; TypeError for anything else.
    """
    if isinstance(description, GraphManager):
        description = serialize.describe(description)[0]
    elif isinstance(description, (str, Path)):
        description = _read(description)[0]
    elif not isinstance(description, dict) or "nodes" not in description:
        raise TypeError("kernel_lists_from_node_descr takes a model, the path of a model file, or the description that "
                        f"model.serialise() returns first, got {short(description)}.")
    filters, pools, mfp = [], [], []
    for entry in description["nodes"]:
        if entry["class"] == "Conv":
            arguments = {k: serialize.decode(v, {}, {}) for k, v in entry["arguments"].items()
                         if k in ("filter_shape", "pool_shape", "mfp", "stride", "dilation")}
            if np.max([np.max(arguments.get(k, 1)) for k in ("stride", "dilation")]) > 1:
                raise ValueError(f"Conv {entry['name']!r} has a stride or dilation, which lists of filters and pools cannot "
                                 "tell. Pass the model itself to cnncalculator.")
            size = arguments["filter_shape"]
            filters.append(size)
            pools.append(arguments.get("pool_shape") or ([1] * len(size) if isinstance(size, (list, tuple)) else 1))
            mfp.append(bool(arguments.get("mfp", False)))
    return filters, pools, mfp
