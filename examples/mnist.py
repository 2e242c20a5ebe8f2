"""Handwritten digits, 26x26 crops: a small 2-D network with batch normalisation, 142 k parameters.

``python mnist.py`` builds the network, prints every node and runs it once.
"""
from elektronn2 import neuromancer as nm


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
    create_model().test_run_prediction()
