"""Barriers between neurites in anisotropic 3-D electron microscopy: 2.8 M parameters, field of view 15x105x105.

``python neuro3d.py`` builds the network, prints every node and runs it once.
"""
from elektronn2 import neuromancer as nm


def create_model():
    inp = nm.Input((None, 1, 23, 185, 185), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 20, (1, 6, 6), (1, 2, 2))
    out = nm.Conv(out, 30, (1, 5, 5), (1, 2, 2))
    out = nm.Conv(out, 40, (1, 5, 5))
    out = nm.Conv(out, 80, (4, 4, 4), (2, 1, 1))

    out = nm.Conv(out, 100, (3, 4, 4))
    out = nm.Conv(out, 100, (3, 4, 4))
    out = nm.Conv(out, 150, (2, 4, 4))
    out = nm.Conv(out, 200, (1, 4, 4))
    out = nm.Conv(out, 200, (1, 4, 4))

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
