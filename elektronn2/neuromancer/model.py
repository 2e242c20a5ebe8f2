"""The model: a graph whose nodes have roles, that can be trained, asked, saved and rebuilt."""
import inspect
import logging
import random
import string
import time
from collections import deque
from pathlib import Path

import numpy as np

from elektronn2.config import config
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import graph, serialize
from elektronn2.neuromancer.expression import Graph
from elektronn2.neuromancer.function import Function, to_numpy
from elektronn2.neuromancer.manager import GraphManager, model_manager
from elektronn2.neuromancer.neural import Conv, FragmentsToDense, Pool
from elektronn2.neuromancer.node_basic import Input, Node
from elektronn2.neuromancer.optimiser import DEFAULTS, OPTIMISERS
from elektronn2.neuromancer.registry import NODES
from elektronn2.utils.basic import pretty_string_ops
from elektronn2.utils.cnncalculator import nearest_patch
from elektronn2.utils.validate import as_tuple, suggest

logger = logging.getLogger("elektronn2log")

ROLES = ("input_node", "target_node", "loss_node", "prediction_node", "prediction_ext", "error_node", "debug_outputs")
LIST_ROLES = ("prediction_ext", "debug_outputs")


def _hyper(name):
    def get(self):
        return self.meta_params[name]

    def set_value(self, value):
        self.meta_params[name] = float(value)
    return property(get, set_value, doc=f"Hyper-parameter {name!r} of this model's optimisers; takes effect at once.")


