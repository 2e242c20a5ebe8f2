"""The config file: everything that is wrong is said at once, and no earlier run is lost."""
import logging
import tarfile

import numpy as np
import pytest
from configs import write_config

from elektronn2.config import config
from elektronn2.training.trainutils import ExperimentConfig, levenshtein

LOG = logging.getLogger("elektronn2log")


@pytest.fixture
def records():
    """Messages logged."""
    got = []

    class Keep(logging.Handler):
        def emit(self, record):
            got.append(record.getMessage())
    handler = Keep()
    LOG.addHandler(handler)
    yield got
    LOG.removeHandler(handler)


def test_values_defaults_and_folder(tmp_path, records):
    exp = ExperimentConfig(write_config(tmp_path), host_script_file=__file__)
    assert exp.n_steps == 12 and exp.model_load_args == {} and exp.class_weights is None
    assert callable(exp.create_model) and exp.namespace["nm"]
    assert config.seed == 0 and config.background_processes == 2
    folder = tmp_path / "runs" / "run"
    assert exp.save_path == str(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["0-run.log", "0-small.py", "Backup"]
    assert (folder / "0-small.py").read_text() == (tmp_path / "small.py").read_text()
    assert [p.name for p in (folder / "Backup").iterdir()] == ["test_trainutils.py"]
    assert any("CPU" in r or "GPU" in r for r in records)
    assert "CPU" in (folder / "0-run.log").read_text() or "GPU" in (folder / "0-run.log").read_text()


def test_source_is_kept(tmp_path):
    exp = ExperimentConfig(write_config(tmp_path, change={"backupsrc = False": "backupsrc = True"}))
    with tarfile.open(f"{exp.save_path}/Backup/src.tar.gz") as archive:
        assert "elektronn2/training/trainer.py" in archive.getnames()


def test_all_mistakes_are_reported_at_once(tmp_path):
    path = write_config(tmp_path, change={"n_steps = 12": "", "batch_size = 1": "bacth_size = 1",
                                          '"AdamW"': '"adam"', "seed = 0": "seed = -1",
                                          "max_runtime = 600": "max_runtime = None"})
    with pytest.raises(ValueError) as error:
        ExperimentConfig(path)
    message = str(error.value)
    for part in ("has 5 problems", "'n_steps' is required", "'bacth_size' is not a setting. Did you mean 'batch_size'?",
                 "'optimiser' must be one of", "Did you mean 'Adam'?", "config.seed must be an integer",
                 "'max_runtime' is required"):
        assert part in message, part
    assert not (tmp_path / "runs").exists()


def test_all_mistakes_in_a_dict_are_reported_at_once(tmp_path):
    path = write_config(tmp_path, change={'"lr": 1e-3': '"ema": 1, "clip_nrm": 1',
                                          '{"lr": {"dec": 0.995}}': '{"lr": 0.9, "mom": {"deck": 0.9}}'})
    with pytest.raises(ValueError) as error:
        ExperimentConfig(path)
    for part in ("has 5 problems", "'ema' must be a number", "no 'clip_nrm'", "rate, 'lr'", "'lr' must be a dict",
                 "Did you mean 'dec'"):
        assert part in str(error.value), part


@pytest.mark.parametrize("old, new, message", [
    ('"lr": 1e-3, ', "", "must hold the learning rate"),
    ('"lr": 1e-3', '"lr": "0.1"', "'lr' must be a number of at least 0, got '0.1'"),
    ('"beta2": 0.999', '"beta2": 5', "'beta2' must be a number of at least 0 and below 1"),
    ('"run"', '"a/b"', "'save_name' must be the name of a folder"), ('"run"', '".."', "'save_name' must be"),
    ('"run"', "7", "'save_name' must be"), ("max_runtime = 600", "max_runtime = True", "'max_runtime' must be a number"),
    ('{"lr": {"dec": 0.995}}', '{"lr": 0.9}', "'schedules': 'lr' must be a dict"),
    ('{"lr": {"dec": 0.995}}', '{"lr": {"deck": 0.9}}', "'schedules': 'lr'.*Did you mean 'dec'"),
    ("seed = 0", "class_weights = 'ab'", "'class_weights' must be a list of numbers"),
    ('"/raw_2.h5", "raw")', '"/raw_2.h5", "raw", 3)', "'preview_data_path' must be a path or"),
    ("batch_size = 1", "batch_size = 0", "'batch_size' must be an integer of at least 1; got 0"),
    ("history_freq = 5", "history_freq = 2.5", "'history_freq' must be an integer"),
    ('"beta2": 0.999', '"beta": 0.999', "'optimiser_params': AdamW has no 'beta'.*Did you mean 'beta2'"),
    ('"warp": 0.5', '"source": "train"', "must not hold \\['source'\\]"),
    ('"BatchCreatorImage"', "3", "'data_class' must be a name"),
    ('"BatchCreatorImage"', '("~/none.py", "A")', "'data_class': there is no file"),
    ('"/raw_2.h5", "raw")', '"/raw_2.h5", "rew")', "no data set 'rew'; available: \\['raw'\\]"),
    ('"/raw_2.h5", "raw")', '"/none.h5", "raw")', "'preview_data_path': there is no file"),
    ("def create_model", "def make_model", "One of 'create_model'"),
    ("schedules = {", "schedules = [] or {", None),
    ("data_batch_args = {", "data_batch_args = 7 or {", "'data_batch_args' must be a dict; got 7"),
])
def test_wrong_values(tmp_path, old, new, message):
    path = write_config(tmp_path, change={old: new})
    if message is None:
        ExperimentConfig(path)
        return
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(path)


def test_helpers_are_fine_and_unknown_names_are_warned_of(tmp_path, records):
    extra = "\nimport os\nsizes = [3, 4]\nn = sum(sizes)\nlength = n\ndef helper(): return n\n"
    ExperimentConfig(write_config(tmp_path, extra=extra))
    warned = [r for r in records if "unknown" in r]
    assert len(warned) == 1 and "'length'" in warned[0]


def test_names_of_the_first_version_are_accepted(tmp_path, records):
    extra = "\nlr_schedule = None\nwd_schedule = 3\nuse_manual_cudnn_conv = True\nparam_save_h = 2.0\n"
    ExperimentConfig(write_config(tmp_path, extra=extra))
    for name in ("wd_schedule", "use_manual_cudnn_conv", "param_save_h"):
        assert sum(repr(name) in r for r in records) <= 1
    assert any("'wd_schedule'" in r and "schedules = {'wd'" in r for r in records)


def test_comprehensions_and_functions_see_top_level_names(tmp_path):
    extra = "\nk = 4\nvalues = [k * i for i in range(3)]\ndef double(): return 2 * k\nn_steps = double() + values[1]\n"
    assert ExperimentConfig(write_config(tmp_path, extra=extra)).n_steps == 12


def test_a_module_beside_the_config_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "my_local_settings.py").write_text("steps = 77\n")
    monkeypatch.chdir("/")
    extra = "\nfrom my_local_settings import steps\nn_steps = steps\n"
    assert ExperimentConfig(write_config(tmp_path, extra=extra)).n_steps == 77


