"""Functions: cut out of the graph, compiled lazily, in two modes, with the settings of config."""
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer.function import Function, cut, resolve_device
from elektronn2.neuromancer.graphutils import getinput_for_multioutput, grad, make_func
from elektronn2.neuromancer.init import reseed


@pytest.fixture
def lines():
    """Messages of the library's log."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("elektronn2log")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def small_net(bn="train", dropout=0.0):
    x = nm.Input((2, 1, 8, 8), "b,f,x,y", name="x")
    h = nm.Conv(x, 4, (3, 3), (2, 2), batch_normalisation=bn, dropout_rate=dropout)
    out = nm.Conv(h, 2, (1, 1), activation_func="lin", name="out")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, target, target_is_sparse=True), name="loss")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, target, loss, probs, [loss, nm.Errors(probs, target, target_is_sparse=True), probs])
    return model


def batch(rng, model):
    return (rng.random(model.input_node.shape.shape, np.float32),
            rng.integers(0, 2, model.target_node.shape.shape).astype(np.float32))


# -- compiling --------------------------------------------------------------------------------------------
def test_nothing_is_compiled_before_the_first_call(lines):
    model = small_net()
    assert not any("Compiling" in m for m in lines)
    model["out"]()
    assert "Compiling out, inputs=[x]" in lines
    n = len(lines)
    model["out"](np.zeros((2, 1, 8, 8), np.float32))
    assert len(lines) == n, "the second call compiles nothing"


def test_a_function_is_only_what_its_outputs_need():
    model = small_net()
    module, inputs, params = cut([model["conv"].output])
    assert [i.node.name for i in inputs] == ["x"]
    assert {p.name for p in params} == {"conv_w", "conv_b", "conv_gamma", "conv_mean_noTrain", "conv_std_noTrain",
                                        "conv_init_weight_noTrain"}
    assert "softmax" not in module.code


def test_code_is_readable_python():
    code = small_net()["softmax"].output.code
    assert code.startswith("def forward(self, x)") and "computations_conv(" in code and "computations_softmax(" in code
    compile(code, "code", "exec")


def test_a_changed_setting_compiles_again(lines, rng):
    model = small_net(bn=False)
    x, _ = batch(rng, model)
    a = model.predict(x)
    config.precision = "bfloat16"
    b = model.predict(x)
    assert [m for m in lines if m.startswith("softmax: ")] == [
        "softmax: predict, eager on cpu, float32, channels_last, 5 operations, 0 generated kernels",
        "softmax: predict, eager on cpu, bfloat16, channels_last, 5 operations, 0 generated kernels"]
    assert b.dtype == np.float32 and 0 < np.abs(a - b).max() < 0.02


def test_memory_formats_agree(rng):
    model = small_net()
    x, _ = batch(rng, model)
    a = model.predict(x)
    config.memory_format = "contiguous"
    np.testing.assert_allclose(model.predict(x), a, atol=1e-6)


def test_float16_needs_cuda():
    model = small_net()
    config.precision = "float16"
    with pytest.raises(ValueError, match="bfloat16"):
        model.predict(np.zeros((2, 1, 8, 8), np.float32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_inductor_generates_kernels_and_agrees_with_eager(lines, rng):
    model = small_net()
    values = batch(rng, model)
    eager = [model.predict(values[0]), *model.gradients(*values), model.predict_ext(*values)[1]]
    config.compile_backend = "inductor"
    compiled = [model.predict(values[0]), *model.gradients(*values), model.predict_ext(*values)[1]]
    summary = model["softmax"].function().summary
    assert "inductor on cpu" in summary and int(summary.split(", ")[-1].split()[0]) > 0, lines
    for a, b in zip(eager, compiled):
        np.testing.assert_allclose(b, a, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_training_with_inductor_equals_eager(rng):
    results = {}
    for backend in ("eager", "inductor"):
        nm.model_manager.models.clear()
        nm.model_manager.current = None
        reseed(3)
        config.compile_backend = backend
        model = small_net()
        model.lr = 0.05
        values = batch(np.random.default_rng(5), model)
        losses = [model.trainingstep(*values, optimiser="SGD")[0] for _ in range(3)]
        summary = model.optimiser("SGD").function.summary
        assert f"train, {backend} on cpu" in summary
        assert (int(summary.split(", ")[-1].split()[0]) > 0) == (backend == "inductor")  # generated kernels
        results[backend] = [*losses, *model.get_param_values(as_list=True)]
    for a, b in zip(results["eager"], results["inductor"]):
        np.testing.assert_allclose(b, a, atol=1e-5)


WITHOUT_COMPILER = """
import numpy as np, torch._inductor.config as inductor
from elektronn2 import neuromancer as nm
from elektronn2.config import config
inductor.cpp.cxx = ("/nonexistent/compiler",)
inductor.force_disable_caches = True
y = nm.Conv(nm.Input((1, 1, 8, 8), "b,f,x,y"), 2, 3)
x = np.random.default_rng(0).random((1, 1, 8, 8)).astype("float32")
expected = y(x)
config.compile_backend = "inductor"
np.testing.assert_array_equal(y(x), expected)
"""


def test_without_a_compiler_it_says_so_and_computes():
    """In a process of its own, as inductor remembers that it found no compiler."""
    result = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, timeout=300)
    said = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 0, said
    assert "cannot be compiled by inductor" in said and "runs eagerly" in said and "eager on cpu" in said


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(rng):
    model = small_net()
    values = batch(rng, model)
    config.device, config.compile_backend = "cpu", "eager"
    cpu = [model.predict(values[0]), *model.gradients(*values)]
    config.device = "cuda"
    for backend in ("eager", "inductor"):
        config.compile_backend = backend
        gpu = [model.predict(values[0]), *model.gradients(*values)]
        for a, b in zip(cpu, gpu):
            np.testing.assert_allclose(b, a, atol=2e-3)


def test_devices():
    assert resolve_device(None) == resolve_device("cpu") == resolve_device("none") == "cpu"
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(ValueError, match="PyTorch can use 0 GPUs"):
            resolve_device("cuda:3")
    with pytest.raises(ValueError, match="is not a device"):
        resolve_device("gpu-one")


# -- modes --------------------------------------------------------------------------------------------------
def test_batch_normalisation_has_two_modes(rng):
    model = small_net()
    x, target = batch(rng, model)
    train, predict = (model["conv"](x, mode=m) for m in ("train", "predict"))
    assert np.abs(train - predict).max() > 1e-3
    before = model["conv"].mean.get_value()
    model.loss(x, target)
    model.gradients(x, target)
    assert np.array_equal(model["conv"].mean.get_value(), before), "only trainingstep updates the averages"
    model.lr = 0.0
    model.trainingstep(x, target)
    assert not np.array_equal(model["conv"].mean.get_value(), before)


def test_running_averages_predict_well_after_few_steps(rng):
    """With lr 0, after one step on the same batch, predict uses (nearly) the statistics of that batch."""
    model = small_net()
    values = batch(rng, model)
    model.lr = 0.0
    model.trainingstep(*values)
    np.testing.assert_allclose(model["conv"](values[0]), model["conv"](values[0], mode="train"), atol=2e-3)


def test_dropout_only_in_training(rng):
    model = small_net(bn=False, dropout=0.5)
    x, _ = batch(rng, model)
    assert np.array_equal(model.predict(x), model.predict(x))
    assert not np.array_equal(model["conv"](x, mode="train"), model["conv"](x, mode="train"))
    model.dropout_rates = 0.0
    assert np.array_equal(model["conv"](x, mode="train"), model["conv"](x))


# -- expressions ----------------------------------------------------------------------------------------------
def test_expressions_compute_with_operators_torch_and_params(rng):
    x = nm.Input((2, 3), "b,f", name="x")
    p = nm.VariableParam(np.arange(3.0), name="p")
    y = torch.tanh(x.output * 2 - p) + 1 / (1 + x.output ** 2)
    value = rng.random((2, 3), np.float32)
    expected = np.tanh(value * 2 - np.arange(3)) + 1 / (1 + value ** 2)
    f = make_func([x.output], y)
    np.testing.assert_allclose(f(value), expected, rtol=1e-6)
    p.set_value([0, 0, 0])
    np.testing.assert_allclose(f(value), np.tanh(value * 2) + 1 / (1 + value ** 2), rtol=1e-6)


def test_symbolic_gradient_and_updates_train_by_hand(rng):
    """Gradient descent written with grad and updates, against the same in numpy."""
    x = nm.Input((4, 3), "b,f", name="x")
    w = nm.VariableParam(np.ones(3), name="w")
    cost = ((x.output * w).sum(1) - 1).pow(2).mean()
    step = make_func([x.output], cost, updates={w: w - 0.1 * grad(cost, w)})
    value = rng.random((4, 3), np.float32)
    expected = np.ones(3)
    for _ in range(3):
        residual = value @ expected - 1
        np.testing.assert_allclose(step(value), np.mean(residual ** 2), rtol=1e-5)
        expected = expected - 0.1 * 2 * (residual[:, None] * value).mean(0)
        np.testing.assert_allclose(w.get_value(), expected, rtol=1e-5)


def test_gradient_with_respect_to_an_input(rng):
    x = nm.Input((2, 3), "b,f", name="x")
    f = make_func([x.output], grad((x.output ** 3).sum(), x.output))
    value = rng.random((2, 3), np.float32)
    np.testing.assert_allclose(f(value), 3 * value ** 2, rtol=1e-5)


def test_expressions_cannot_be_tested_or_looped():
    x = nm.Input((2, 3), "b,f", name="x").output
    with pytest.raises(TypeError, match=r"torch\.where"):
        bool(x > 0)
    with pytest.raises(TypeError, match="Index it"):
        list(x)
    with pytest.raises(RuntimeError, match="broadcast"):
        x + torch.zeros(2, 4)


def test_sources_of_several_nodes():
    model = small_net()
    assert [n.name for n in getinput_for_multioutput([model["softmax"], model["loss"]])] == ["x", "target"]


def test_intermediate_values_can_be_given(rng):
    model = small_net(bn=False)
    f = Function([model["conv"].output], model["out"].output)
    h = rng.random((2, 4, 3, 3), np.float32)
    w, b = model["out"].w.get_value()[:, :, 0, 0], model["out"].b.get_value()
    np.testing.assert_allclose(f(h), np.einsum("oc,bcxy->boxy", w, h) + b[:, None, None], atol=1e-6)


# -- bad input ----------------------------------------------------------------------------------------------
def test_wrong_number_of_inputs():
    model = small_net()
    with pytest.raises(TypeError, match=r"loss needs 2 inputs \(x, target\), but 1 were given"):
        model["loss"](np.zeros((2, 1, 8, 8), np.float32))


def test_wrong_shape_gives_a_table():
    with pytest.raises(TypeError, match=r"(?s)x: shape \(2, 1, 9, 8\) does not fit.*needed shape.*\(2, 1, 8, 8\)"):
        small_net().predict(np.zeros((2, 1, 9, 8), np.float32))


def test_dtypes_are_converted_only_without_loss():
    model = small_net()
    expected = model.predict(np.ones((2, 1, 8, 8), np.float32))
    for dtype in (np.uint8, np.int64, np.float64, bool):
        assert np.array_equal(model.predict(np.ones((2, 1, 8, 8), dtype)), expected)
    with pytest.raises(TypeError, match=r"float64 cannot be held by float32.*astype"):
        model.predict(np.full((2, 1, 8, 8), 0.1))
    with pytest.raises(TypeError, match="cannot be held"):
        model.predict(np.full((2, 1, 8, 8), 2 ** 24 + 1, np.int64))
    with pytest.raises(TypeError, match="cannot be held"):
        model.predict(np.full((2, 1, 8, 8), "a"))


def test_an_output_that_needs_more_inputs():
    model = small_net()
    with pytest.raises(ValueError, match=r"also depend on \['target'\]"):
        make_func([model["x"].output], model["loss"].output)(np.zeros((2, 1, 8, 8), np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_tensors_as_inputs(dtype):
    """Those of the input's dtype are taken where they are, not through the processor; others are converted as arrays are."""
    x = nm.Input((2, 3), "b,f", print_repr=False)
    double, tensor = make_func([x.output], x.output * 2), torch.arange(6).reshape(2, 3).to(dtype)
    given, = double.check([tensor])
    assert isinstance(given, torch.Tensor) == (dtype == torch.float32)
    assert not isinstance(given, torch.Tensor) or given.data_ptr() == tensor.data_ptr()
    np.testing.assert_array_equal(double(tensor), 2 * tensor.numpy())
    with pytest.raises(TypeError, match=r"(?s)shape \(3, 2\) does not fit.*" + str(dtype).removeprefix("torch.")):
        x(tensor.T)
