"""The model: a graph whose nodes have roles, that can be trained, asked, saved and rebuilt."""
import logging
import time
from collections import deque
from numbers import Real
from pathlib import Path

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import checkpoint, graph, serialize
from elektronn2.neuromancer.averaging import Averages
from elektronn2.neuromancer.export import export
from elektronn2.neuromancer.expression import Graph
from elektronn2.neuromancer.finite import find_nonfinite, require_finite
from elektronn2.neuromancer.function import Function, to_numpy
from elektronn2.neuromancer.manager import GraphManager, model_manager
from elektronn2.neuromancer.networks import simple_cnn
from elektronn2.neuromancer.node_basic import Node
from elektronn2.neuromancer.optimiser import DEFAULTS, OPTIMISERS, check_hyper
from elektronn2.neuromancer.rebuild import (
    kernel_lists_from_node_descr,
    modelload,
    params_from_model_file,
    rebuild_model,
    restore,
    stored_params,
)
from elektronn2.utils.basic import pretty_string_ops
from elektronn2.utils.validate import short, suggest

__all__ = ["Model", "kernel_lists_from_node_descr", "modelload", "params_from_model_file", "rebuild_model",
           "simple_cnn"]

logger = logging.getLogger("elektronn2log")

ROLES = ("input_node", "target_node", "loss_node", "prediction_node", "prediction_ext", "error_node", "debug_outputs")
LIST_ROLES = ("prediction_ext", "debug_outputs")
OTHER_NAMES = dict(learning_rate="lr", lrate="lr", LR="lr", momentum="mom", weight_decay="wd", nesterov_momentum="nesterov",
                   dropout="dropout_rates", dropout_rate="dropout_rates", gradnet_rate="gradnet_rates",
                   mixing_weights="mixing")
"""What others call settings of a model -> their names here."""


def _hyper(name):
    def get(self):
        return self.meta_params[name]

    def set_value(self, value):
        self.meta_params[name] = check_hyper(name, value)
    return property(get, set_value, doc=f"Hyper-parameter {name!r} of this model's optimisers; takes effect at once.")


