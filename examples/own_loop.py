"""Training without the pipeline: arrays of one's own, and a loop over ``model.trainingstep``.

    python examples/own_loop.py [--steps 300] [--out own_loop.mdl]

A small 2-D network learns to find discs in noise. Everything a loop of one's own needs is here: batches, updates, a
learning rate that changes, validation, a saved model, dense prediction.
"""
import argparse

import numpy as np

from elektronn2 import neuromancer as nm


def make_images(n, rng, size=64):
    """Images (n, 1, size, size) float32 and masks (n, 1, size, size) int16, 1 within a disc."""
    x, y = np.mgrid[:size, :size]
    centre_x, centre_y = rng.uniform(10, size - 10, (2, n, 4, 1, 1))
    radius = rng.uniform(4, 9, (n, 4, 1, 1))
    masks = ((x - centre_x) ** 2 + (y - centre_y) ** 2 < radius ** 2).any(1)[:, None]
    images = 0.5 * masks + rng.normal(0, 0.5, masks.shape)
    return images.astype(np.float32), masks.astype(np.int16)


def create_model():
    image = nm.Input((8, 1, 64, 64), "b,f,x,y", name="image")
    out = nm.Conv(image, 12, (5, 5), (2, 2))
    out = nm.Conv(out, 24, (5, 5))
    out = nm.Conv(out, 24, (3, 3))
    out = nm.Conv(out, 2, (1, 1), activation_func="lin")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target", dtype="int16")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, target, target_is_sparse=True), name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)
    model = nm.model_manager.getmodel()
    model.designate_nodes(image, target, loss, probs, [loss, errors, probs])
    return model


def targets(model, masks):
    """The part of the masks that the network predicts: from its offset on, every stride-th pixel."""
    shape = model.prediction_node.shape
    return masks[(..., *(slice(o, o + s * n, s) for o, s, n in zip(shape.offsets, shape.strides, shape.spatial_shape)))]


def main(steps=300, out=None):
    rng = np.random.default_rng(0)
    model = create_model()
    model.set_opt_meta_params("AdamW", {"lr": 3e-3, "mom": 0.9, "wd": 1e-4})
    test_images, test_masks = make_images(8, rng)
    for step in range(steps):
        images, masks = make_images(8, rng)
        model.lr = 3e-3 * (1 - step / steps)
        model.trainingstep(images, targets(model, masks), optimiser="AdamW")
        if step % 50 == 49:
            loss, error, _ = model.predict_ext(test_images, targets(model, test_masks))
            print(f"step {step + 1}: training loss {model.loss_smooth:.3f}, test loss {loss.item():.3f}, "
                  f"error {100 * error.item():.1f} %")
    dense = model.predict_dense(test_images[0], pad_raw=True)
    print(f"predicted at every pixel: {dense.shape}, wrong: {100 * np.mean((dense[1] > 0.5) != test_masks[0, 0]):.1f} %")
    if out:
        model.save(out)
    return error.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", help="model file to write")
    main(**vars(parser.parse_args()))
