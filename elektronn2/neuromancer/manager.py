"""Models: which are open, which one is current, and the nodes that each one holds."""
import uuid
from collections import ChainMap
from contextlib import contextmanager
from numbers import Integral

from elektronn2.utils.validate import suggest


def choose_name(proposal, taken):
    """``proposal``, or with a number appended or raised until it is free.

    >>> choose_name('conv', {'conv', 'conv1'})
    'conv2'
    """
    stem = proposal.rstrip("0123456789")
    number = int(proposal[len(stem):] or 0)
    name = proposal
    while name in taken:
        number += 1
        name = f"{stem}{number}"
    return name


class GraphManager:
    """The nodes of one model, by name, in building order.

    ``model['conv']`` is a node, ``model[0]`` or ``model[:3]`` are taken from the list of nodes.
    """

    def __init__(self, name=""):
        self.name = name
        self.reset()

    def reset(self):
        """Forget all nodes."""
        self.nodes = {}
        self.arguments = {}
        self.splits = {}

    @property
    def taken(self):
        """Mapping whose keys are the names in use: of nodes and of splits."""
        return ChainMap(self.nodes, self.splits)

    def register_split(self, name, pieces):
        """Keep the name of a split, which has no node of its own, from being used again. ``pieces``: their names."""
        self.splits[name] = list(pieces)

    def register_node(self, node, arguments):
        """Hold a node and the arguments that it was made with."""
        self.nodes[node.name] = node
        self.arguments[node.name] = arguments

    def forget_from(self, n_nodes, mark):
        """Take back all nodes after the first ``n_nodes``, and what the graph holds from ``mark`` on."""
        for node in self[n_nodes:]:
            for parent in node.parents:
                parent.children.pop(node.name, None)
            self.forget_node(node.name)
        self.graph.erase_from(mark)

    def forget_node(self, name):
        self.nodes.pop(name, None)
        self.arguments.pop(name, None)

    def __getitem__(self, key):
        if isinstance(key, (Integral, slice)):
            return list(self.nodes.values())[key]
        if key not in self.nodes:
            raise KeyError(f"Model {self.name!r} has no node {key!r}.{suggest(key, self.nodes)}")
        return self.nodes[key]

    def __contains__(self, name):
        return name in self.nodes

    def __len__(self):
        return len(self.nodes)

    def __iter__(self):
        return iter(self.nodes)

    def __bool__(self):
        return True  # also while it is empty

    def __repr__(self):
        return repr(list(self.nodes))

    @property
    def node_count(self):
        return len(self.nodes)

    @property
    def sources(self):
        return [n for n in self.nodes.values() if n.is_source]

    @property
    def sinks(self):
        return [n for n in self.nodes.values() if not n.children]


class ModelContainer:
    """The open models; new nodes go to the current one.

    ``factory`` makes a model from a name; ``model.py`` sets it.
    """

    def __init__(self):
        self.models = {}
        self.current = self.last = None
        self.factory = GraphManager

    def _make_current(self, model):
        if model is not self.current:
            self.last, self.current = self.current, model
        return model

    def newmodel(self, name=None):
        """A new, empty, current model. ``None``: a random name. ValueError if the name is taken."""
        name = str(uuid.uuid4()) if name is None else name
        if name in self.models:
            raise ValueError(f"There is a model {name!r} already. Choose another name, or None for a random one.")
        self.models[name] = self.factory(name)
        return self._make_current(self.models[name])

    @contextmanager
    def trial(self, name=None, keep=False):
        """A new model (see :meth:`newmodel`) to build in, which is forgotten afterwards; with ``keep`` only if an error is
        raised. The models that were current and last before are so again."""
        previous = self.current, self.last
        model = self.newmodel(name)
        good = False
        try:
            yield model
            good = True
        finally:
            if not (keep and good):
                self.discard(model.name)
                self.current, self.last = previous

    def setdefault(self):
        """The model 'default', new and current. RuntimeError if it exists already."""
        if "default" in self.models:
            raise RuntimeError("The default model exists already; use newmodel(None) for another one.")
        return self.newmodel("default")

    def getmodel(self, *name):
        """The model of that name, made current; without a name the current one (made, if there is none)."""
        if len(name) > 1:
            raise ValueError(f"getmodel takes one name, got {name}.")
        if not name:
            if self.current is not None:
                return self.current
            return self._make_current(self.models["default"]) if "default" in self.models else self.setdefault()
        return self._make_current(self[name[0]])

    def togglemodel(self):
        """Make the model that was current before the current one."""
        if self.last is None:
            raise ValueError("There is no earlier model to toggle to.")
        return self._make_current(self.last)

    def discard(self, name):
        """Forget a model (its nodes stay usable for who holds them)."""
        model = self.models.pop(name)
        self.current = None if self.current is model else self.current
        self.last = None if self.last is model else self.last

    def __getitem__(self, name):
        if name not in self.models:
            raise KeyError(f"There is no model {name!r}.{suggest(name, self.models)} Open models: {list(self.models)}.")
        return self.models[name]

    def __repr__(self):
        return repr(list(self.models))


model_manager = ModelContainer()