class Model(GraphManager):
    """A network: nodes by name, and the roles that :meth:`designate_nodes` gives them.

    Models are made by ``model_manager`` when the first node is built. A model file is written by :meth:`save`
    and read by :func:`modelload`.
    """

    def __init__(self, name=""):
        super().__init__(name)
        self.designations = dict.fromkeys(ROLES)
        self.meta_params = dict(DEFAULTS)
        self._optimisers = {}
        self._functions = {}
        self.iterations = 0
        self.elapsed_time = 0.0
        self._times = deque(maxlen=config.time_per_step_smoothing_length)
        self._losses = deque(maxlen=config.loss_smoothing_length)

    lr, mom, wd = map(_hyper, ("lr", "mom", "wd"))

    def reset(self):
        """Forget all nodes."""
        super().reset()
        self.graph = Graph()

    # -- roles -----------------------------------------------------------------------------------
    def designate_nodes(self, input_node="input", target_node=None, loss_node=None, prediction_node=None,
                        prediction_ext=None, error_node=None, debug_outputs=None):
        """Say which nodes play which role; each is a node or its name.

        ``loss_node`` is trained on, ``prediction_node`` is what :meth:`predict` returns, ``prediction_ext`` (a list)
        what :meth:`predict_ext` returns, ``debug_outputs`` (a list) is returned by each training step.
        Raises ValueError for lists in other roles, KeyError for unknown names. Logs geometry, cost and size.
        """
        given = dict(zip(ROLES, (input_node, target_node, loss_node, prediction_node, prediction_ext, error_node,
                                 debug_outputs)))
        names = {}
        for role, value in given.items():
            is_list = isinstance(value, (list, tuple))
            if is_list and role not in LIST_ROLES:
                raise ValueError(f"designate_nodes: {role} is one node, got a list: {value!r}. "
                                 f"Lists are for {' and '.join(LIST_ROLES)}.")
            if value is not None and not is_list and role in LIST_ROLES:
                value, is_list = [value], True
            names[role] = [self._name_of(v, role) for v in value] if is_list else self._name_of(value, role)
        self.designations = names
        self._optimisers, self._functions = {}, {}
        self._print_summary()

    def _name_of(self, value, role):
        if value is None:
            return None
        name = value.name if isinstance(value, Node) else value
        if isinstance(value, Node) and self.nodes.get(name) is not value:
            raise ValueError(f"designate_nodes: {role} {name!r} belongs to another model ({value.model.name!r}).")
        if name not in self.nodes:
            raise KeyError(f"designate_nodes: the model has no node {name!r} for {role}.{suggest(name, self.nodes)} "
                           f"Its nodes: {list(self.nodes)}.")
        return name

    def _print_summary(self):
        if self.prediction_node is not None:
            shape = self.prediction_node.shape
            logger.info("Prediction properties:\n%s", shape.ext_repr)
            if not shape.fov_all_centered:
                logger.warning("The field of view %s is even on some axis: predictions lie between input voxels and are "
                               "placed half a voxel lower. Change one filter size by one to centre them.", shape.fov)
        node = self.loss_node or self.prediction_node
        if node is not None:
            cost = node.all_computational_cost
            logger.info("Total Computational Cost of Model: %s", pretty_string_ops(cost))
            logger.info("Total number of trainable parameters: %s.", f"{node.all_params_count:,}")
            if self.prediction_node is not None:
                logger.info("Computational Cost per pixel: %s",
                            pretty_string_ops(cost / self.prediction_node.shape.spatial_size))

    def _role(self, role):
        name = self.designations[role]
        return [self.nodes[n] for n in name] if isinstance(name, list) else None if name is None else self.nodes[name]

    input_node = property(lambda self: self._role("input_node"))
    target_node = property(lambda self: self._role("target_node"))
    loss_node = property(lambda self: self._role("loss_node"))
    prediction_node = property(lambda self: self._role("prediction_node"))
    prediction_ext = property(lambda self: self._role("prediction_ext"))
    error_node = property(lambda self: self._role("error_node"))
    debug_outputs = property(lambda self: self._role("debug_outputs"))

    def _need(self, role):
        node = self._role(role)
        if node is None:
            raise ValueError(f"Model {self.name!r} has no {role}: call model.designate_nodes({role}=...) first.")
        return node

    @property
    def batch_size(self):
        """Size of the prediction node's batch axis (None: any)."""
        return self._need("prediction_node").shape["b"]

    @property
    def ndim(self):
        """Number of spatial axes of the prediction node."""
        return self._need("prediction_node").shape.ndim

    @property
    def debug_output_names(self):
        return [n.name for n in self.debug_outputs or []]

    @property
    def prediction_feature_names(self):
        node = self._need("prediction_node")
        return node.feature_names or [str(i) for i in range(node.shape["f"])]

    @property
    def loss_input_shapes(self):
        """Shapes of the inputs of the loss node, in order."""
        return [n.shape.shape for n in self._need("loss_node").input_nodes]

    # -- parameters ------------------------------------------------------------------------------
    @property
    def trainable_params(self):
        """List of the trainable parameters that the loss node (else the prediction node) depends on."""
        node = self.loss_node or self._need("prediction_node")
        return list(node.all_trainable_params.values())

    @property
    def nontrainable_params(self):
        """Dict ``<node>_<param>`` -> parameter."""
        return {f"{n.name}_{k}": p for n in self.nodes.values() for k, p in n.params.items() if not p.apply_train}

    def get_param_values(self, skip_const=False, as_list=False):
        """Dict node -> param -> array (nodes without parameters left out), or the arrays as one list."""
        values = {n.name: n.get_param_values(skip_const) for n in self.nodes.values()}
        values = {k: v for k, v in values.items() if v}
        return [a for v in values.values() for a in v.values()] if as_list else values

    def set_param_values(self, values, skip_const=False):
        """Set parameters from a dict or list as :meth:`get_param_values` returns them, or from a model file.

        KeyError for an unknown node, ValueError for a list of another length.
        """
        if isinstance(values, (str, Path)):
            values = params_from_model_file(values)
        if isinstance(values, (list, tuple)):
            slots = [(n.name, k) for n in self.nodes.values() for k, p in n.params.items()
                     if not (skip_const and p.constant)]
            if len(slots) != len(values):
                raise ValueError(f"Model {self.name!r} has {len(slots)} parameters, got a list of {len(values)}.")
            by_node = {}
            for (node, param), value in zip(slots, values):
                by_node.setdefault(node, {})[param] = value
            values = by_node
        for name in values:
            if name not in self.nodes:
                raise KeyError(f"Model {self.name!r} has no node {name!r}.{suggest(name, self.nodes)}")
        for name, params in values.items():
            self.nodes[name].set_param_values(params, skip_const)

    def _rates(self, param):
        return [n.params[param] for n in self.nodes.values() if param in n.params]

    def _set_rates(self, param, values):
        rates = self._rates(param)
        values = [values] * len(rates) if np.ndim(values) == 0 else list(values)
        if len(values) != len(rates):
            raise ValueError(f"The model has {len(rates)} nodes with a {param}, got {len(values)} values.")
        for rate, value in zip(rates, values):
            rate.set_value(value)

    @property
    def dropout_rates(self):
        """Dropout rates in the order of the nodes that have one; set one number for all, or a sequence."""
        return [float(p.get_value()) for p in self._rates("dropout_rate")]

    @dropout_rates.setter
    def dropout_rates(self, values):
        self._set_rates("dropout_rate", values)

    @property
    def gradnet_rates(self):
        return [float(p.get_value()) for p in self._rates("gradnet_rate")]

    @gradnet_rates.setter
    def gradnet_rates(self, values):
        self._set_rates("gradnet_rate", values)

    @property
    def mixing(self):
        """Mixing weights of the loss node, or of the first AggregateLoss before it."""
        return self._mixing_param().get_value()

    @mixing.setter
    def mixing(self, values):
        self._mixing_param().set_value(values)

    def _mixing_param(self):
        for node in reversed(graph.ancestors(self._need("loss_node"))):
            if "mixing_weights" in node.params:
                return node.params["mixing_weights"]
        raise ValueError(f"Model {self.name!r} has no AggregateLoss, so it has no mixing weights.")

    @property
    def batch_normalisation_active(self):
        """Whether a node measures batch statistics in training."""
        return any(getattr(n, "batch_normalisation", False) in ("train", "fadeout") for n in self.nodes.values())

    # -- training --------------------------------------------------------------------------------
    def optimiser(self, name):
        """The optimiser of that name for the loss node, made when first asked for.

        An unknown name falls back to SGD with a warning.
        """
        if name not in OPTIMISERS:
            logger.warning("Unknown optimiser %r: SGD is used.%s Available: %s.", name, suggest(name, OPTIMISERS),
                           ", ".join(OPTIMISERS))
            name = "SGD"
        if name not in self._optimisers:
            loss = self._need("loss_node")
            inputs = loss.input_nodes
            self._optimisers[name] = OPTIMISERS[name](
                [n.output for n in inputs], loss.output, None, self.trainable_params, loss.all_extra_updates,
                [n.output for n in self.debug_outputs or ()], self.meta_params, [n.name for n in inputs],
                [n.shape.shape for n in inputs])
        return self._optimisers[name]

    @property
    def optimisers(self):
        """Dict name -> optimiser of all that there are."""
        return {name: self.optimiser(name) for name in OPTIMISERS}

    def set_opt_meta_params(self, opt, value_dict):
        """Set hyper-parameters (lr, mom, wd, for Adam and AdamW also beta2). KeyError for one that ``opt`` lacks."""
        self.optimiser(opt).set_opt_meta_params(value_dict)

    def trainingstep(self, *inputs, optimiser="SGD", update_loss=False):
        """One update of the parameters.

        ``inputs``: arrays for the sources of the loss node in order (data, target, ...). Returns (loss, seconds, debug
        outputs or None); the loss is that before the update, or after it with ``update_loss``.
        """
        opt = self.optimiser(optimiser)
        start = time.perf_counter()
        arrays = opt.function.check(inputs)
        loss, *debug = opt.step(*arrays)
        loss = float(to_numpy(loss).reshape(-1)[0])
        if update_loss:
            loss = self.loss(*inputs)
        seconds = time.perf_counter() - start
        self.iterations += 1
        self.elapsed_time += seconds
        self._times.append(seconds)
        self._losses.append(loss)
        return loss, seconds, [to_numpy(d) for d in debug] if self.debug_outputs else None

    @property
    def time_per_step(self):
        """Mean seconds of the last training steps."""
        return float(np.mean(self._times)) + 1e-6 if self._times else 1e-6

    @property
    def loss_smooth(self):
        """Mean loss of the last training steps; 0 before the first."""
        return float(np.mean(self._losses)) if self._losses else 0.0

    # -- computing -------------------------------------------------------------------------------
    def _function(self, key, nodes, mode, gradients=()):
        """Function of several nodes, from the union of their sources."""
        if (key, mode) not in self._functions:
            inputs = graph.sources(*nodes)
            self._functions[key, mode] = Function(
                [n.output for n in inputs], [n.output for n in nodes], name=key, mode=mode, gradients=gradients,
                shapes=[n.shape.shape for n in inputs], names=[n.name for n in inputs])
        return self._functions[key, mode]

    def loss(self, *inputs, mode="train"):
        """The loss for arrays for the sources of the loss node, without update."""
        return float(self._function("loss", [self._need("loss_node")], mode)(*inputs)[0].reshape(-1)[0])

    def gradients(self, *inputs, mode="train"):
        """List of gradients of the loss, in the order of ``trainable_params``."""
        return self._function("gradients", [self._need("loss_node")], mode, self.trainable_params)(*inputs)[1:]

    def predict(self, *inputs, mode="predict"):
        """Values of the prediction node."""
        return self._need("prediction_node")(*inputs, mode=mode)

    def predict_ext(self, *inputs, mode="predict"):
        """List of the values of the nodes ``prediction_ext``; inputs are the union of their sources."""
        return self._function("predict_ext", self._need("prediction_ext"), mode)(*inputs)

    def activations(self, *inputs, mode="predict"):
        """List of the values of all nodes that are no sources and that the loss (else the prediction) depends on."""
        return self._function("activations", self._active_nodes(), mode)(*inputs)

    def _active_nodes(self):
        return [n for n in graph.ancestors(self.loss_node or self._need("prediction_node")) if not n.is_source]

    def predict_dense(self, raw_img, as_uint8=False, pad_raw=False):
        """Prediction at every voxel; see :func:`elektronn2.neuromancer.dense.predict_dense`."""
        return self._need("prediction_node").predict_dense(raw_img, as_uint8, pad_raw)

    # -- looking ---------------------------------------------------------------------------------
    def paramstats(self):
        """Log shape, mean, standard deviation and median of absolutes per parameter."""
        params = (self.loss_node or self._need("prediction_node")).all_params
        _log_stats("Parameters", ((k, p.get_value()) for k, p in params.items()))

    def gradstats(self, *inputs):
        """The same per gradient of the loss."""
        names = [k for k, p in self._need("loss_node").all_params.items() if p.apply_train]
        _log_stats("Gradients", zip(names, self.gradients(*inputs)))

    def actstats(self, *inputs):
        """The same per activation."""
        _log_stats("Activations", zip([n.name for n in self._active_nodes()], self.activations(*inputs)))

    def test_run_prediction(self):
        """Run the prediction node once on random input; see :meth:`Node.test_run`."""
        return self._need("prediction_node").test_run()

    def measure_exectimes(self, n_samples=5, n_warmup=4, print_info=True):
        """Ordered name -> milliseconds, of every node by itself."""
        times = {n.name: n.measure_exectime(n_samples, n_warmup, print_info=False) for n in self.nodes.values()}
        if print_info:
            width = max(map(len, times))
            logger.info("Execution times in ms:\n%s",
                        "\n".join(f"  {k:<{width}} {v:10.4f}" for k, v in sorted(times.items(), key=lambda i: -i[1])))
        return times

    def axis_rules(self, mfp=False):
        """Shape of the prediction, and per axis output length from input length; for ``cnncalculator(model)``."""
        return self._need("prediction_node").axis_rules(mfp)

    # -- files -----------------------------------------------------------------------------------
    def save(self, file):
        """Write a model file (safetensors with the graph as JSON); atomic."""
        serialize.save(self, file)