class Model(GraphManager):
    """A network: nodes by name, and the roles that :meth:`designate_nodes` gives them.

    Models are made by ``model_manager`` when the first node is built. A model file is written by :meth:`save`
    and read by :func:`modelload`.
    """

    def __init__(self, name=""):
        super().__init__(name)
        self.meta_params = dict(DEFAULTS)
        self.averages = Averages()
        self._unknown_optimisers = set()
        self._said_unscaled = False
        self.iterations = 0
        self.elapsed_time = 0.0
        self._times = deque(maxlen=config.time_per_step_smoothing_length)
        self._losses = deque(maxlen=config.loss_smoothing_length)

    lr, mom, wd, beta2, nesterov, clip_value, clip_norm, ema = map(_hyper, DEFAULTS)

    def __setattr__(self, name, value):
        if name in OTHER_NAMES:
            raise AttributeError(f"A model has no {name!r}: nothing would read it. Set model.{OTHER_NAMES[name]}; the "
                                 f"hyper-parameters are {', '.join(DEFAULTS)}.")
        super().__setattr__(name, value)

    def reset(self):
        """Forget all nodes."""
        super().reset()
        self.graph = Graph()
        self.designations = dict.fromkeys(ROLES)
        self._optimisers, self._functions = {}, {}

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
            raise ValueError(f"designate_nodes: {role} {name!r} belongs to model {value.model.name!r}, not to "
                             f"{self.name!r}.")
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
            self._compare_target(shape)
        node = self.loss_node or self.prediction_node
        if node is not None:
            cost = node.all_computational_cost
            logger.info("Total Computational Cost of Model: %s", pretty_string_ops(cost))
            logger.info("Total number of trainable parameters: %s.", f"{node.all_params_count:,}")
            if self.prediction_node is not None:
                logger.info("Computational Cost per pixel: %s",
                            pretty_string_ops(cost / self.prediction_node.shape.spatial_size))

    def _compare_target(self, shape):
        """A warning if voxels of the target sit elsewhere than those of the prediction: data are cut out by the target."""
        target = self.target_node
        if target is None or target.shape.spatial_tags != shape.spatial_tags:
            return
        for what in ("strides", "offsets"):
            wanted, given = ([str(v) for v in getattr(s, what)] for s in (shape, target.shape))
            if wanted != given:
                pred = self.prediction_node.name
                logger.warning("The %s of target %r are (%s), those of the prediction %r are (%s): it would be trained on "
                               "labels of other voxels. Make the target with Input_like(%s, ...).",
                               what, target.name, ", ".join(given), pred, ", ".join(wanted), pred)

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
            values = stored_params(values)
        if isinstance(values, (list, tuple)):
            slots = [(n.name, k) for n in self.nodes.values() for k, p in n.params.items()
                     if not (skip_const and p.constant)]
            if len(slots) != len(values):
                raise ValueError(f"Model {self.name!r} has {len(slots)} parameters, got a list of {len(values)}.")
            by_node = {}
            for (node, param), value in zip(slots, values):
                by_node.setdefault(node, {})[param] = value
            values = by_node
        if not isinstance(values, dict):
            raise TypeError(f"Parameters of model {self.name!r} are set from a dict, a list or a file, got {short(values)}.")
        for name in values:
            if name not in self.nodes:
                raise KeyError(f"Model {self.name!r} has no node {name!r}.{suggest(name, self.nodes)}")
        for name, params in values.items():
            self.nodes[name].set_param_values(params, skip_const)

    def _rates(self, param):
        return [n.params[param] for n in self.nodes.values() if param in n.params]

    def _set_rates(self, param, values):
        if param == "dropout_rate" and isinstance(values, dict):
            return self._set_dropout_of(values)
        rates = self._rates(param)
        values = [values] * len(rates) if np.ndim(values) == 0 else list(values)
        if len(values) != len(rates):
            raise ValueError(f"The model has {len(rates)} nodes with a {param}, got {len(values)} values.")
        if not all(isinstance(v, (Real, np.number)) and 0 <= v <= 1 and (v < 1 or param != "dropout_rate") for v in values):
            limits = "[0, 1)" if param == "dropout_rate" else "[0, 1]"
            raise ValueError(f"Each {param} must be a number in {limits}, got {values}.")
        for rate, value in zip(rates, values):
            rate.set_value(value)

    def _set_dropout_of(self, rates):
        nodes = {name: self[name] for name in rates}
        without = [name for name, node in nodes.items() if not hasattr(node, "set_dropout_rate")]
        if without:
            raise ValueError(f"Dropout is a matter of layers with weights; these nodes have none: {without}.")
        for name, rate in rates.items():
            nodes[name].set_dropout_rate(rate)

    @property
    def dropout_rates(self):
        """Dropout rates in the order of the nodes that have one; set one number for all, or a sequence. Set a dict, node
        name -> rate, for single nodes; this also switches on the dropout of layers that were built without."""
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
        """Mixing weights of the loss node, or of the first AggregateLoss before it; set a list, or one number for all."""
        return self._mixing_param().get_value()

    @mixing.setter
    def mixing(self, values):
        param = self._mixing_param()
        one = isinstance(values, (Real, np.ndarray)) and np.ndim(values) == 0
        param.set_value(np.full(param.shape, values) if one else values)

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
            if name not in self._unknown_optimisers:
                logger.warning("Unknown optimiser %r: SGD is used.%s Available: %s.", name, suggest(name, OPTIMISERS),
                               ", ".join(OPTIMISERS))
            self._unknown_optimisers.add(name)
            name = "SGD"
        if name not in self._optimisers:
            loss = self._need("loss_node")
            inputs = loss.input_nodes
            if not self.trainable_params:
                raise ValueError(f"Model {self.name!r} has no trainable parameters: all are constant. Rebuild it with "
                                 "unlock_all_params=True to train it.")
            self._optimisers[name] = OPTIMISERS[name](
                [n.output for n in inputs], loss.output, None, self.trainable_params, loss.all_extra_updates,
                [n.output for n in self.debug_outputs or ()], self.meta_params, [n.name for n in inputs],
                [n.shape.shape for n in inputs], self.averages)
        return self._optimisers[name]

    @property
    def optimisers(self):
        """Dict name -> optimiser of all that there are."""
        return {name: self.optimiser(name) for name in OPTIMISERS}

    @property
    def used_optimisers(self):
        """Dict name -> optimiser of those that have made steps."""
        return {name: optimiser for name, optimiser in self._optimisers.items() if optimiser.t}

    def reset_optimisers(self):
        """Let all optimisers forget their moments and averages, as is needed when parameters were replaced."""
        for optimiser in self._optimisers.values():
            optimiser.reset()
        self.averages.clear()

    def set_opt_meta_params(self, opt, value_dict):
        """Set hyper-parameters from a dict; :class:`~elektronn2.neuromancer.optimiser.Optimiser` explains them.

        KeyError for one that the optimiser ``opt`` lacks, ValueError for a value that is not allowed.
        """
        self.optimiser(opt).set_opt_meta_params(value_dict)

    def averaged_weights(self):
        """Context manager: within, the trainable parameters have their running averages (hyper-parameter ``ema``).

        ``with model.averaged_weights(): model.save('averaged.mdl')``. Running averages of batch normalisation are taken as
        they are. ValueError if there are no averages; training within is a RuntimeError.
        """
        return self.averages.swapped()

    def trainingstep(self, *inputs, optimiser="SGD", update_loss=False):
        """One update of the parameters; none if the loss is NaN or infinite.

        ``inputs``: arrays for the sources of the loss node in order (data, target, ...). Returns (loss, seconds, debug
        outputs or None); the loss is that before the update, or after it with ``update_loss``.
        """
        opt = self.optimiser(optimiser)
        self._notice_unscaled(self.loss_node, inputs)
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
        """Values of the prediction node. ValueError if they are not finite because parameters are not."""
        self._notice_unscaled(self._need("prediction_node"), inputs)
        values = self.prediction_node(*inputs, mode=mode)
        if values is not None and not np.isfinite(values).all():
            require_finite(self.prediction_node)
        return values

    def _notice_unscaled(self, node, inputs):
        """A warning, once, if the image among the inputs of ``node`` has integers, which other ways in would scale."""
        image = self.input_node
        if self._said_unscaled or image is None or not image.shape.ndim or not image.output.dtype.startswith("float"):
            return
        for source, array in zip(node.input_nodes, inputs):
            dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
            if source is image and dtype in ("uint8", "uint16"):
                self._said_unscaled = True
                largest = np.iinfo(dtype).max
                logger.warning("The image for %r is %s and taken as it is, but predict_dense and the batches of training "
                               "divide by %d. Do so here as well: (image / %d).astype('float32').", image.name, dtype,
                               largest, largest)

    def predict_ext(self, *inputs, mode="predict"):
        """List of the values of the nodes ``prediction_ext``; inputs are the union of their sources."""
        return self._function("predict_ext", self._need("prediction_ext"), mode)(*inputs)

    def activations(self, *inputs, mode="predict"):
        """List of the values of all nodes that are no sources and that the loss (else the prediction) depends on."""
        return self._function("activations", self._active_nodes(), mode)(*inputs)

    def _active_nodes(self):
        return [n for n in graph.ancestors(self.loss_node or self._need("prediction_node")) if not n.is_source]

    def predict_dense(self, raw_img, as_uint8=False, pad_raw=False):
        """Prediction at every voxel; see :func:`elektronn2.neuromancer.dense.predict_dense`.

        ValueError for parameters that are not finite."""
        require_finite(self._need("prediction_node"))
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

    def find_nonfinite(self, *inputs):
        """Where NaN and infinite values begin: a text that names the first node, parameter or gradient; None if all are
        finite. ``inputs``: arrays for the sources of the loss node."""
        self._need("loss_node")
        return find_nonfinite(self, *inputs)

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
    def save(self, file, optimiser_state=False):
        """Write a model file (safetensors with the graph as JSON); atomic.

        ``optimiser_state``: also what is needed to train on as if there had been no break: hyper-parameters, moments of the
        optimisers, averaged weights, numbers of steps. ValueError for parameters that are not finite.
        """
        require_finite(*self.nodes.values())
        description, tensors = serialize.describe(self)
        if optimiser_state:
            description["training"], state = checkpoint.describe(self)
            tensors.update(state)
        serialize.write(description, tensors, file)

    def serialise(self):
        """(description, tensors): all that a model file holds of the graph and its parameters, as :meth:`restore` takes it.

        The description is a dict of plain values, tensors a dict ``<node>/<param>`` -> array.
        """
        return serialize.describe(self)

    @property
    def node_descriptors(self):
        """Dict name -> description of each node (name, class, arguments), of plain values, as it is in a model file."""
        return {entry["name"]: entry for entry in self.serialise()[0]["nodes"]}

    def restore(self, description, tensors, **restore_kwargs):
        """Build what :meth:`serialise` of another model returned in this model, which must be empty; it becomes current.

        ``restore_kwargs``: as of :func:`modelload`. ValueError if there are nodes already; the errors of ``modelload``,
        after which the model is empty.
        """
        restore(self, description, tensors, **restore_kwargs)

    def export(self, file, format=None, overwrite=False, dynamic=None, **about):
        """Write the prediction for other programs; atomic, and checked against this model before it is written.

        ``format``: 'onnx' (.onnx), 'torch' (.pt2, a torch.export program) or 'bioimageio' (.zip, a package with test
        data; ``about``: see :func:`elektronn2.neuromancer.bioimageio.package`); default by the suffix. ``dynamic``:
        letters of the axes whose lengths stay open, like 'b,x,y'; default: all that the network permits.

        Raises FileExistsError unless ``overwrite``, ImportError if the extra ``export`` is not installed, ValueError for
        a network that cannot be exported or whose file computes something else.
        """
        export(self._need("prediction_node"), file, format, overwrite, dynamic, **about)


model_manager.factory = Model


def _log_stats(title, items):
    rows = [f"{title}: name, shape, mean, std, median of absolutes"]
    rows += [f"  {name:<24} {a.shape!s:<24} {a.mean():+.3e} {a.std():.3e} {np.median(np.abs(a)):.3e}"
             for name, a in items]
    logger.info("\n".join(rows))
