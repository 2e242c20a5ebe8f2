"""A smaller network for the task of neuro3d, for slow machines: field of view 5x39x39.

``python neuro3d_lite.py`` builds the network, prints every node and runs it once.
"""
from elektronn2 import neuromancer as nm


def create_model():
    inp = nm.Input((None, 1, 11, 155, 155), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 20, (1, 4, 4), (1, 2, 2))
    out = nm.Conv(out, 40, (3, 3, 3), (1, 2, 2))
    out = nm.Conv(out, 150, (2, 4, 4), (2, 1, 1))

    out = nm.Conv(out, 200, (1, 3, 3))
    out = nm.Conv(out, 200, (1, 3, 3))

    out = nm.Conv(out, 200, (1, 1, 1))
    out = nm.Conv(out, 2, (1, 1, 1), activation_func="lin")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target")
    loss_pix = nm.MultinoulliNLL(probs, target, target_is_sparse=True)
    loss = nm.AggregateLoss(loss_pix, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)

    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=inp, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model


if __name__ == "__main__":
    create_model().test_run_prediction()
