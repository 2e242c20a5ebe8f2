"""A very small U-Net for anisotropic data: 0.35 M parameters, patch 22x140x140 to 10x36x36.

``elektronn2-train unet3d_litelite.py`` trains it; ``python unet3d_litelite.py`` builds it, runs it once and draws its graph.
"""
from elektronn2 import neuromancer as nm

# real data: python -m elektronn2.data.download neuro_data_zxy; made data: python -m elektronn2.data.synthetic FOLDER
data_path = "~/neuro_data_zxy/"

save_path = "~/elektronn2_training/"
preview_data_path = data_path + "preview_cubes.h5"
preview_kwargs = {"export_class": [1], "max_z_pred": 3}  # the barrier class, 3 sections
initial_prev_h = 1.0  # hours until the first preview
prev_save_h = 1.0     # and between later ones

data_class = "BatchCreatorImage"
background_processes = 2
data_init_kwargs = {
    "d_path": data_path,
    "l_path": data_path,
    "d_files": [(f"raw_{i}.h5", "raw") for i in range(3)],
    "l_files": [(f"barrier_int16_{i}.h5", "lab") for i in range(3)],
    "aniso_factor": 2,     # voxels are twice as long in z
    "valid_cubes": [2],    # never trained on
}
data_batch_args = {
    "grey_augment_channels": [0],
    "warp": 0.1,
    "warp_args": {"sample_aniso": True, "perspective": True},
}

n_steps = 150_000
max_runtime = 1 * 24 * 3600  # seconds
history_freq = 200
monitor_batch_size = 30
optimiser = "AdamW"
optimiser_params = {"lr": 0.0012, "mom": 0.9, "beta2": 0.999, "wd": 0.5e-4}
schedules = {"lr": {"dec": 0.99}}  # every 1000 steps
batch_size = 1


def create_model():
    inp = nm.Input((None, 1, 22, 140, 140), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 20, (1, 3, 3))
    mid0 = nm.Conv(out, 20, (1, 3, 3))
    out = nm.Pool(mid0, (1, 2, 2))

    out = nm.Conv(out, 30, (1, 3, 3))
    mid1 = nm.Conv(out, 30, (1, 3, 3))
    out = nm.Pool(mid1, (1, 2, 2))

    out = nm.Conv(out, 35, (1, 3, 3))
    mid2 = nm.Conv(out, 35, (1, 3, 3))
    out = nm.Pool(mid2, (1, 2, 2))

    out = nm.Conv(out, 42, (3, 3, 3))
    out = nm.Pool(out, (1, 2, 2))
    out = nm.Conv(out, 42, (3, 3, 3))

    out = nm.UpConvMerge(mid2, out, 45)
    out = nm.Conv(out, 42, (1, 3, 3))
    out = nm.Conv(out, 42, (1, 3, 3))

    out = nm.UpConvMerge(mid1, out, 42)
    out = nm.Conv(out, 35, (3, 3, 3))
    out = nm.Conv(out, 35, (3, 3, 3))

    out = nm.UpConvMerge(mid0, out, 30)
    out = nm.Conv(out, 20, (3, 3, 3))
    out = nm.Conv(out, 20, (3, 3, 3))

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
    import getpass
    import tempfile

    from elektronn2.utils.d3viz import visualise_model

    model = create_model()
    model.test_run_prediction()
    visualise_model(model, f"{tempfile.gettempdir()}/{getpass.getuser()}_unet3d_litelite_model-graph")
