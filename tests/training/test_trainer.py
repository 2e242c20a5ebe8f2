"""A whole run without a terminal: what it computes, what it writes, and how it ends."""
import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from configs import write_config
from matplotlib.image import imread

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer.dense import predict_dense
from elektronn2.scripts import train
from elektronn2.training import preview
from elektronn2.training.callbacks import prevalence
from elektronn2.training.trainer import Trainer
from elektronn2.training.trainutils import ExperimentConfig, loadhistorytracker
from elektronn2.utils.basic import as_float, h5load


def run(path, *arguments):
    return train.main([str(path), "--gpu=none", *arguments])


def test_a_run_and_its_files(tmp_path):
    assert run(write_config(tmp_path)) == 0
    folder = tmp_path / "runs" / "run"
    names = {p.name for p in folder.iterdir()}
    assert {"0-small.py", "0-run.log", "1-model-graph.png", "1-model-graph.html", "Batch_test_image.png", "run-LAST.mdl",
            "run-FINAL.mdl", "0-EVAL-needed", "0-run.timeline.png", "0-run.history.png"} <= names
    assert {p.name for p in (folder / "Backup").iterdir()} == {"train.py", "run.history.npz", "run.history.csv"}
    log = (folder / "0-run.log").read_text()
    assert [f"{i:05d}, L_m=" in log for i in (0, 5, 10, 12)] == [True, True, True, False]
    for part in ("Training of run ended after 12 steps", "train cubes", "LR=1.00e-03"):
        assert part in log, part
    history = loadhistorytracker(str(folder / "Backup" / "run.history.npz"))
    assert len(history.timeline) == 12 and list(history.history["steps"]) == [0, 5, 10]
    assert np.isfinite(history.timeline["loss"]).all()
    rows = list(csv.DictReader((folder / "Backup" / "run.history.csv").read_text().splitlines()))
    assert len(rows) == 3
    model = nm.model.modelload(folder / "run-FINAL.mdl")
    assert model.predict(np.zeros((1, 1, 5, 19, 19), "float32")).shape == (1, 2, 3, 6, 6)


def final_parameters(path):
    assert run(path) == 0
    model = nm.model.modelload(path.parent / "runs" / "run" / "run-FINAL.mdl")
    return model.get_param_values(as_list=True)


def test_the_result_does_not_depend_on_the_workers(tmp_path):
    """The same seed gives the same parameters, to the last bit, with no, two and five workers, and other monitoring."""
    results = []
    for i, (workers, kind, every) in enumerate(((False, "threads", 5), (2, "threads", 5), (5, "threads", 0),
                                                (2, "processes", 5))):
        folder = tmp_path / str(i)
        folder.mkdir()
        results.append(final_parameters(write_config(folder, change={
            "background_processes = 2": f"background_processes = {workers}\nbackground_kind = {kind!r}",
            "history_freq = 5": f"history_freq = {every}"})))
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def test_another_seed_is_another_run(tmp_path):
    results = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        results.append(final_parameters(write_config(folder, change={"seed = 0": f"seed = {seed}"})))
    assert any((a != b).any() for a, b in zip(*results))


def test_status_line(tmp_path):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    trainer.run()
    fields = trainer.status_line().split(", ")
    assert [f.split("=")[0] for f in fields[:-3]] == ["00012", "L_m", "L", "tr", "vl", "prev", "L_diff", "LR"]
    assert fields[-3].endswith(" it/s") and fields[-2].endswith(" MVx/s") and fields[-1].startswith("t=")
    assert fields[3].endswith("%") and 0 < float(fields[3][3:-1]) < 100


def test_schedules_snapshots_and_time(tmp_path):
    path = write_config(tmp_path, change={'{"lr": {"dec": 0.995}}': "{'lr': {'updates': [(4, 0.25)]}}",
                                          "seed = 0": "param_save_it = 6"})
    trainer = Trainer(ExperimentConfig(path))
    assert trainer.run() and trainer.model.lr == 0.25
    history = trainer.history_tracker.history
    assert list(history["lr"]) == pytest.approx([1e-3, 0.25, 0.25])
    assert {p.name for p in (trainer.save_path / "Backup").glob("*.mdl")} == {"run-0.006k.mdl", "run-0.012k.mdl"}
    assert trainer.t_passed > 0


