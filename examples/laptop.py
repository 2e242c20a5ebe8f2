"""Barriers between cells, for a laptop without a GPU: 0.1 M parameters, field of view 5x31x31, a few minutes.

``elektronn2-train laptop.py`` trains it, on synthetic volumes that are made at first; ``python laptop.py`` builds it,
runs it once and draws its graph; ``python demo.py`` trains, predicts a whole volume and draws the result.
"""
import os

from elektronn2 import neuromancer as nm
from elektronn2.data.synthetic import default_data_path, write_neuro_data

# the folder of your own raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5, or made volumes
data_path = os.environ.get("ELEKTRONN2_DATA") or write_neuro_data(default_data_path())

preview_data_path = (f"{data_path}/raw_2.h5", "raw")
preview_kwargs = {"export_class": [1], "max_z_pred": 2}
initial_prev_h = 0.02  # hours until the first preview
prev_save_h = 0.5

data_class = "BatchCreatorImage"
background_processes = 2
data_init_kwargs = {
    "d_path": data_path,
    "l_path": data_path,
    "d_files": [(f"raw_{i}.h5", "raw") for i in range(3)],
    "l_files": [(f"barrier_int16_{i}.h5", "lab") for i in range(3)],
    "aniso_factor": 2,
    "valid_cubes": [2],
}
data_batch_args = {
    "grey_augment_channels": [0],
    "warp": 0.2,
    "warp_args": {"sample_aniso": True, "warp_amount": 0.5},
}

n_steps = 1100
max_runtime = 3600  # seconds
history_freq = 100
monitor_batch_size = 4
optimiser = "AdamW"
optimiser_params = {"lr": 0.001, "mom": 0.9, "beta2": 0.999, "wd": 0.5e-4}
schedules = {"lr": {"cosine": n_steps}}
batch_size = 1


def create_model():
    inp = nm.Input((None, 1, 11, 107, 107), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 16, (1, 4, 4), (1, 2, 2))
    out = nm.Conv(out, 32, (3, 3, 3), (1, 2, 2))
    out = nm.Conv(out, 64, (3, 4, 4))
    out = nm.Conv(out, 64, (1, 3, 3))
    out = nm.Conv(out, 100, (1, 1, 1))
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
    import getpass
    import tempfile

    from elektronn2.utils.d3viz import visualise_model

    model = create_model()
    model.test_run_prediction()
    visualise_model(model, f"{tempfile.gettempdir()}/{getpass.getuser()}_laptop_model-graph")
