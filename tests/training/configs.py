"""A small experiment for tests: data, and a config file that trains on them within a second."""
import numpy as np

from elektronn2.utils.basic import h5save

CONFIG = '''
from elektronn2 import neuromancer as nm

save_path = {save_path!r}
save_name = "run"
data_class = "BatchCreatorImage"
data_init_kwargs = {{
    "d_path": {data!r}, "l_path": {data!r},
    "d_files": [("raw_%i.h5" % i, "raw") for i in range(3)],
    "l_files": [("lab_%i.h5" % i, "lab") for i in range(3)],
    "aniso_factor": 1, "valid_cubes": [2],
}}
data_batch_args = {{"grey_augment_channels": [0], "warp": 0.5}}
preview_data_path = ({data!r} + "/raw_2.h5", "raw")
preview_kwargs = {{"export_class": [1], "max_z_pred": 2}}
background_processes = 2
backupsrc = False
n_steps = 12
max_runtime = 600
history_freq = 5
monitor_batch_size = 2
optimiser = "AdamW"
optimiser_params = {{"lr": 1e-3, "mom": 0.9, "beta2": 0.999, "wd": 0.5e-4}}
schedules = {{"lr": {{"dec": 0.995}}}}
batch_size = 1
seed = 0


def create_model():
    image = nm.Input((None, 1, 5, 19, 19), "b,f,z,x,y", name="raw")
    conv2 = nm.Conv(image, 4, (1, 4, 4), (1, 2, 2), name="conv2")
    out = nm.Conv(conv2, 2, (3, 3, 3), activation_func="lin")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target")
    voxel_loss = nm.MultinoulliNLL(probs, target, target_is_sparse=True)
    loss = nm.AggregateLoss(voxel_loss, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)
    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=image, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model
'''


def write_data(folder, shape=(12, 36, 36), n=3):
    """Cubes whose label says whether the image is bright, as raw_i.h5:raw and lab_i.h5:lab."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        raw = rng.integers(0, 256, shape, np.uint8)
        h5save(raw, folder / f"raw_{i}.h5", "raw")
        h5save((raw > 128).astype(np.int16), folder / f"lab_{i}.h5", "lab")
    return folder


def write_config(folder, name="small.py", extra="", **replace):
    """The config in ``folder`` with its data in ``folder/data``; ``replace``: text -> text; ``extra`` is appended."""
    data = write_data(folder / "data")
    text = CONFIG.format(save_path=str(folder / "runs"), data=str(data))
    for old, new in replace.get("change", {}).items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text + extra)
    return path