def test_max_runtime_ends_a_run_as_meant(tmp_path):
    path = write_config(tmp_path, change={"n_steps = 12": "n_steps = 10**7", "max_runtime = 600": "max_runtime = 0.5"})
    assert run(path) == 0
    assert (tmp_path / "runs" / "run" / "run-FINAL.mdl").exists()


def test_schedules_of_every_hyper_parameter(tmp_path):
    text = """{'lr': {'warmup': 4}, 'mom': {'updates': [(3, 0.5)]}, 'wd': {'cosine': 24}, 'beta2': {'updates': [(3, 0.9)]},
              'clip_value': {'updates': [(3, 0.1), (5, None)]}, 'clip_norm': {'dec': 0.5},
              'ema': {'updates': [(3, 0.9)]}}"""
    path = write_config(tmp_path, change={'{"lr": {"dec": 0.995}}': text, '"wd": 0.5e-4': '"wd": 0.5e-4, "clip_norm": 2.0'})
    trainer = Trainer(ExperimentConfig(path))
    assert trainer.run()
    m = trainer.model
    assert (m.lr, m.mom, m.beta2, m.clip_value, m.ema) == (1e-3, 0.5, 0.9, None, 0.9) and m.averages
    assert m.wd == pytest.approx(0.25e-4) and m.clip_norm == 2


def test_unknown_schedule_and_batch_size(tmp_path):
    with pytest.raises(AttributeError, match="AdamW has no 'nesterov', only lr, mom, wd, clip_value, clip_norm, ema, beta2"):
        Trainer(ExperimentConfig(write_config(tmp_path, change={'{"lr": {"dec": 0.995}}':
                                                                "{'nesterov': {'updates': [(3, True)]}}"})))
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(AttributeError, match="no variable 'lrr'.*Did you mean 'lr'"):
        Trainer(ExperimentConfig(write_config(tmp_path, change={'{"lr": {': '{"lrr": {'})))
    folder = tmp_path / "b"
    folder.mkdir()
    with pytest.raises(ValueError, match="batch_size is 1 in the config but 2 in the model"):
        Trainer(ExperimentConfig(write_config(folder, change={"(None, 1, 5, 19, 19)": "(2, 1, 5, 19, 19)"})))
    folder = tmp_path / "c"
    folder.mkdir()
    with pytest.raises(ValueError, match="batch_size is required"):
        Trainer(ExperimentConfig(write_config(folder, change={"batch_size = 1": ""})))


def test_without_validation(tmp_path):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path, change={'"valid_cubes": [2]': '"valid_cubes": []'})))
    assert trainer.run()
    assert np.isnan(trainer.history_tracker.history["valid_loss"]).all()
    assert np.isfinite(trainer.history_tracker.history["train_loss"]).all()


BAD_DATA = '''
import numpy as np
class Data:
    def __init__(self, input_node, target_node, fail_at=3, value=1.0):
        self.count, self.fail_at, self.value = 0, fail_at, float(value)
        self.shapes = input_node.shape, target_node.shape
    def getbatch(self, batch_size=1, source="train", **kwargs):
        if source == "train":
            self.count += 1
        if self.count == self.fail_at:
            raise OSError("the disk is gone")
        rng = np.random.default_rng(self.count)
        shapes = [[batch_size, *s.shape[1:]] for s in self.shapes]
        return self.value * rng.random(shapes[0], "float32"), (rng.random(shapes[1]) > 0.5).astype("float32")
'''


def own_data(tmp_path, **kwargs):
    (tmp_path / "mydata.py").write_text(BAD_DATA)
    change = {'"BatchCreatorImage"': f'("{tmp_path}/mydata.py", "Data")', '"warp": 0.5': '"extra": 1'}
    return write_config(tmp_path, change=change, extra=f"\ndata_init_kwargs = {kwargs!r}\n")


@pytest.mark.parametrize("threads", [False, 2])
def test_a_data_class_of_ones_own(tmp_path, threads):
    assert run_with_threads(own_data(tmp_path, fail_at=-1), threads) == 0