model_manager.factory = Model


def _log_stats(title, items):
    rows = [f"{title}: name, shape, mean, std, median of absolutes"]
    rows += [f"  {name:<24} {a.shape!s:<24} {a.mean():+.3e} {a.std():.3e} {np.median(np.abs(a)):.3e}"
             for name, a in items]
    logger.info("\n".join(rows))


# -- rebuilding -----------------------------------------------------------------------------------------
BN_PARAMS = ("gamma", "mean", "std")
WEIGHTS = serialize.WEIGHTS


def modelload(file_name, override_mfp_to_active=False, imposed_patch_size=None, imposed_batch_size=None, name=None,
              **restore_kwargs):
    """Read a model file into a new model, which becomes current (``name`` None: a random one).

    ``imposed_patch_size`` (spatial, in the order of the input's axes), ``imposed_batch_size``: new sizes of the input;
    a patch that does not fit is changed to the nearest one that does, with a line for each axis that changes.
    ``override_mfp_to_active``: max-fragment pooling in every pooling layer, for fast dense prediction (a network with
    upsampling is left as it is). ``restore_kwargs``: ``make_weights_constant``, ``replace_bn`` ('remove', 'predict',
    'const'), ``lock_trainable_params`` (number of nodes, or names), ``unlock_all_params``, ``allow_functions``.

    Raises ModelFileError for a file that is damaged or foreign, ValueError for sizes or options that do not fit.
    """
    return _rebuild(*serialize.load(file_name), override_mfp_to_active, imposed_patch_size, imposed_batch_size, name,
                    **restore_kwargs)


