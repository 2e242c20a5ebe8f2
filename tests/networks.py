"""The documented networks, for tests."""
import importlib.util
from pathlib import Path

from elektronn2 import neuromancer

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name, nm=neuromancer):
    """A new model of a network in examples/, built through ``nm``."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.nm = nm
    return module.create_model()


class FewerFeatures:
    """``nm`` for the example networks, with layers of a fraction of the features, but of 5 where there are as many."""

    def __init__(self, factor):
        self.factor = factor

    def __getattr__(self, name):
        node = getattr(neuromancer, name)
        if name == "Conv":
            return lambda parent, n_f, *a, **k: node(parent, max(min(n_f, 5), n_f // self.factor), *a, **k)
        if name == "UpConvMerge":
            return lambda p, q, n_f, **k: node(p, q, max(min(n_f, 5), n_f // self.factor), **k)
        return node


def docs_cnn(nm=neuromancer):
    """The first network that users of the library meet."""
    image = nm.Input((10, 3, 23, 183, 183), "b,f,z,x,y", name="image")
    conv0 = nm.Conv(image, 32, (1, 6, 6), (1, 2, 2))
    conv1 = nm.Conv(conv0, 64, (4, 6, 6), (2, 2, 2))
    conv2 = nm.Conv(conv1, 5, (3, 3, 3), (1, 1, 1), activation_func="lin")
    class_probs = nm.Softmax(conv2)
    target = nm.Input_like(class_probs, override_f=1, name="target", dtype="int16")
    voxel_loss = nm.MultinoulliNLL(class_probs, target, target_is_sparse=True)
    scalar_loss = nm.AggregateLoss(voxel_loss, name="loss")
    errors = nm.Errors(class_probs, target, target_is_sparse=True)
    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=image, target_node=target, loss_node=scalar_loss, prediction_node=class_probs,
                          prediction_ext=[scalar_loss, errors, class_probs])
    return model
