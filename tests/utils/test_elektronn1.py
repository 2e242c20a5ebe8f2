"""Parameters of ELEKTRONN 1: against true convolutions, and with what does not fit refused as a whole."""
import gzip
import pickle

import numpy as np
import pytest
import scipy.signal

from elektronn2 import neuromancer as nm
from elektronn2.errors import ModelFileError
from elektronn2.utils.legacy import create_cnn, load_params_into_model


def network():
    x = nm.Input((1, 2, 4, 8, 9), "b,f,z,x,y", name="image")
    probs = nm.Perceptron(nm.Conv(x, 3, (2, 3, 4), activation_func="tanh", name="conv"), 4, "lin", name="out")
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=probs)
    return nm.model_manager.getmodel()


@pytest.fixture
def weights(rng):
    """w and b of the two layers, with the axes of the time: n_f, z, f, x, y."""
    return [rng.normal(size=s).astype("float32") for s in ((3, 2, 2, 3, 4), (3,), (3, 4), (4,))]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_values(nested, protocol, weights, rng, tmp_path):
    """Predictions with the loaded weights, against scipy's true convolution of the weights in the file."""
    w, b, v, c = weights
    content = ["meta", *([[w, b], [v, c]] if nested else weights), {"pool": 1}]
    (tmp_path / "p.param").write_bytes(gzip.compress(pickle.dumps(content, protocol)))
    model = network()
    load_params_into_model(tmp_path / "p.param", model)
    image = rng.normal(size=(1, 2, 4, 8, 9)).astype("float32")
    y = [sum(scipy.signal.convolve(image[0, f], w[o, :, f], "valid") for f in range(2)) + b[o] for o in range(3)]
    wanted = np.einsum("fzxy,fo->ozxy", np.tanh(y), v) + c[:, None, None, None]
    np.testing.assert_allclose(model.predict(image)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change, error, message", [
    (lambda p: p[:3] + p[5:], ValueError, r"has 2 arrays, but the model has 2 nodes with w and b: \['conv', 'out'\]"),
    (lambda p: [*p[:3], p[3].T, *p[4:]], ValueError, r"w for node 'out' has shape \(4, 3\), the model needs \(3, 4\)"),
    (lambda p: [*p[:3], "w", *p[4:]], ModelFileError, "there is a str"),
    (lambda p: dict(a=1), ModelFileError, "a list of arrays"),
])
def test_mistakes_change_nothing(change, error, message, weights, tmp_path):
    (tmp_path / "p.param").write_bytes(pickle.dumps(change([None, *weights, None]), 2))
    model = network()
    before = model.get_param_values(as_list=True)
    with pytest.raises(error, match=message):
        load_params_into_model(tmp_path / "p.param", model)
    for a, b in zip(before, model.get_param_values(as_list=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.param").write_bytes(b"\x80\x02cos\nsystem\nU\x0atouch made\x85R.")
    with pytest.raises(ModelFileError, match=r"it would call os\.system"):
        load_params_into_model("p.param", network())
    assert not (tmp_path / "made").exists()
    with pytest.raises(FileNotFoundError, match=r"nothing\.param"):
        load_params_into_model("nothing.param", network())


def test_create_cnn():
    with pytest.raises(RuntimeError, match="does not exist any more"):
        create_cnn("config.py", 1)
