"""Samples are functions of seed and number alone: whoever prepares them, in what order, from where on."""
import multiprocessing
import pickle

import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.synthetic import write_neuro_data
from elektronn2.training.parallelisation import BackgroundProc

OPTIONS = dict(batch_size=2, warp=0.5, grey_augment_channels=[0], nga_blur_noise_probability=0.3,
               blurry_blobs_probability=0.3)
SAMPLE_OPTIONS = {name: value for name, value in OPTIONS.items() if name != "batch_size"}
WAYS = [dict(n_proc=1), dict(n_proc=2), dict(n_proc=5), dict(n_proc=2, kind="processes", start_method="fork"),
        dict(n_proc=5, kind="processes", start_method="fork"), dict(n_proc=1, kind="processes", start_method="spawn")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_neuro_data(tmp_path_factory.mktemp("data"), (14, 48, 48), (10, 36, 36), 2, (4, 8, 8))


def data_set(folder, **options):
    image = nm.Input((2, 1, 5, 13, 13), "b,f,z,x,y")
    target = nm.Input_like(nm.Conv(image, 2, (3, 4, 4), (1, 2, 2)), override_f=1, dtype="int16")
    return BatchCreatorImage(image, target, folder, folder, [(f"raw_{i}.h5", "raw") for i in range(2)],
                             [(f"barrier_int16_{i}.h5", "lab") for i in range(2)], **{"seed": 7, **options})


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_any_workers_make_the_same_batches(way, stream, folder):
    """The reference makes each batch by itself, from a data set of its own, without any worker."""
    if way.get("start_method", "fork") not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot be started so here")
    if way.get("start_method") == "spawn" and not stream:
        pytest.skip("takes long; that volumes in memory can be copied is tested below")
    alone = data_set(folder)
    data = data_set(folder, h5stream=stream)
    data.batch(3, **OPTIONS)  # files are open, and read from, before they are shared
    batches = BackgroundProc(data.batch, target_kwargs=OPTIONS, first=0, **way)
    got = [batches.get(timeout=60) for _ in range(8)]
    batches.reset()
    got += [batches.get(timeout=60) for _ in range(2)]
    batches.shutdown()
    for k in (9, 0, 4, 5, 8, 2):  # in any order
        assert same(got[k], alone.batch(k, **OPTIONS))
        assert same([a[1] for a in got[k]], alone.sample(2 * k + 1, **SAMPLE_OPTIONS))
    assert not same(got[0], got[1])


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_can_be_copied_into_another_process(stream, folder):
    data = data_set(folder, h5stream=stream)
    copied = pickle.loads(pickle.dumps(data))
    assert same(copied.batch(2, **OPTIONS), data.batch(2, **OPTIONS)) and same(copied.getbatch(), data.getbatch())


def test_from_any_position_and_on_any_rank(folder):
    """A run that is taken up again, or shared between machines, asks for numbers; there is no state to be restored."""
    whole = data_set(folder)
    batches = [whole.getbatch(**OPTIONS) for _ in range(9)]
    later = BackgroundProc(data_set(folder).batch, n_proc=2, target_kwargs=OPTIONS, first=5)
    assert all(same(later.get(), batches[k]) for k in range(5, 9))
    later.shutdown()
    for rank in range(3):
        data = data_set(folder)
        for step in range(3):
            assert same(data.batch(3 * step + rank, **OPTIONS), batches[3 * step + rank])