def test_an_existing_run_is_kept(tmp_path):
    path = write_config(tmp_path)
    first = ExperimentConfig(path)
    (tmp_path / "runs" / "run" / "precious").write_text("days of work")
    with pytest.raises(FileExistsError, match="overwrite = True"):
        ExperimentConfig(path)
    assert (tmp_path / "runs" / "run" / "precious").exists()
    ExperimentConfig(path, use_existing_dir=True)
    assert (tmp_path / "runs" / "run" / "precious").exists()
    path.write_text(path.read_text() + "\noverwrite = True\n")
    ExperimentConfig(path)
    assert not (tmp_path / "runs" / "run" / "precious").exists()
    assert first.save_path == str(tmp_path / "runs" / "run")


def test_overwrite_does_not_delete_what_is_no_run(tmp_path):
    path = write_config(tmp_path, extra="\noverwrite = True\n")
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="does not look like a training run"):
        ExperimentConfig(path)


def test_a_run_without_name_gets_one_with_the_time(tmp_path):
    exp = ExperimentConfig(write_config(tmp_path, change={'save_name = "run"\n': ""}))
    assert exp.save_name.startswith("small__") and len(exp.save_name) == len("small__26-01-31_12-00-00")


def test_no_permission(tmp_path):
    path = write_config(tmp_path)
    (tmp_path / "runs").write_text("a file, no folder")
    with pytest.raises(OSError, match="cannot be written.*save_path"):
        ExperimentConfig(path)
    with pytest.raises(FileNotFoundError, match="no config file"):
        ExperimentConfig(tmp_path / "none.py")


def test_a_config_that_raises_shows_its_line(tmp_path):
    path = write_config(tmp_path, extra="\nbroken = 1 / 0\n")
    with pytest.raises(ZeroDivisionError) as error:
        ExperimentConfig(path)
    assert error.traceback[-1].path.name == "small.py"


def test_live_settings(tmp_path):
    exp = ExperimentConfig(write_config(tmp_path))
    exp.history_freq = 7
    with pytest.raises(AttributeError, match="'save_name' is used when a run begins"):
        exp.save_name = "other"
    with pytest.raises(AttributeError, match="Did you mean 'history_freq'"):
        exp.histry_freq = 3
    with pytest.raises(ValueError, match="'n_steps' must be an integer"):
        exp.n_steps = "many"
    assert (exp.history_freq, exp.n_steps) == (7, 12)


def test_levenshtein():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        assert levenshtein(a, b) == slow(a, b)


def test_rc_file(tmp_path, records):
    from elektronn2.config import read_rc
    rc = tmp_path / "rc"
    rc.write_text("import os\nplot_on = False\nsave_path = '~/somewhere'\nwrong_name = 1\n")
    read_rc(rc)
    assert config.plot_on is False and not config.save_path.startswith("~") and config.save_path.endswith("/somewhere")
    assert any("'wrong_name'" in r for r in records)
    rc.write_text("plot_on = 3\n")
    with pytest.raises(RuntimeError, match="rc.*plot_on must be True or False"):
        read_rc(rc)
    read_rc(tmp_path / "none")
