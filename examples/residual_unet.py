"""Barriers between cells by a residual U-Net for thick sections: 0.1 M parameters, field of view 19x75x75.

``elektronn2-train residual_unet.py`` trains it, on synthetic volumes that are made at first; ``python residual_unet.py``
builds it, runs it once and draws its graph. Its convolutions keep the size of the patch, and it normalises each patch by its
own mean and variance. So tiles should be larger in prediction than in training, at best whole sections:
``elektronn2-predict ...-FINAL.mdl raw_2.h5:raw out.h5 --patch 40,200,200``.
"""
import os

from elektronn2 import neuromancer as nm
from elektronn2.data.synthetic import default_data_path, write_neuro_data

# the folder of your own raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5, or made volumes
data_path = os.environ.get("ELEKTRONN2_DATA") or write_neuro_data(default_data_path())

preview_data_path = (f"{data_path}/raw_2.h5", "raw")
preview_kwargs = {"export_class": [1], "max_z_pred": 2}
initial_prev_h = 0.05  # hours until the first preview
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

n_steps = 800
max_runtime = 3600  # seconds
history_freq = 100
monitor_batch_size = 4
optimiser = "AdamW"
optimiser_params = {"lr": 0.001, "mom": 0.9, "beta2": 0.999, "wd": 0.5e-4}
schedules = {"lr": {"cosine": n_steps}}
batch_size = 1


def create_model():
    raw = nm.Input((None, 1, 8, 96, 96), "b,f,z,x,y", name="raw")
    scores = nm.networks.residual_unet(raw, n_class=2, n_f=(10, 16, 24), filter_shape=[(1, 3, 3), (3, 3, 3), (3, 3, 3)],
                                       norm="instance")
    return nm.networks.classifier(scores)


if __name__ == "__main__":
    import getpass
    import tempfile

    from elektronn2.utils.d3viz import visualise_model

    model = create_model()
    model.test_run_prediction()
    visualise_model(model, f"{tempfile.gettempdir()}/{getpass.getuser()}_residual_unet_model-graph")