def test_processes_need_batches_with_numbers(tmp_path, capsys):
    path = own_data(tmp_path)
    path.write_text(path.read_text() + "\nbackground_kind = 'processes'\n")
    assert run(path) == 1
    assert "Data has no method batch(number, ...): each process would make the same ones." in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_arguments_that_are_changed_in_a_pause_reach_the_workers(tmp_path, kind):
    path = write_config(tmp_path, extra=f"\nbackground_kind = {kind!r}\nhistory_freq = 0\nn_steps = 4\n")
    trainer = Trainer(ExperimentConfig(path))

    def interact():
        trainer.exp_config.data_batch_args.update(warp=0.0, grey_augment_channels=[])
        return True

    def spy(*batch, **kwargs):
        seen.append(batch)
        return step(*batch, **kwargs)
    before, seen, step = [trainer.make_batch(k) for k in range(4)], [], trainer.model.trainingstep
    trainer.model.trainingstep, trainer.terminal, trainer.shell = spy, True, SimpleNamespace(interact=interact)
    trainer.interrupted = True  # after the first step
    assert trainer.run()
    after = [trainer.make_batch(k) for k in range(4)]
    for got, wanted in zip(seen, before[:1] + after[1:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert not np.array_equal(before[2][0], after[2][0])


def test_validation_is_on_the_same_examples_every_time(tmp_path):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    seen = {"train": [], "valid": []}
    make_batch = trainer.make_batch

    def spy(number, source="train", size=None, **more):
        if size:
            seen[source].append(make_batch(number, source, size, **more)[0])
        return make_batch(number, source, size, **more)
    trainer.make_batch = spy
    assert trainer.run()
    assert len(seen["valid"]) == len(seen["train"]) == 3
    assert all(np.array_equal(seen["valid"][0], other) for other in seen["valid"])
    assert not np.array_equal(seen["train"][0], seen["train"][1])


def run_with_threads(path, threads):
    path.write_text(path.read_text() + f"\nbackground_processes = {threads}\nhistory_freq = 0\n")
    return run(path)


@pytest.mark.parametrize("threads", [False, 2])
def test_data_that_raise_end_the_run_with_a_message_and_a_model(tmp_path, threads, capsys):
    assert run_with_threads(own_data(tmp_path, fail_at=6), threads) == 1
    assert "OSError: the disk is gone" in capsys.readouterr().err
    folder = tmp_path / "runs" / "run"
    nm.model.modelload(folder / "Backup" / "run-stopped.mdl")
    assert not (folder / "run-FINAL.mdl").exists() and not (folder / "0-EVAL-needed").exists()
    assert "Traceback" in (folder / "0-run.log").read_text()


def test_nan_loss_without_a_terminal_stops(tmp_path, capsys):
    path = own_data(tmp_path, fail_at=-1, value="nan")
    assert run_with_threads(path, False) == 1
    said = capsys.readouterr().err
    assert "The loss became nan at step 1, which changed nothing" in said and "as there is no terminal to ask" in said
    assert "Not finite at first: node 'conv2' (" in said and "because of input 'raw' (" in said
    model = nm.model.modelload(tmp_path / "runs" / "run" / "Backup" / "run-stopped.mdl")
    assert all(np.isfinite(v).all() for v in model.get_param_values(as_list=True))


def test_broken_parameters_are_not_saved_over_good_ones(tmp_path, capsys):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    assert trainer.save("a.mdl")
    good = (trainer.save_path / "a.mdl").read_bytes()
    trainer.model["conv2"].params["w"].tensor.data.fill_(np.nan)
    assert not trainer.save("a.mdl") and (trainer.save_path / "a.mdl").read_bytes() == good
    said = capsys.readouterr().err
    assert "a.mdl could not be saved (ValueError: NaN or infinite weights in model" in said
    assert "parameter 'w' of node 'conv2' (64 of 64 values)" in said


def test_a_run_that_fails_before_its_first_step_leaves_its_name_free(tmp_path, capsys):
    path = write_config(tmp_path, change={'"warp": 0.5': '"warpp": 0.5'})
    assert run(path) == 1
    said = capsys.readouterr().err
    assert "Did you mean 'warp'?" in said and "Traceback" not in said
    assert not (tmp_path / "runs" / "run").exists()
    path.write_text(path.read_text().replace("warpp", "warp"))
    assert run(path) == 0


@pytest.mark.parametrize("change, message", [
    ({'"aniso_factor": 1': '"anisofactor": 1'}, "no argument 'anisofactor'.*Did you mean 'aniso_factor'"),
    ({'"export_class": [1]': '"export_clas": [1]'}, "preview_kwargs: there is no 'export_clas'.*'export_class'"),
    ({'"export_class": [1]': '"export_class": "9"'}, "channels 0 to 1"),
    ({'"max_z_pred": 2': '"max_z_pred": 0'}, "max_z_pred must be an integer of at least 1"),
    ({'"max_z_pred": 2': '"max_z_pred": 900'}, "needs 902 sections"),
    ({"def create_model": "model_load_args = {'a': 1}\ndef create_model"}, "create_model must take it"),
])
def test_mistakes_are_found_before_training(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Trainer(ExperimentConfig(write_config(tmp_path, change=change)))


def test_status_without_validation_and_with_unlabelled_targets(tmp_path):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path, change={'"valid_cubes": [2]': '"valid_cubes": []'})))
    trainer.run()
    assert "vl=nan%, prev=" in trainer.status_line()
    assert prevalence((None, np.array([[[1, -666, 0, -1, 1]]]))) == pytest.approx(2 / 3)
    assert np.isnan(prevalence((None, np.full((1, 1, 3), -1))))

