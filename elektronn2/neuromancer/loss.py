"""Class probabilities, losses and errors."""

import numpy as np

from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.node_basic import Node
from elektronn2.neuromancer.shape import TaggedShape

EPS = C.EPS


def _counts(node, f, n_class, n_indep):
    """n_class and n_indep with 'auto' resolved; n_class * n_indep must be the number of features."""
    if n_class == "auto":
        if f % n_indep:
            raise ValueError(f"{node}: {f} features cannot be divided into n_indep={n_indep} blocks.")
        n_class = f // n_indep
    if n_class * n_indep != f:
        raise ValueError(f"{node}: n_class * n_indep must be the number of features, {n_class} * {n_indep} != {f}.")
    return n_class, n_indep


class Softmax(Node):
    """Softmax over the features, separately in ``n_indep`` consecutive blocks of ``n_class``.

    Input (b, f, *L) with linear activation, output (b, f, *L), each block positive with sum 1.
    ValueError if the parent has another activation than 'lin' or the counts do not fit.
    """

    def __init__(self, parent, n_class="auto", n_indep=1, name="softmax", print_repr=True):
        super().__init__(parent, name, print_repr)
        activation = getattr(parent, "activation_func", "lin")
        if activation not in ("lin", "linear"):
            raise ValueError(f"Softmax {name!r}: its parent {parent.name!r} has activation {activation!r}; "
                             "make it with activation_func='lin'.")
        self.n_class, self.n_indep = _counts(f"Softmax {name!r}", parent.shape["f"], n_class, n_indep)
        self.axis = parent.shape.tag2index("f")

    def _make_output(self):
        self.output = C.softmax(self.parent.output, self.axis, self.n_indep)


def _softmax_of(node):
    """The Softmax that a node is, or None."""
    return node if isinstance(node, Softmax) else None


def _check_target(node, pred, target, f):
    """The target must have the axes of ``pred`` with ``f`` features."""
    s, t = pred.shape, target.shape
    wanted = s.updateshape("f", f)
    if s.tags != t.tags or any(n is not None and m is not None and n != m for n, m in zip(wanted, t)):
        raise ValueError(f"{type(node).__name__} {node.name!r}: target {target.name!r} has shape {t}, needed is "
                         f"{wanted} for predictions {pred.name!r}. "
                         + ("Sparse targets hold class ids: use override_f=1." if f != t.shape[s.tag2index("f")] else ""))


def _check_sizes(node, argument, given, wanted):
    """A node given as ``argument`` must have the sizes ``wanted`` (None: any)."""
    if isinstance(given, Node) and (len(given.shape) != len(wanted) or any(
            n is not None and m is not None and n != m for n, m in zip(given.shape, wanted))):
        raise ValueError(f"{type(node).__name__} {node.name!r}: {argument} {given.name!r} has shape {given.shape}, "
                         f"needed are sizes {tuple(wanted)}.")


