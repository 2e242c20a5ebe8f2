"""Class probabilities, the classes chosen by them, and the likelihoods that they are trained with."""

from numbers import Real

from elektronn2.config import config
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.loss_checks import (
    SCALAR,
    SPARSE,
    check_ids_node,
    check_shape,
    check_target,
    checked_ids,
    expression,
    feature_axis,
    not_negative,
    weight_class,
    weighting_nodes,
    what,
)
from elektronn2.neuromancer.node import Node, all_or_nothing
from elektronn2.neuromancer.node_basic import FromTensor, check_features
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.utils.validate import as_int


def counts(node, f, n_class, n_indep):
    """n_class and n_indep with 'auto' resolved; n_class * n_indep must be the number of features."""
    n_indep = as_int(n_indep, f"n_indep of {what(node)}")
    if n_class == "auto":
        if f % n_indep:
            raise ValueError(f"{what(node)}: {f} features cannot be divided into n_indep={n_indep} blocks.")
        n_class = f // n_indep
    n_class = as_int(n_class, f"n_class of {what(node)}")
    if n_class * n_indep != f:
        raise ValueError(f"{what(node)}: n_class * n_indep must be the number of features, {n_class} * {n_indep} != {f}.")
    return n_class, n_indep


class Softmax(Node):
    """Softmax over the features, separately in ``n_indep`` consecutive blocks of ``n_class``.

    Input (b, f, *L) with linear activation, output (b, f, *L), each block positive with sum 1.
    ``n_class`` 'auto': f / n_indep.
    ValueError if the parent has another activation than 'lin' or the counts do not fit.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 4), 'b,f', print_repr=False), n_indep=2, print_repr=False)
    >>> p(np.log([[1, 3, 1, 1]]).astype('float32')).round(2)
    array([[0.25, 0.75, 0.5 , 0.5 ]], dtype=float32)
    """

    def __init__(self, parent, n_class="auto", n_indep=1, name="softmax", print_repr=True):
        super().__init__(parent, name, print_repr)
        activation = getattr(parent, "activation_func", "lin")
        if activation not in ("lin", "linear"):
            raise ValueError(f"Softmax {name!r}: its parent {parent.name!r} has activation {activation!r}; "
                             "make it with activation_func='lin'.")
        check_features(self, parent)
        self.axis = parent.shape.tag2index("f")
        self.n_class, self.n_indep = counts(self, parent.shape["f"], n_class, n_indep)

    def _make_output(self):
        self.output = C.softmax(self.parent.output, self.axis, self.n_indep)


def softmax_of(node):
    """(n_class, n_indep) of a Softmax, or of whole blocks that :func:`split` has cut out of one; None for other nodes."""
    if isinstance(node, Softmax):
        return node.n_class, node.n_indep
    blocks = softmax_of(node.parent) if isinstance(node, FromTensor) and node.piece else None
    if blocks is None or not node.shape.hastag("f"):
        return None
    axis, start, stop = node.piece
    n_class, n_indep = blocks
    if axis == node.parent.shape.tag2index("f"):
        if start % n_class or stop % n_class:
            return None
        n_indep = (stop - start) // n_class
    return n_class, n_indep