def test_a_full_disk_does_not_end_training(tmp_path, monkeypatch, capsys):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    full = iter([True, True, False])  # at steps 5 and 10, not at the end

    def save(path, **_):
        if next(full):
            raise OSError("No space left on device")
        path.write_text("")
    monkeypatch.setattr(trainer.model, "save", save)
    monkeypatch.setattr(trainer.history_tracker, "save", lambda path: 1 / 0)
    assert trainer.run() and trainer.loop.step == 12
    said = capsys.readouterr().err
    assert said.count("run-LAST.mdl could not be saved (OSError: No space left on device). Training goes on.") == 2
    assert "The history could not be saved (ZeroDivisionError" in said
    with pytest.raises(RuntimeError, match=r"has run.*model_load_path is .*run/run-LAST.mdl"):
        trainer.run()


def test_a_disk_that_stays_full_fails_the_run(tmp_path, monkeypatch):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))

    def save(path, **_):
        raise OSError("No space left on device")
    monkeypatch.setattr(trainer.model, "save", save)
    assert not trainer.run()


def go_on(tmp_path, first, model, extra=""):
    """A trainer whose config is the first one's, but for the model that it goes on from."""
    text = first.read_text().replace('save_name = "run"', 'save_name = "second"')
    second = tmp_path / "second.py"
    second.write_text(text[:text.index("def create_model")] + f"\nmodel_load_path = {str(model)!r}\n{extra}")
    return Trainer(ExperimentConfig(second))


def test_going_on_from_a_model(tmp_path):
    first = write_config(tmp_path)
    assert run(first) == 0
    model = tmp_path / "runs" / "run" / "run-FINAL.mdl"
    trainer = go_on(tmp_path, first, model)
    for a, b in zip(trainer.model.get_param_values(as_list=True), nm.model.modelload(model).get_param_values(as_list=True)):
        np.testing.assert_array_equal(a, b)