class MultinoulliNLL(Node):
    """Negative log-likelihood of class probabilities; its mean is the mean per labelled element.

    ``pred`` (b, n_indep * n_class, *L): a Softmax. ``target``: class ids (b, n_indep, *L) if ``target_is_sparse``,
    where negative ids (and ids from n_class on) are unlabelled, else probabilities shaped like ``pred``. Output
    (b, 1, *L).

    ``class_weights``: list, array or node, one factor per feature of ``pred``. ``example_weights``: node (b, *L).
    ``weakness``: share of the target that is replaced by the prediction itself, at labelled elements.
    ``mask_class_labeled``: node (b, f), 0 ignores elements of that class. ``mask_class_not_present``: node (b, f),
    1 says that a class is certainly absent from the example.

    out = sum_f(-t * w * ln(pred + 1e-5)) * size / (n_labelled + 1e-5). ValueError if ``pred`` is no Softmax.
    """

    def __init__(self, pred, target, target_is_sparse=False, class_weights=None, example_weights=None, weakness=0,
                 mask_class_labeled=None, mask_class_not_present=None, name="nll", print_repr=True):
        softmax = _softmax_of(pred)
        if softmax is None:
            raise ValueError(f"MultinoulliNLL {name!r}: pred must be a Softmax node, got "
                             f"{getattr(pred, 'name', pred)!r}.")
        extra = [n for n in (class_weights, example_weights, mask_class_labeled, mask_class_not_present)
                 if isinstance(n, Node)]
        super().__init__([pred, target, *extra], name, print_repr)
        if not 0 <= weakness < 1:
            raise ValueError(f"MultinoulliNLL {name!r}: weakness must be in [0, 1), got {weakness!r}.")
        self.n_class, self.n_indep = softmax.n_class, softmax.n_indep
        self.target_is_sparse, self.weakness = bool(target_is_sparse), weakness
        f = pred.shape["f"]
        _check_target(self, pred, target, self.n_indep if target_is_sparse else f)
        _check_sizes(self, "class_weights", class_weights, [f])
        _check_sizes(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        _check_sizes(self, "mask_class_labeled", mask_class_labeled, [pred.shape["b"], f])
        _check_sizes(self, "mask_class_not_present", mask_class_not_present, [pred.shape["b"], f])
        self._weights = class_weights
        if class_weights is not None and not isinstance(class_weights, Node):
            value = np.asarray(class_weights, float)
            if value.shape != (f,):
                raise ValueError(f"MultinoulliNLL {name!r}: class_weights needs {f} values, one per feature of "
                                 f"{pred.name!r}, got {class_weights!r}.")
            self.make_param("class_weights", value, (f,), None, apply_train=False, apply_reg=False)
        self.example_weights, self.mask_class_labeled = example_weights, mask_class_labeled
        self.mask_class_not_present = mask_class_not_present

    def _make_output(self):
        def expression(node):
            return None if node is None else node.output
        weights = (self.model.graph.param(self.class_weights) if "class_weights" in self.params
                   else expression(self._weights))
        pred, target = self.parents[:2]
        self.output = C.multinoulli_nll(
            pred.output, target.output, weights, expression(self.example_weights),
            expression(self.mask_class_labeled), expression(self.mask_class_not_present), self.n_class, self.n_indep,
            self.target_is_sparse, self.weakness, pred.shape.tag2index("f"))

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


class AggregateLoss(Node):
    """The scalar that is trained on: mean over the losses of weight * mean(loss).

    ``parent_nodes``: one loss node or a list, any shapes; output (1,). ``mixing_weights``: one factor per loss
    (default ones), an untrained parameter. ValueError if their number differs.
    """

    def __init__(self, parent_nodes, mixing_weights=None, name="total_loss", print_repr=True):
        nodes = list(parent_nodes) if isinstance(parent_nodes, (list, tuple)) else [parent_nodes]
        super().__init__(nodes, name, print_repr)
        n = len(self.parents)
        given = np.ones(n) if mixing_weights is None else mixing_weights
        if isinstance(given, (list, tuple)) and not (len(given) == 2 and isinstance(given[1], str)):
            given = np.asarray(given, float)
        if isinstance(given, np.ndarray) and given.shape != (n,):
            raise ValueError(f"AggregateLoss {name!r}: mixing_weights needs {n} values, one per loss, "
                             f"got {mixing_weights!r}.")
        self.make_param("mixing_weights", given, (n,), None, apply_train=False, apply_reg=False)

    def _make_output(self):
        self.output = C.aggregate([p.output for p in self.parents], self.model.graph.param(self.mixing_weights))

    def _calc_shape(self):
        self.shape = TaggedShape((1,), "f")

    def _calc_comp_cost(self):
        self.computational_cost = sum(p.shape.stripnone_prod for p in self.parents)


class Classification(Node):
    """Class ids: the largest probability of each block, or (for sigmoid features) probability > 0.5.

    Input (b, n_indep * n_class, *L), output (b, n_indep, *L) int64.
    """

    def __init__(self, pred, n_class="auto", n_indep="auto", name="cls", print_repr=True):
        super().__init__(pred, name, print_repr)
        f = pred.shape["f"]
        self.axis = pred.shape.tag2index("f")
        softmax = _softmax_of(pred)
        if softmax is not None:
            self.n_class, self.n_indep = softmax.n_class, softmax.n_indep
        elif getattr(pred, "activation_func", None) in ("sig", "logistic", "sigmoid"):
            self.n_class, self.n_indep = 2, f
        elif "auto" in (n_class, n_indep):
            raise ValueError(f"Classification {name!r}: {pred.name!r} is neither a Softmax nor has a sigmoid "
                             "activation, so n_class and n_indep must be given.")
        else:
            self.n_class, self.n_indep = n_class, n_indep
            if n_indep != f:
                _counts(f"Classification {name!r}", f, n_class, n_indep)
        self.threshold = self.n_indep == f

    def _make_output(self):
        self.output = C.classification(self.parent.output, self.n_indep, self.threshold, self.axis)

    def _calc_shape(self):
        self.shape = self.parent.shape.updateshape("f", self.n_indep)


class _Errors(Node):
    """Share of labelled elements with the wrong class. Inputs (b, n_indep, *L) and target, output (1,)."""

    def __init__(self, cls, target, target_is_sparse=False, name="errors", print_repr=True):
        super().__init__([cls, target], name, print_repr)
        self.target_is_sparse = bool(target_is_sparse)
        self.n_indep = cls.n_indep
        f = self.n_indep if target_is_sparse else self.n_indep * (1 if cls.threshold else cls.n_class)
        _check_target(self, cls, target, f)

    def _make_output(self):
        cls, target = self.parents
        sparse = self.target_is_sparse or cls.threshold
        axis = cls.shape.tag2index("f")
        self.output = C.error_rate(cls.output, target.output, cls.n_class, self.n_indep, sparse, axis)

    def _calc_shape(self):
        self.shape = TaggedShape((1,), "f")


def Errors(pred, target, target_is_sparse=False, n_class="auto", n_indep="auto", name="errors", print_repr=True):
    """Classification error: the share of elements whose predicted class differs from the target's, shape (1,).

    Unlabelled elements (ids below 0 or beyond the classes) do not count.

    ``pred``: a Softmax, a sigmoid layer or a Classification
    (which is made, under the name 'cls for errors', for the others).
    """
    cls = pred if isinstance(pred, Classification) else Classification(
        pred, n_class, n_indep, name="cls for errors", print_repr=False)
    return _Errors(cls, target, target_is_sparse, name=name, print_repr=print_repr)