class Classification(Node):
    """Class ids: the largest probability of each block, or (for sigmoid features) probability > 0.5.

    Input (b, n_indep * n_class, *L), output (b, n_indep, *L) int64.
    """

    def __init__(self, pred, n_class="auto", n_indep="auto", name="cls", print_repr=True):
        super().__init__(pred, name, print_repr)
        self.axis = feature_axis(self, pred)
        f = pred.shape["f"]
        softmax = softmax_of(pred)
        if softmax is not None:
            self.n_class, self.n_indep = softmax
        elif getattr(pred, "activation_func", None) in ("sig", "logistic", "sigmoid"):
            self.n_class, self.n_indep = 2, f
        elif "auto" in (n_class, n_indep):
            raise ValueError(f"Classification {name!r}: {pred.name!r} is neither a Softmax nor has a sigmoid "
                             "activation, so n_class and n_indep must be given.")
        else:
            self.n_class, self.n_indep = (as_int(v, f"{key} of {what(self)}")
                                          for key, v in (("n_class", n_class), ("n_indep", n_indep)))
            if self.n_indep != f:
                counts(self, f, self.n_class, self.n_indep)
        self.threshold = self.n_indep == f

    def _make_output(self):
        self.output = L.classification(self.parent.output, self.n_indep, self.threshold, self.axis)

    def _calc_shape(self):
        self.shape = self.parent.shape.updateshape("f", self.n_indep)


class _Errors(Node):
    """Share of labelled elements with the wrong class. Inputs (b, n_indep, *L) and target, output (1,).

    ValueError if shapes do not fit, or (when computed) an id is n_class or above.
    """

    def __init__(self, cls, target, target_is_sparse=False, name="errors", print_repr=True):
        super().__init__([cls, target], name, print_repr)
        self.target_is_sparse = bool(target_is_sparse)
        self.n_indep = cls.n_indep
        f = self.n_indep if target_is_sparse else self.n_indep * (1 if cls.threshold else cls.n_class)
        check_target(self, cls, target, f, SPARSE if target_is_sparse else "")

    def _make_output(self):
        cls, target = self.parents
        sparse = self.target_is_sparse or cls.threshold
        axis = cls.shape.tag2index("f")
        ids = checked_ids(self, target, cls.n_class) if sparse else target.output
        self.output = L.error_rate(cls.output, ids, self.n_indep, sparse, axis)

    def _calc_shape(self):
        self.shape = SCALAR


def Errors(pred, target, target_is_sparse=False, n_class="auto", n_indep="auto", name="errors", print_repr=True):
    """Classification error: the share of elements whose predicted class differs from the target's, shape (1,).

    Unlabelled elements (negative ids; probabilities that are negative or NaN) do not count.

    ``pred``: a Softmax, a sigmoid layer or a Classification
    (which is made, under the name 'cls for errors', for the others). ValueError if shapes do not fit, or (when
    computed) an id is n_class or above. ``target``: class ids (b, n_indep, *L) if ``target_is_sparse``, else
    probabilities shaped like ``pred``. ``n_class``, ``n_indep``: needed only if ``pred`` is neither Softmax nor sigmoid.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 3), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> x = np.array([[[1, 1, 0], [0, 0, 1]]], 'float32')  # classes 0, 0, 1
    >>> nm.Errors(p, t, target_is_sparse=True, print_repr=False)(x, [[[0, 1, -1]]])  # right, wrong, unlabelled
    array([0.5], dtype=float32)
    """
    with all_or_nothing(pred):
        cls = pred if isinstance(pred, Classification) else Classification(
            pred, n_class, n_indep, name="cls for errors", print_repr=False)
        return _Errors(cls, target, target_is_sparse, name=name, print_repr=print_repr)


class OneHot(Node):
    """Class ids as vectors: 1 at the place of the id, 0 elsewhere; all 0 for negative ids.

    Input (b, 1, *L), output (b, n_class, *L) floating point; ``axis``: the letter of another axis of size 1.
    ValueError if that axis has another size, or (when computed) for ids from n_class on.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> t = nm.Input((3, 1), 'b,f', dtype='int16', print_repr=False)
    >>> nm.OneHot(t, 2, print_repr=False)([[1], [0], [-1]])
    array([[0., 1.],
           [1., 0.],
           [0., 0.]], dtype=float32)
    """

    def __init__(self, target, n_class, axis="f", name="onehot", print_repr=True):
        super().__init__(target, name, print_repr)
        self.n_class = as_int(n_class, f"n_class of {what(self)}")
        self.axis = check_ids_node(self, target, axis)

    def _make_output(self):
        ids = checked_ids(self, self.parents[0], self.n_class)
        self.output = L.one_hot(ids, self.n_class, self.axis, config.floatX)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape(self.axis, self.n_class)


