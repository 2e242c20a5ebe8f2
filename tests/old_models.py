"""Writes models of ours as the first ELEKTRONN2 wrote its own: pickles of its classes, in Python 3 or Python 2."""
import gzip
import io
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.shape import TaggedShape

CLASSES = {  # module: class: arguments, of the original
    "node_basic": dict(
        Node="parent", Input="shape tags strides fov dtype hardcoded_shape", Concat="parent_nodes axis", Add="n1 n2",
        MultMerge="n1 n2", ApplyFunc="parent functor args kwargs",
        ValueNode="shape tags strides fov dtype apply_train value init_kwargs",
        InitialState_like="parent override_f dtype init_kwargs", FromTensor=""),
    "neural": dict(
        Perceptron="parent n_f activation_func flatten batch_normalisation dropout_rate w b gamma mean std gradnet_mode",
        Conv="parent n_f filter_shape pool_shape conv_mode activation_func mfp batch_normalisation dropout_rate w b gamma "
             "mean std gradnet_mode invalidate_fov",
        UpConv="parent n_f pool_shape activation_func identity_init batch_normalisation dropout_rate w b gamma mean std "
               "gradnet_mode",
        Pool="parent pool_shape stride mfp mode", FragmentsToDense="parent", Crop="parent crop", Pad="parent pad value",
        GRU="parent memory_state n_f activation_func", LSTM="parent memory_states n_f activation_func",
        LRN="parent filter_shape mode alpha k beta",
        FaithlessMerge="hard_features easy_features axis failing_prob hardeasy_ratio"),
    "loss": dict(
        Softmax="parent n_class n_indep", AggregateLoss="parent_nodes mixing_weights", Classification="pred n_class n_indep",
        _Errors="cls target target_is_sparse",
        MultinoulliNLL="pred target target_is_sparse class_weights example_weights weakness mask_class_labeled "
                       "mask_class_not_present",
        BlockedMultinoulliNLL="pred target blocking_factor target_is_sparse class_weights example_weights "
                              "mask_class_labeled mask_class_not_present",
        MalisNLL="pred aff_gt seg_gt nhood unrestrict_neg class_weights example_weights",
        BinaryNLL="pred target subtract_label_entropy", SquaredLoss="pred target margin scale_correction",
        AbsLoss="pred target margin scale_correction", GaussianNLL="mu sig target sig_is_log",
        BetaNLL="mode concentration target", EuclideanDistance="pred target",
        RampLoss="d_low d_big margin",
        OneHot="target n_class axis"),
    "various": dict(
                    ScanN="step_result in_memory out_memory in_iterate in_iterate_0 n_steps unroll_scan last_only",
                    GaussianRV="mu log_sig n_samples",
                    GaussianAEVBPrior="mu log_sig n_samples", Reshape="parent shape tags strides fov"),
}
OLD = {name: (f"elektronn2.neuromancer.{module}", arguments.split())
       for module, classes in CLASSES.items() for name, arguments in classes.items()}
ROLES = ("input_node", "target_node", "loss_node", "prediction_node", "prediction_ext", "error_node", "debug_outputs")


@dataclass
class Name:
    """A function or class that is written by name only."""
    module: str
    name: str