def rebuild_model(model, override_mfp_to_active=False, imposed_patch_size=None, name=None, **kwargs):
    """A new model like ``model``, changed as :func:`modelload` describes; ``model`` stays as it is."""
    kwargs.setdefault("allow_functions", True)
    return _rebuild(*serialize.describe(model), override_mfp_to_active, imposed_patch_size,
                    kwargs.pop("imposed_batch_size", None), name, **kwargs)


def _rebuild(description, tensors, mfp, patch, batch, name, **options):
    input_name = description["designations"].get("input_node")
    entries = {e["name"]: e for e in description["nodes"]}
    if (patch is not None or batch is not None or mfp) and input_name not in entries:
        raise ValueError(f"The model has no designated input node, so its sizes cannot be changed; "
                         f"designations: {description['designations']}.")
    if mfp and any(e["class"] == "UpConv" for e in entries.values()):
        logger.warning("The network upsamples, so its prediction is dense already: max-fragment pooling is not used.")
        mfp = False
    changes = {}
    if patch is not None or mfp:
        changes["patch"] = _fitting_patch(description, tensors, patch, mfp, options)
    if batch is not None or mfp:
        shape, tags = _input_shape(entries[input_name])
        old = shape[tags.index("b")]
        changes["batch"] = 1 if batch is None and old is None else old if batch is None else batch
    return _Restorer(description, tensors, mfp, changes, **options).restore(name)


