"""A U-Net for anisotropic data, mostly 2-D: 7.8 M parameters, patch 22x140x140 to 10x52x52.

``python unet3d_lite.py`` builds the network, prints every node and runs it once.
"""
from elektronn2 import neuromancer as nm


def create_model():
    inp = nm.Input((None, 1, 22, 140, 140), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 32, (1, 3, 3))
    mid0 = nm.Conv(out, 32, (1, 3, 3))
    out = nm.Pool(mid0, (1, 2, 2))

    out = nm.Conv(out, 64, (1, 3, 3))
    mid1 = nm.Conv(out, 64, (1, 3, 3))
    out = nm.Pool(mid1, (1, 2, 2))

    out = nm.Conv(out, 128, (1, 3, 3))
    mid2 = nm.Conv(out, 128, (1, 3, 3))
    out = nm.Pool(mid2, (1, 2, 2))

    out = nm.Conv(out, 256, (3, 3, 3))
    out = nm.Conv(out, 256, (3, 3, 3))

    out = nm.UpConvMerge(mid2, out, 512)
    out = nm.Conv(out, 256, (1, 3, 3))
    out = nm.Conv(out, 256, (1, 3, 3))

    out = nm.UpConvMerge(mid1, out, 256)
    out = nm.Conv(out, 128, (3, 3, 3))
    out = nm.Conv(out, 128, (3, 3, 3))

    out = nm.UpConvMerge(mid0, out, 128)
    out = nm.Conv(out, 64, (3, 3, 3))
    out = nm.Conv(out, 64, (3, 3, 3))

    barr = nm.Conv(out, 2, (1, 1, 1), activation_func="lin", name="barr")
    probs = nm.Softmax(barr)
    target = nm.Input_like(out, override_f=1, name="target")
    loss_pix = nm.MultinoulliNLL(probs, target, target_is_sparse=True, name="nll_barr")
    loss = nm.AggregateLoss(loss_pix, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)

    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=inp, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model


if __name__ == "__main__":
    create_model().test_run_prediction()