class _Plain:
    """An object of an old class: what it holds."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class NodeDescriptor(_Plain):
    pass


class SplitDescriptor(_Plain):
    pass


class NodePointer(_Plain):
    pass


class ParamPointer(_Plain):
    pass


class OldShape(_Plain):
    pass


OLD_NAMES = {c: Name("elektronn2.neuromancer.graphmanager", c.__name__)
             for c in (NodeDescriptor, SplitDescriptor, NodePointer, ParamPointer)}
OLD_NAMES[OldShape] = Name("elektronn2.neuromancer.graphutils", "TaggedShape")


class Pickler(pickle._Pickler):
    """Protocol 2, with the names of the time; ``python2``: with its texts of bytes."""

    def __init__(self, file, python2=False):
        super().__init__(file, protocol=2)
        self.python2 = python2

    def save(self, obj, save_persistent_id=True):
        if self.python2 and isinstance(obj, (str, bytes)) and id(obj) not in self.memo:
            raw = obj.encode("latin1") if isinstance(obj, str) else obj
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw if len(raw) < 256
                       else pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
            self.memoize(obj)
        elif self.python2 and type(obj) is OrderedDict:
            self.save_reduce(OrderedDict, ([list(i) for i in obj.items()],), obj=obj)
        elif isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def save_global(self, obj, name=None):
        old = OLD_NAMES.get(obj) or Name(obj.__module__.replace("_core", "core"), name or obj.__qualname__)
        if self.python2:
            old.module = old.module.replace("builtins", "__builtin__")
        self.save(old)
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, type: save_global}


def flipped(w):
    return np.flip(w, range(2, w.ndim)).copy()


def old_argument(value, name, cls):
    if isinstance(value, Node):
        return NodePointer(target_id=value.name)
    if isinstance(value, TaggedShape):
        return OldShape(_shape=value.shape, _tags=value.tags, _strides=value.strides, _mfp_offsets=value.mfp_offsets,
                        _fov=value.fov)
    if isinstance(value, list) and len(value) == 2 and value[1] == "const" and cls == "Conv" and name == "w":
        return [flipped(np.asarray(value[0], "float32")), "const"]
    if isinstance(value, (list, tuple)):
        return type(value)(old_argument(v, name, cls) for v in value)
    return value


def descriptors(model):
    """Ordered name -> what the original kept of each node."""
    entries = OrderedDict()
    for node in model.nodes.values():
        cls = type(node).__name__
        if cls == "FromTensor":
            (name, _), = [(k, v) for k, v in model.splits.items() if node.name in v]
            axis, sizes, _, strip = model.arguments[node.name]["piece"]
            if name not in entries:
                kwargs = dict(axis=axis, index=np.cumsum(sizes)[:-1].tolist(), strip_singleton_dims=strip, name=name)
                entries[name] = SplitDescriptor(node_id=node.parent.name, args=[], kwargs=kwargs,
                                                func=Name("elektronn2.neuromancer.node_basic", "split"))
            continue
        if cls == "ScanOut":
            loop = node.parents[0].name
            entries[f"split of {loop}"] = SplitDescriptor(node_id=loop, args=[], kwargs={}, func=Name(
                "elektronn2.neuromancer.various", "scansplit"))
            continue
        module, names = OLD[cls]
        arguments = dict(model.arguments[node.name])
        arguments.pop("offsets", None)
        if cls == "ScanN":
            arguments["step_result"] = arguments.pop("step_results")
        owners = {id(p): ParamPointer(target_id=n.name, param_name=k) for n in model.nodes.values()
                  for k, p in n.params.items()}
        arguments = {k: owners.get(id(v)) or old_argument(v, k, cls) for k, v in arguments.items()}
        if cls == "ValueNode" and isinstance(arguments.get("value"), np.ndarray):  # as a bare array it was lost
            arguments["value"] = [arguments["value"], "const"]
        if isinstance(arguments.get("class_weights"), np.ndarray):  # lists survived
            arguments["class_weights"] = arguments["class_weights"].tolist()
        args = []
        for name in names:  # those that users give by position
            if name not in arguments or name in ("w", "b", "fov", "margin", "activation_func", "batch_normalisation"):
                break
            args.append(arguments.pop(name))
        kwargs = {k: v for k, v in arguments.items() if not (isinstance(v, np.ndarray) and v.dtype.kind == "f")}
        kwargs.update(name=node.name, print_repr=node.print_repr)
        params = OrderedDict((k, p.get_value()) for k, p in node.params.items()
                             if k != "init_weight" and k != "class_weights" and not p.constant)
        if cls == "Conv" and "w" in params:
            params["w"] = flipped(params["w"])
        entries[node.name] = [NodeDescriptor(args=args, kwargs=kwargs, cls=Name(module, cls)), params]
    return entries


def pickled(content, python2=False):
    file = io.BytesIO()
    Pickler(file, python2).dump(content)
    return file.getvalue()


def write(model, path, python2=False, zipped=False, change=None):
    """Write ``model`` as an old file. ``change``: a function that changes the descriptors before."""
    entries = descriptors(model)
    if change:
        change(entries)
    roles = {role: model.designations[role] for role in ROLES}
    data = pickled((entries, roles), python2)
    path.write_bytes(gzip.compress(data) if zipped else data)
