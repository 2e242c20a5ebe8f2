"""Handwritten digits, 26x26 crops: a small 2-D network with batch normalisation, 142 k parameters.

``elektronn2-train mnist.py`` trains it; ``python mnist.py`` builds it, runs it once and draws its graph.
"""
from elektronn2 import neuromancer as nm

# the digits: python -m elektronn2.data.download mnist
data_path = None  # folder with the idx files; None: the cache folder

save_path = "~/elektronn2_training/"

data_class = "MNISTData"
background_processes = 2
data_init_kwargs = {"path": data_path}
data_batch_args = {}

n_steps = 30_000
max_runtime = 600  # seconds
history_freq = 500
monitor_batch_size = 20
optimiser = "Adam"
optimiser_params = {"lr": 2e-4, "mom": 0.9, "beta2": 0.99, "wd": 0.5e-3}
batch_size = 20


def create_model():
    inp = nm.Input((None, 1, 26, 26), "b,f,y,x", name="raw")

    out = nm.Conv(inp, 12, (3, 3), (2, 2), batch_normalisation="train")
    out = nm.Conv(out, 36, (3, 3), (2, 2), batch_normalisation="train")
    out = nm.Conv(out, 64, (3, 3), (1, 1), batch_normalisation="train")

    out = nm.Perceptron(out, 200, flatten=True)
    out = nm.Perceptron(out, 10, activation_func="lin")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target")
    loss = nm.MultinoulliNLL(probs, target, target_is_sparse=True, name="nll_")
    loss = nm.AggregateLoss(loss)
    errors = nm.Errors(probs, target, target_is_sparse=True)

    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=inp, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model


if __name__ == "__main__":
    import getpass
    import tempfile

    from elektronn2.utils.d3viz import visualise_model

    model = create_model()
    model.test_run_prediction()
    visualise_model(model, f"{tempfile.gettempdir()}/{getpass.getuser()}_mnist_model-graph")