class _ClassLoss(Node):
    """What the losses of class probabilities have in common: target, weights and masks.

    ``pred`` (b, n_indep * n_class, *L): a Softmax. ``target``: class ids (b, n_indep, *L) if ``target_is_sparse``, where
    negative ids are unlabelled, else probabilities shaped like ``pred``, where -1 and below, and NaN, are unlabelled.
    ``class_weights``: list, array or node, one factor per feature of ``pred``. ``example_weights``: node (b, *L).
    ``mask_class_labeled``: node (b, f), 0 ignores elements of that class. ``mask_class_not_present``: node (b, f),
    1 says that a class is certainly absent from the example, also where it is unlabelled.

    ValueError if ``pred`` is no Softmax, shapes do not fit, or (when computed) an id is n_class or above.
    """

    def __init__(self, pred, target, target_is_sparse=False, class_weights=None, example_weights=None,
                 mask_class_labeled=None, mask_class_not_present=None, name="loss", print_repr=True):
        weighting = dict(class_weights=class_weights, example_weights=example_weights,
                         mask_class_labeled=mask_class_labeled, mask_class_not_present=mask_class_not_present)
        extra = weighting_nodes(f"{type(self).__name__} {name!r}", **weighting)
        super().__init__([pred, target, *extra], name, print_repr)
        softmax = softmax_of(pred)
        if softmax is None:
            raise ValueError(f"{what(self)}: pred must be a Softmax node, or whole blocks of one cut out by split, got "
                             f"{type(pred).__name__} {pred.name!r}. Put one after it: nm.Softmax({pred.name}).")
        self.axis = feature_axis(self, pred)
        self.n_class, self.n_indep = softmax
        self.target_is_sparse = bool(target_is_sparse)
        f = pred.shape["f"]
        check_target(self, pred, target, self.n_indep if target_is_sparse else f, SPARSE if target_is_sparse else "")
        weight_class(self, class_weights, f, f"feature of {pred.name!r}")
        self.example_weights = example_weights
        self.mask_class_labeled, self.mask_class_not_present = mask_class_labeled, mask_class_not_present
        check_shape(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        for mask in ("mask_class_labeled", "mask_class_not_present"):
            check_shape(self, mask, getattr(self, mask),
                        TaggedShape((pred.shape["b"] if pred.shape.hastag("b") else 1, f), "b,f"))

    def _terms(self):
        """Arguments that the functions of all of these losses take."""
        pred, target = self.parents[:2]
        ids = checked_ids(self, target, self.n_class) if self.target_is_sparse else target.output
        names = ("class_weights", "example_weights", "mask_class_labeled", "mask_class_not_present")
        return dict(pred=pred.output, target=ids, **{k: expression(getattr(self, k)) for k in names},
                    n_class=self.n_class, n_indep=self.n_indep, sparse=self.target_is_sparse, axis=self.axis)


class MultinoulliNLL(_ClassLoss):
    """Negative log-likelihood of class probabilities; its mean is the mean per labelled element.

    ``pred`` (b, n_indep * n_class, *L): a Softmax, or whole blocks of one cut out by :func:`split`. ``target``: class ids
    (b, n_indep, *L) if ``target_is_sparse``, where negative ids are unlabelled, else probabilities shaped like ``pred``,
    where -1 and below, and NaN, are unlabelled. Output (b, 1, *L).

    ``class_weights``: list, array or node, one factor per feature of ``pred``. ``example_weights``: node (b, *L).
    ``weakness``: share of the target that is replaced by the prediction itself, at labelled elements.
    ``mask_class_labeled``: node (b, f), 0 ignores elements of that class. ``mask_class_not_present``: node (b, f),
    1 says that a class is certainly absent from the example.

    out = sum_f(-t * w * ln(pred + 1e-5)) * size / (n_labelled + 1e-5). ValueError if ``pred`` is no Softmax, shapes do
    not fit, or (when computed) an id is n_class or above: the wrong label file must not train in silence.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 3), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> nll = nm.MultinoulliNLL(p, t, target_is_sparse=True, print_repr=False)
    >>> nll(np.zeros((1, 2, 3), 'float32'), [[[0, 1, -1]]]).round(2)  # ln(2), times 3 / 2
    array([[[1.04, 1.04, 0.  ]]], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, class_weights=None, example_weights=None, weakness=0,
                 mask_class_labeled=None, mask_class_not_present=None, name="nll", print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        if not isinstance(weakness, Real) or not 0 <= weakness < 1:
            raise ValueError(f"{what(self)}: weakness must be a number in [0, 1), got {weakness!r}.")
        self.weakness = weakness

    def _make_output(self):
        self.output = L.multinoulli_nll(**self._terms(), weakness=self.weakness)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


class BlockedMultinoulliNLL(MultinoulliNLL):
    """Negative log-likelihood in which weaker foreground classes are not pushed down much by the strongest one.

    Before the likelihood is taken, the probability of each class from 1 on is raised to at least ``blocking_factor``
    (0 to 1) times the largest of these. Inputs (b, n_indep * n_class, *L) and target, output (b, 1, *L); everything
    else as in :class:`MultinoulliNLL`.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 3), 'b,f', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> nll = nm.BlockedMultinoulliNLL(p, t, target_is_sparse=True, print_repr=False)
    >>> nll(np.log([[0.2, 0.7, 0.1]]).astype('float32'), [[2]]).round(2)  # -ln(0.5 * 0.7)
    array([[1.05]], dtype=float32)
    """

    def __init__(self, pred, target, blocking_factor=0.5, target_is_sparse=False, class_weights=None,
                 example_weights=None, mask_class_labeled=None, mask_class_not_present=None, name="nll",
                 print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, 0, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        if not isinstance(blocking_factor, Real) or not 0 <= blocking_factor <= 1:
            raise ValueError(f"{what(self)}: blocking_factor must be a number in [0, 1], got {blocking_factor!r}.")
        self.blocking_factor = blocking_factor

    def _terms(self):
        terms = super()._terms()
        return dict(terms, pred=L.blocked(terms["pred"], self.blocking_factor, self.n_indep, self.axis))


class FocalLoss(MultinoulliNLL):
    """Negative log-likelihood that counts what is already predicted well less, by the factor (1 - pred) ** gamma.

    out = sum_f(-t * w * (1 - pred) ** gamma * ln(pred + 1e-5)) * size / (n_labelled + 1e-5)

    Inputs (b, n_indep * n_class, *L) and target, output (b, 1, *L); the mean is that per labelled element. ``gamma``:
    from 0 on, where 0 gives :class:`MultinoulliNLL`; the ``class_weights`` are the alpha of the paper. Everything else
    as in MultinoulliNLL. ValueError for a negative gamma.

    Lin et al. 2017, Focal loss for dense object detection, https://arxiv.org/abs/1708.02002

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 3), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.FocalLoss(p, t, target_is_sparse=True, print_repr=False)
    >>> x = np.array([[[0, 4, 0], [0, 0, 0]]], 'float32')
    >>> loss(x, [[[0, 0, -1]]]).round(3)  # undecided, sure, unlabelled
    array([[[0.26, 0.  , 0.  ]]], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, gamma=2.0, class_weights=None, example_weights=None,
                 mask_class_labeled=None, mask_class_not_present=None, name="focal", print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, 0, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        self.gamma = not_negative(self, gamma=gamma)

    def _make_output(self):
        self.output = L.multinoulli_nll(**self._terms(), gamma=self.gamma)
