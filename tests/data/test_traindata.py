"""Examples in memory: every one once in an epoch, the same from any thread; digits read, cut and checked."""
import gzip
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import elektronn2.data
from elektronn2 import neuromancer as nm
from elektronn2.data.sampling import generator
from elektronn2.data.traindata import Data, MNISTData, default_mnist_path, read_idx
from elektronn2.training.trainer import data_class

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array):
    """The bytes of an idx file, written down once more from its description."""
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def digits():
    """60 + 12 images of noise, so that each is known by any of its parts, and labels."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (60, 28, 28), np.uint8), rng.integers(0, 10, 60).astype(np.uint8),
            rng.integers(0, 256, (12, 28, 28), np.uint8), rng.integers(0, 10, 12).astype(np.uint8))


def write(folder, arrays, zipped=True):
    for name, array in zip((IMAGES, LABELS, TEST_IMAGES, TEST_LABELS), arrays):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("mnist"), digits())


def nodes(*shape, labels=(1,)):
    return (SimpleNamespace(shape=(None, *shape), name="raw"), SimpleNamespace(shape=(None, *labels), name="target"))


def mnist(path, **kwargs):
    size = 26 if kwargs.get("shift_augment", True) else 28
    shape = (1, size, size) if kwargs.get("convert2image", True) else (size * size,)
    return MNISTData(*nodes(*shape), path, **{"seed": 3, **kwargs})


def numbers(n=10, **kwargs):
    data = Data(**kwargs)
    data.train_d, data.train_l = np.arange(n), -np.arange(n)
    data.valid_d, data.valid_l = np.arange(100, 107), np.arange(7)
    return data


# -- the base class --------------------------------------------------------------------------------
@pytest.mark.parametrize("sizes", [[1] * 30, [3] * 10, [4, 1, 7, 2, 10, 6], [10] * 3, [30]])
def test_an_epoch_serves_every_example_once(sizes):
    data = numbers(seed=5)
    served = []
    for size in sizes:
        d, labels = data.getbatch(size)
        np.testing.assert_array_equal(labels, -d)
        served.extend(d.tolist())
    epochs = np.reshape(served, (3, 10))
    for k, epoch in enumerate(epochs):
        assert sorted(epoch) == list(range(10))
        np.testing.assert_array_equal(epoch, generator(5, k).permutation(10))
    assert len({tuple(e) for e in epochs}) == 3


def test_a_batch_depends_on_its_number_only():
    data = numbers(seed=5)
    in_order = [data.getbatch(3)[0].tolist() for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        mixed = dict(pool.map(lambda k: (k, numbers(seed=5).batch(k, 3)[0].tolist()), reversed(range(40))))
    assert [mixed[k] for k in range(40)] == in_order
    assert numbers(seed=6).batch(0, 10)[0].tolist() != numbers(seed=5).batch(0, 10)[0].tolist()
    assert data.batch(2**32 + 1, 3)[0].shape == (3,)


def test_without_a_seed_orders_differ():
    a, b = numbers(50), numbers(50)
    assert a.seed != b.seed and a.batch(0, 50)[0].tolist() != b.batch(0, 50)[0].tolist()
    assert numbers(50, seed=a.seed).batch(0, 50)[0].tolist() == a.batch(0, 50)[0].tolist()


def test_validation_serves_its_first_examples():
    data = numbers(seed=1)
    for got in (data.getbatch(3, "valid"), data.getbatch(3, "valid"), data.batch(7, 3, "valid")):
        assert got[0].tolist() == [100, 101, 102] and got[1].tolist() == [0, 1, 2]
    first = data.getbatch(3, "valid")[0]
    first[:] = 0  # what is served is the caller's
    assert data.getbatch(1, "valid")[0].tolist() == [100]
    assert data.getbatch(10)[0].tolist() == generator(1, 0).permutation(10).tolist()  # validation does not move training on


@pytest.mark.parametrize("call, match", [
    (lambda d: d.getbatch(1, "text"), "source must be"), (lambda d: d.getbatch(0), "batch_size"),
    (lambda d: d.getbatch(8, "valid"), "only 7 'valid'"), (lambda d: d.getbatch(1, "test"), "no 'test' examples.*test_d"),
])
def test_wrong_batches(call, match):
    with pytest.raises(ValueError, match=match):
        call(numbers())


def test_labels_must_match():
    data = numbers()
    data.train_l = np.arange(9)
    with pytest.raises(ValueError, match="10 'train' examples but 9 labels"):
        data.getbatch()


@pytest.mark.parametrize("seed, error", [(-1, ValueError), (2**63, ValueError), (0.5, TypeError)])
def test_wrong_seeds(seed, error):
    with pytest.raises(error):
        Data(seed=seed)


def test_number_of_classes():
    assert numbers(4).n_lab == 4
    assert numbers(4, n_lab=7).n_lab == 7


@pytest.mark.parametrize("n, n_folds", [(9, 3), (10, 3), (11, 4), (5, 5)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_folds_share_the_examples_out(n, n_folds, shuffle):
    x = np.arange(n)
    folds = []
    for k in range(n_folds):
        data = Data()
        parts = data.createCVSplit(x, -x, n_folds, k, shuffle, random_state=4)
        assert sorted([*data.train_d, *data.valid_d]) == x.tolist()
        np.testing.assert_array_equal(data.train_l, -data.train_d)
        np.testing.assert_array_equal(data.valid_l, -data.valid_d)
        for part, own in zip(parts, (data.train_d, data.train_l, data.valid_d, data.valid_l)):
            assert part is own
        folds.append(data.valid_d.tolist())
    served = np.concatenate(folds).tolist()
    assert sorted(served) == x.tolist()
    assert {len(f) for f in folds} <= {n // n_folds, n // n_folds + 1}
    assert (served == x.tolist()) is (not shuffle)


@pytest.mark.parametrize("kwargs, match", [
    (dict(n_folds=1), "n_folds"), (dict(n_folds=6), "n_folds"), (dict(use_fold=3), "use_fold"),
    (dict(use_fold=-1), "use_fold"), (dict(label=np.zeros(4)), "5 examples but 4 labels"),
])
def test_wrong_folds(kwargs, match):
    with pytest.raises(ValueError, match=match):
        Data().createCVSplit(**{"data": np.arange(5), "label": np.arange(5), **kwargs})


# -- digits ----------------------------------------------------------------------------------------
def test_splits(folder):
    x, y, test_x, test_y = digits()
    data = mnist(folder)
    assert data.n_lab == 10
    mean = x[:50].mean() / 255
    np.testing.assert_allclose(data.train_d[:, 0], x[:50] / 255 - mean, atol=1e-6)
    for source, images, labels in (("valid", x[50:], y[50:]), ("test", test_x, test_y)):
        got, got_labels = data.getbatch(len(images), source)
        assert got.dtype == np.float32 and got_labels.dtype == np.int16
        np.testing.assert_allclose(got, (images / 255 - mean)[:, None, 1:27, 1:27], atol=1e-6)
        np.testing.assert_array_equal(got_labels, labels[:, None])


def test_training_images_are_the_corners(folder):
    x, y = digits()[:2]
    crops = {x[k, r:r + 26, c:c + 26].tobytes(): (k, r, c) for k in range(50) for r in (0, 2) for c in (0, 2)}
    data = mnist(folder, center=False)
    served = []
    for _ in range(40):
        images, labels = data.getbatch(50)
        assert images.shape == (50, 1, 26, 26) and images.dtype == np.float32
        for image, label in zip(images, labels):
            served.append(crops[np.rint(image * 255).astype(np.uint8).tobytes()])
            assert label == y[served[-1][0]]
    assert len(set(served)) == 200
    counts = [sum(c[1:] == corner for c in served) for corner in ((0, 0), (0, 2), (2, 0), (2, 2))]
    assert min(counts) > 400  # of 2000


def test_corners_are_repeatable(folder):
    a, b = mnist(folder), mnist(folder)
    batches = [a.getbatch(7) for _ in range(10)]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda k: b.batch(k, 7), range(10)))
    for (x, y), (x2, y2) in zip(batches, again):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


def test_options(folder):
    x = digits()[0]
    whole = mnist(folder, shift_augment=False, center=False)
    images, _ = whole.getbatch(50)
    assert images.shape == (50, 1, 28, 28)
    np.testing.assert_allclose(images[:, 0] * 255, x[generator(3, 0).permutation(50)], atol=1e-4)
    for source in ("train", "valid", "test"):
        flat, images = (mnist(folder, convert2image=c).getbatch(4, source)[0] for c in (False, True))
        assert flat.shape == (4, 676)
        np.testing.assert_array_equal(flat, images.reshape(4, -1))
        assert mnist(folder, convert2image=False, shift_augment=False).getbatch(4, source)[0].shape == (4, 784)


def test_formats_agree(folder, tmp_path):
    x, y, test_x, test_y = digits()
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", digits(), zipped=False)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=test_x, y_test=test_y)
    wanted = mnist(folder).getbatch(12, "test")
    for path in (tmp_path / "plain", str(tmp_path / "mnist.npz")):
        for a, b in zip(mnist(path).getbatch(12, "test"), wanted):
            np.testing.assert_array_equal(a, b)


def test_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_mnist_path() == tmp_path / "elektronn2" / "mnist"
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/elektronn2/mnist.*python -m elektronn2\.data\.download mnist"):
        mnist(None)
    default_mnist_path().mkdir(parents=True)
    write(default_mnist_path(), digits())
    assert mnist(None).train_d.shape == (50, 1, 28, 28)


def test_it_trains_a_model(folder):
    """Shapes and dtypes are those that a model takes."""
    x = nm.Input((None, 1, 26, 26), "b,f,y,x", name="raw")
    probs = nm.Softmax(nm.Perceptron(x, 10, flatten=True, activation_func="lin"))
    target = nm.Input_like(probs, override_f=1, name="target")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, target, target_is_sparse=True))
    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=x, target_node=target, loss_node=loss, prediction_node=probs)
    batch = MNISTData(x, target, folder, seed=0).getbatch(10)
    model.set_opt_meta_params("Adam", dict(lr=1e-3))
    losses = [float(model.trainingstep(*batch, optimiser="Adam")[0]) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("shape, labels, kwargs, match", [
    ((1, 28, 28), (1,), {}, r"Node 'raw' .*28.*images .*26.*shift_augment"),
    ((1, 26, 26), (1,), dict(shift_augment=False), r"Node 'raw' .*26.*images .*28.*shift_augment"),
    ((784,), (1,), dict(shift_augment=False), "Node 'raw' .*convert2image"),
    ((3, 26, 26), (1,), {}, "Node 'raw'"), ((26, 26), (1,), {}, "Node 'raw'"),
    ((1, 26, 26), (10,), {}, "Node 'target' .*labels.*override_f"),
    ((1, 26, 26), (1,), dict(warp_on=True), "does not warp"),
])
def test_what_does_not_fit(folder, shape, labels, kwargs, match):
    with pytest.raises(ValueError, match=match):
        MNISTData(*nodes(*shape, labels=labels), folder, **kwargs)


def test_open_shapes_fit(folder):
    assert MNISTData(*nodes(1, None, 26), folder).getbatch()[0].shape == (1, 1, 26, 26)


# -- files -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0,), (70000,)])
def test_idx(tmp_path, shape):
    array = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "zipped").write_bytes(gzip.compress(idx(array)))
    for name in ("plain", "zipped"):
        np.testing.assert_array_equal(read_idx(tmp_path / name, len(shape)), array)


GOOD = idx(np.zeros((4, 3, 2), np.uint8))
GZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize("content, match", [
    (GOOD[:-1], r"24 values \(4, 3, 2\), but it holds 23"), (GOOD + b"x", "holds 25"), (b"", "begins with nothing"),
    (GOOD[:10], "no idx file"), (b"\0\0\x09" + GOOD[3:], "00000903 instead of 00000803"),
    (idx(np.zeros(9, np.uint8)), "3 axes"), (b"\0\1\x08" + GOOD[3:], "no idx file"),
    (GZIPPED[:-12], "cut short"), (GZIPPED[:12], "cut short"), (b"\x1f\x8bnonsense", "damaged"),
    (GZIPPED[:-5] + b"\0\1\2\3\4", "damaged"), (b"<html>404</html>" * 9, "3c68746d"),
])
def test_damaged_idx(tmp_path, content, match):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ValueError, match=match) as e:
        read_idx(tmp_path / "images", 3)
    assert str(tmp_path / "images") in str(e.value)


def test_missing_files(tmp_path):
    write(tmp_path, digits())
    (tmp_path / f"{LABELS}.gz").unlink()
    (tmp_path / f"{TEST_IMAGES}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {LABELS}, {TEST_IMAGES} .*download mnist"):
        mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="no MNIST digits in .*nowhere.*download mnist"):
        mnist(tmp_path / "nowhere")


def changed(k, array):
    arrays = list(digits())
    arrays[k] = array
    return arrays


@pytest.mark.parametrize("arrays, match", [
    (changed(0, np.zeros((60, 26, 28), np.uint8)), r"training images must be uint8 \(n, 28, 28\)"),
    (changed(1, np.zeros(59, np.uint8)), "training labels must be integers, one for each of the 60"),
    (changed(3, np.full(12, 10, np.uint8)), "test labels must be digits"),
    ([a[:5] for a in digits()], "at least 6"),
])
def test_files_that_do_not_belong_together(tmp_path, arrays, match):
    write(tmp_path, arrays)
    with pytest.raises(ValueError, match=match):
        mnist(tmp_path)


def test_swapped_files(tmp_path):
    x, y, test_x, test_y = digits()
    write(tmp_path, (y, x, test_x, test_y))
    with pytest.raises(ValueError, match="train-images.*right name"):
        mnist(tmp_path)


@pytest.mark.parametrize("name", ["mnist.pkl.gz", "mnist.pkl", "mnist.pickle"])
def test_a_pickle_is_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(ValueError, match="pickle.*any code.*download mnist"):
        mnist(tmp_path / name)


def test_damaged_npz(tmp_path):
    x, y, test_x, test_y = digits()
    np.savez(tmp_path / "objects.npz", x_train=x, y_train=np.array([{}] * 60, object), x_test=test_x, y_test=test_y)
    np.savez(tmp_path / "less.npz", x_train=x, y_train=y)
    np.savez(tmp_path / "floats.npz", x_train=x / 255, y_train=y, x_test=test_x, y_test=test_y)
    np.save(tmp_path / "array.npy", x)
    (tmp_path / "text.npz").write_text("not found")
    (tmp_path / "empty.npz").write_text("")
    whole = (tmp_path / "floats.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[:len(whole) // 2])
    for name, match in (("objects.npz", "as npz"), ("less.npz", "no array x_test, y_test"), ("floats.npz", "must be uint8"),
                        ("text.npz", "as npz"), ("empty.npz", "as npz"), ("short.npz", "as npz"), ("array.npy", "as npz")):
        with pytest.raises(ValueError, match=match):
            mnist(tmp_path / name)


# -- the package -----------------------------------------------------------------------------------
def test_names_of_the_package():
    for name in elektronn2.data.__all__:
        assert callable(getattr(elektronn2.data, name))
        assert name in dir(elektronn2.data)
    assert elektronn2.data.MNISTData is MNISTData
    with pytest.raises(AttributeError, match="Did you mean 'MNISTData'"):
        _ = elektronn2.data.MnistData
    for name, reason in (("AgentData", "traced neurites"), ("PianoData", "not public. Write a data class of your own")):
        with pytest.raises(AttributeError, match=f"{name} is left out on purpose: .*{reason}"):
            getattr(elektronn2.data, name)
        with pytest.raises(ValueError, match=f"data_class '{name}' is left out on purpose: .*{reason}"):
            data_class(name)


def test_the_package_imports_only_what_is_asked_for():
    code = ("import sys; import elektronn2.data.synthetic; assert 'elektronn2.data.cnndata' not in sys.modules\n"
            "assert 'elektronn2.data.traindata' not in sys.modules and 'torch' not in sys.modules\n"
            "from elektronn2.data import MNISTData\n"
            "assert 'elektronn2.data.cnndata' not in sys.modules and 'numba' not in sys.modules\n"
            "from elektronn2.data import *\n"
            "assert BatchCreatorImage.__module__ == 'elektronn2.data.cnndata' and 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