def _input_shape(entry):
    tags = entry["arguments"]["tags"]
    tags = serialize.decode(tags, {}, {})
    tags = [t.strip() for t in tags.split(",")] if isinstance(tags, str) else list(tags)
    return list(serialize.decode(entry["arguments"]["shape"], {}, {})), tags


def _fitting_patch(description, tensors, patch, mfp, options):
    """The imposed patch (or the model's own), changed to the nearest that fits the graph."""
    previous = model_manager.current, model_manager.last
    scratch = _Restorer(description, tensors, False, {}, quiet=True, **options).restore(None)
    model_manager.discard(scratch.name)
    model_manager.current, model_manager.last = previous
    own = scratch.input_node.shape.spatial_shape
    wanted = own if patch is None else as_tuple(patch, len(own), "imposed_patch_size")
    shape, rules = scratch.axis_rules(mfp)
    if shape.ndim != len(own):
        return list(wanted)
    return nearest_patch(rules, wanted)


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
        self.locked = self._locked(lock_trainable_params)
        self.params = {}
        for key, value in tensors.items():
            node, _, param = key.rpartition("/")
            self.params.setdefault(node, {})[param] = value

    def _locked(self, lock):
        names = [e["name"] for e in self.description["nodes"]]
        if not lock:
            return set()
        if isinstance(lock, int) and not isinstance(lock, bool):
            with_params = [n for n in names if any(k.startswith(f"{n}/") for k in self.tensors)]
            return set(with_params[:lock])
        unknown = [n for n in lock if n not in names]
        if unknown:
            raise ValueError(f"lock_trainable_params: the model has no node {unknown}.{suggest(unknown[0], names)}")
        return set(lock)

    def restore(self, name):
        model = model_manager.newmodel(name)
        designations = dict(self.description["designations"])
        try:
            for entry in self.description["nodes"]:
                self._restore_node(model, entry, designations)
        except ModelFileError:
            model_manager.discard(model.name)
            raise
        except (KeyError, TypeError, ValueError) as error:
            model_manager.discard(model.name)
            text = error.args[0] if isinstance(error, KeyError) else error
            raise ValueError(f"The model cannot be rebuilt at node {entry.get('name')!r}: {text}") from error
        if self.quiet:
            model.designations = designations
        else:
            model.designate_nodes(**designations)
        return model

    def _restore_node(self, model, entry, designations):
        name = entry["name"]
        cls = NODES[entry["class"]]
        arguments = {k: serialize.decode(v, model.nodes, self.tensors, self.allow_functions, f"Node {name!r}")
                     for k, v in entry["arguments"].items() if not (isinstance(v, dict) and "weights" in v)}
        arguments["print_repr"] = entry.get("print_repr", True) and not self.quiet
        if issubclass(cls, Input):
            self._resize(model, entry, arguments, name == designations.get("input_node"))
        if self.mfp and issubclass(cls, (Conv, Pool)):
            arguments["mfp"] = True
        values = dict(self.params.get(name, {}))
        self._give_weights(entry, cls, arguments, values)
        after = False
        if self.mfp and name == designations.get("prediction_node"):
            after = issubclass(cls, (Conv, Pool)) and _pools(arguments)
            if not after:
                arguments = _to_dense_before(arguments)
        node = cls(**arguments, name=name)
        node.like = entry.get("like")
        if entry.get("feature_names"):
            node.feature_names = entry["feature_names"]
        rest = {k: v for k, v in values.items() if k in node.params and not node.params[k].constant}
        if "init_weight" in node.params:
            rest.setdefault("init_weight", 0.0)
        node.set_param_values(rest)
        if after:
            designations["prediction_node"] = FragmentsToDense(node, name=_random_name()).name
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
            shape = model.nodes[like["node"]].shape
            if like["override_f"]:
                shape = shape.updateshape("f", like["override_f"])
            arguments.update(shape=shape.shape, tags=shape.tags)
            if shape.ndim:
                arguments.update(strides=list(shape.strides), fov=shape.fov, offsets=list(shape.centre))

    def _give_weights(self, entry, cls, arguments, values):
        """Move parameters that constructors take from ``values`` to ``arguments``; replace batch normalisation."""
        mode = arguments.get("batch_normalisation")
        if mode and self.replace_bn:
            weight = float(values.pop("init_weight", 0.0))
            if self.replace_bn == "remove":
                arguments["batch_normalisation"] = False
                for key in BN_PARAMS:
                    values.pop(key, None)
            else:
                arguments["batch_normalisation"] = mode = "predict"
                if weight < 1:
                    values["mean"] = values["mean"] / (1 - weight)
                    values["std"] = (values["std"] - weight) / (1 - weight)
                if self.replace_bn == "const":
                    for key in ("mean", "std"):
                        arguments[key] = [values.pop(key), "const"]
        saved_constants = set(entry.get("constants", ()))
        for key in list(values):
            weight_form = key in WEIGHTS or key in saved_constants
            if not weight_form or key.startswith("argument-") or key not in _parameters(cls):
                continue
            if mode in ("train", "fadeout") and key in ("mean", "std"):
                continue
            constant = (key in saved_constants and not self.unlock) or (key in WEIGHTS and (
                self.constant or entry["name"] in self.locked))
            value = values.pop(key)
            arguments[key] = [value, "const"] if constant else value


def _parameters(cls):
    return inspect.signature(cls.__init__).parameters


def _pools(arguments):
    pool = arguments.get("stride") or arguments.get("pool_shape") or 1
    return int(np.prod(pool)) > 1


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
    """Dict node -> param -> array of a model file, for nodes that have parameters."""
    _, tensors = serialize.load(file_name)
    params = {}
    for key, value in tensors.items():
        node, _, param = key.rpartition("/")
        if not param.startswith("argument-"):
            params.setdefault(node, {})[param] = value
    return params


def kernel_lists_from_node_descr(description):
    """(filters, pools, mfp flags) of the Conv nodes, from the description that ``serialize.load`` returns."""
    filters, pools, mfp = [], [], []
    for entry in description["nodes"]:
        if entry["class"] == "Conv":
            arguments = {k: serialize.decode(v, {}, {}) for k, v in entry["arguments"].items()
                         if k in ("filter_shape", "pool_shape", "mfp")}
            size = arguments["filter_shape"]
            filters.append(size)
            pools.append(arguments.get("pool_shape") or ([1] * len(size) if isinstance(size, (list, tuple)) else 1))
            mfp.append(bool(arguments.get("mfp", False)))
    return filters, pools, mfp