def test_going_on_from_a_checkpoint(tmp_path, capsys):
    """7 steps of a run that goes on from the checkpoint of another, against the next batches by hand, and a run of 12."""
    change = {'"warp": 0.5': '"warp": 0.0', '"wd": 0.5e-4': '"wd": 0.5e-4, "ema": 0.8, "clip_norm": 0.1',
              '{"lr": {"dec": 0.995}}': "None"}
    first = write_config(tmp_path, change={**change, "n_steps = 12": "n_steps = 5"})
    assert run(first) == 0
    folder = tmp_path / "runs" / "run"
    trainer = go_on(tmp_path, first, folder / "run-LAST.mdl", "n_steps = 7")
    assert "AdamW goes on after 5 steps" in capsys.readouterr().err
    model = nm.model.modelload(folder / "run-LAST.mdl")
    batches = [trainer.make_batch(i) for i in range(5, 12)]  # those that the first run has not seen
    assert trainer.run()
    for batch in batches:
        model.trainingstep(*batch, optimiser="AdamW")
    assert trainer.model.iterations == model.iterations == 12 and trainer.model.optimiser("AdamW").t == 12
    for a, b in zip(trainer.model.get_param_values(as_list=True), model.get_param_values(as_list=True), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "whole").mkdir()
    whole = final_parameters(write_config(tmp_path / "whole", change=change))
    for a, b in zip(trainer.model.get_param_values(as_list=True), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = go_on(tmp_path, first, folder / "run-FINAL.mdl", "save_name = 'third'")
    assert not fresh.model.used_optimisers and not fresh.model.averages, "the final model has no state"
    changed = go_on(tmp_path, first, folder / "run-LAST.mdl", "save_name = 'fourth'\noptimiser_params = {'lr': 0.5}")
    assert (changed.model.lr, changed.model.wd, changed.model.ema) == (0.5, 0.0, None), "the config says what holds"


def test_averaged_weights_are_saved_and_validated_with(tmp_path):
    change = {'"wd": 0.5e-4': '"wd": 0.5e-4, "ema": 0.9', "1e-3": "0.05"}
    trainer = Trainer(ExperimentConfig(write_config(tmp_path, change=change)))
    seen = []
    predict_ext = trainer.model.predict_ext

    def spy(*arrays, **kwargs):
        seen.append(trainer.model.averages.active)
        return predict_ext(*arrays, **kwargs)
    trainer.model.predict_ext = spy
    assert trainer.run()
    n = len(seen) // 3  # measured before the first step, and after 5 and 10
    assert not any(seen[:n]) and all(seen[n:]) and n > 0
    folder, x = trainer.save_path, np.random.default_rng(0).random((1, 1, 5, 19, 19), np.float32)
    averaged, last = (nm.model.modelload(folder / f"run-{name}.mdl").predict(x) for name in ("FINAL-ema", "FINAL"))
    with trainer.model.averaged_weights():
        np.testing.assert_array_equal(averaged, trainer.model.predict(x))
    np.testing.assert_array_equal(last, trainer.model.predict(x))
    assert np.abs(averaged - last).max() > 1e-3
    checkpoint = nm.model.modelload(folder / "run-LAST.mdl")
    with checkpoint.averaged_weights():
        np.testing.assert_array_equal(nm.model.modelload(folder / "run-LAST-ema.mdl").predict(x), checkpoint.predict(x))


def test_create_model_with_arguments_and_at_top_level(tmp_path):
    path = write_config(tmp_path, change={"def create_model():": "def create_model(args):\n    assert args == {'a': 3}"},
                        extra="\nmodel_load_args = {'a': 3}\n")
    assert run(path) == 0
    folder = tmp_path / "top"
    folder.mkdir()
    path = write_config(folder)
    text = path.read_text()
    head, body = text.split("def create_model():\n")
    body = "\n".join(line[4:] for line in body.split("\n") if "return model" not in line)
    path.write_text(head + body)
    trainer = Trainer(ExperimentConfig(path))
    assert trainer.model is trainer.exp_config.namespace["model"] and trainer.run()


def test_class_weights_reach_the_loss(tmp_path):
    change = {"voxel_loss = nm.MultinoulliNLL(probs, target, target_is_sparse=True)":
              "weights = nm.Input((2,), 'f', name='weights')\n"
              "    voxel_loss = nm.MultinoulliNLL(probs, target, target_is_sparse=True, class_weights=weights)"}
    path = write_config(tmp_path, change=change, extra="\nclass_weights = [1.0, 3.0]\n")
    trainer = Trainer(ExperimentConfig(path))
    batch = trainer.make_batch(0)
    assert len(batch) == 3 and list(batch[2]) == [1.0, 3.0]
    assert trainer.run()


def test_debug_outputs_are_recorded(tmp_path):
    path = write_config(tmp_path, change={"prediction_ext=[loss, errors, probs])":
                                          "prediction_ext=[loss, errors, probs], debug_outputs=[voxel_loss])"})
    trainer = Trainer(ExperimentConfig(path))
    assert trainer.run()
    assert len(trainer.history_tracker.debug_outputs) == 12


def test_preview_shows_the_same_part_of_raw_and_prediction(tmp_path):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    trainer.preview_slice(number=1.5, export_class="1", max_z_pred=3)
    raw = h5load(tmp_path / "data" / "raw_2.h5", "raw")
    node = trainer.model.prediction_node
    dense = predict_dense(node, raw[None], progress=False)[1]
    names = sorted(p.name for p in trainer.save_path.glob("run-*.png"))
    assert names == [f"run-pred-0-z{i}-c1-1.5hrs.png" for i in range(3)] + [f"run-raw-0-z{i}.png" for i in range(3)]
    z0 = (len(raw) - 5) // 2  # 5 raw sections give 3 predicted ones
    fov = node.shape.fov
    first = z0  # the dense prediction of the whole starts at fov // 2 = 1
    for i in range(3):
        shown = imread(trainer.save_path / f"run-pred-0-z{i}-c1-1.5hrs.png")[..., 0].T
        np.testing.assert_allclose(shown, dense[first + i], atol=1 / 254)
        image = imread(trainer.save_path / f"run-raw-0-z{i}.png")[..., 0].T
        half = (fov[1] - 1) // 2
        part = as_float(raw[z0 + 1 + i, half:half + image.shape[0], half:half + image.shape[1]])
        np.testing.assert_allclose(image, part, atol=1 / 254)
    assert image.shape == dense[0].shape


@pytest.mark.parametrize("kwargs, message", [
    (dict(max_z_pred=11), "needs 13 sections for 11"), (dict(export_class=[2]), "0 to 1"),
    (dict(export_class="x"), "export_class must be"), (dict(export_class="malis"), "channels 0, 2 and 4")])
def test_wrong_previews(tmp_path, kwargs, message):
    trainer = Trainer(ExperimentConfig(write_config(tmp_path)))
    with pytest.raises(ValueError, match=message):
        trainer.preview_slice(**kwargs)
    trainer.exp_config.preview_kwargs = kwargs
    trainer.try_preview()  # does not raise


def test_previews_come_when_due(tmp_path):
    path = write_config(tmp_path, extra="\ninitial_prev_h = 0.0\nprev_save_h = 1000\n")
    trainer = Trainer(ExperimentConfig(path))
    trainer.run()
    assert len(list(trainer.save_path.glob("run-pred-*"))) == 2  # one preview of two sections


def test_channels():
    assert preview.wanted_channels("all", 3) == [0, 1, 2]
    assert preview.wanted_channels(1, 3) == preview.wanted_channels([1], 3) == preview.wanted_channels("1", 3) == [1]


def test_two_dimensional_networks(tmp_path):
    change = {'(None, 1, 5, 19, 19), "b,f,z,x,y"': '(None, 1, 19, 19), "b,f,x,y"',
              "(1, 4, 4), (1, 2, 2)": "(4, 4), (2, 2)", "(3, 3, 3)": "(3, 3)"}
    trainer = Trainer(ExperimentConfig(write_config(tmp_path, change=change)))
    assert trainer.debug_getcnnbatch()[0].shape == (1, 1, 19, 19)
    assert trainer.run()
    trainer.preview_slice(max_z_pred=2)
    assert len(list(trainer.save_path.glob("run-pred-0-z*-c1-*"))) == 2


def test_wrong_arguments_end_with_status_2(tmp_path, capsys):
    assert train.main([str(tmp_path / "none.py")]) == 2
    assert "no config file" in capsys.readouterr().err
    path = write_config(tmp_path)
    assert train.main([str(path), "--gpu=99"]) == 2
    assert "There is no GPU 99" in capsys.readouterr().err
    assert run(path) == 0 and run(path) == 2
    assert "overwrite = True" in capsys.readouterr().err


def test_settings_of_the_library_can_stand_in_the_config(tmp_path):
    Trainer(ExperimentConfig(write_config(tmp_path, extra="\nprecision = 'bfloat16'\nplot_on = False\n")))
    assert config.precision == "bfloat16" and config.plot_on is False
