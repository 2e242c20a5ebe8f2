"""Schedules: against recorded traces of the first ELEKTRONN2, the formulas step by step, and from any step on."""
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.optimiser import DEFAULTS
from elektronn2.neuromancer.variables import ConstantParam, VariableParam
from elektronn2.training.schedule import Schedule

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "training" / "schedules.json").read_text())


def bound(value=0.1, **kwargs):
    target = SimpleNamespace(lr=value)
    schedule = Schedule(**kwargs)
    schedule.bind_variable(obj=target, prop_name="lr")
    return schedule, target


def trace(steps, value=0.1, **kwargs):
    schedule, target = bound(value, **kwargs)
    values = []
    for i in steps:
        schedule.update(i)
        values.append(target.lr)
    return values


def test_the_recorded_traces():
    """Not compared: 'lindec_uneven' never reached 0 and 'dec_and_updates' ignored the updates; see below."""
    for case in ("dec", "lindec", "updates", "updates_late"):
        schedule, target = bound(0.1, **ORACLE["defs"][case])
        recorded = {i: (value, following) for i, value, following in ORACLE["traces"][case]}
        for i in range(max(recorded) + 1):
            schedule.update(i)
            if i in recorded:
                value, following = recorded[i]
                assert target.lr == pytest.approx(value, rel=1e-12, abs=1e-15), (case, i)
                assert (schedule.next_update or -1) == following
    assert recorded[1000][0] == 0.1  # the last case: nothing before the first update


def test_lindec_reaches_zero_at_any_step():
    recorded = {i: value for i, value, _ in ORACLE["traces"]["lindec_uneven"]}
    ours = trace(range(4001), lindec=[3500, 0.1])
    assert all(ours[i] == pytest.approx(recorded[i]) for i in (1000, 2000, 3000))
    assert ours[3499] == ours[3000] > 0 and ours[3500] == ours[4000] == 0 and recorded[4000] > 0
    assert trace([500, 999, 1000], lindec=[700, 0.1]) == [0.1, 0, 0]
    assert trace([2000, 3000], lindec=[4000, 0.16]) == [pytest.approx(0.02), 0]  # not below 0
    assert trace([1000], [0.2, 0.4], lindec=[2000, 0.2]) == [pytest.approx([0.1, 0.3])]


def test_warmup_and_cosine_follow_their_formulas():
    steps = range(0, 260)
    for w, n in ((40, 200), (0, 200), (199, 200)):
        kinds = dict(cosine=n, **dict(warmup=w) if w else {})
        expected = [0.1 * (i / w if i < w else 0.5 + 0.5 * math.cos(math.pi * min(1, (i - w) / (n - w)))) for i in steps]
        np.testing.assert_allclose(trace(steps, **kinds), expected, atol=1e-15)
    assert trace(steps, cosine=200)[200:] == [0.0] * 60
    assert trace([0, 10, 20, 21], warmup=20) == [0, 0.05, 0.1, 0.1]
    assert trace([600, 1200, 2400], warmup=1200, dec=0.5) == [0.05, 0.05, 0.025]


RULES = [dict(dec=0.9), dict(lindec=[3500, 0.1]), dict(updates=[(0, 0.3), (700, 0.2), (3000, 0.01)]), dict(warmup=2500),
         dict(cosine=3600), dict(warmup=500, cosine=3600), dict(warmup=1500, dec=0.8)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_value_depends_on_the_step_alone(rule, rng):
    every = trace(range(4001), **rule)
    assert len(set(every)) > 2
    steps = np.sort(rng.integers(0, 4001, 60)).tolist()
    assert trace(steps, **rule) == [every[i] for i in steps]  # steps left out
    assert [trace([i], **rule)[0] for i in steps] == [every[i] for i in steps]  # a run that goes on there
    steps = rng.integers(0, 4001, 200).tolist()
    assert trace(steps, **rule) == [every[i] for i in steps]  # a run that goes back


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_run_goes_on_from_the_state(rule):
    for stop in (1, 650, 1700, 3990):
        (whole, a), (first, b) = bound(**rule), bound(**rule)
        for schedule, target in ((whole, a), (first, b)):
            for i in range(stop):
                schedule.update(i)
                if i == stop // 2:
                    target.lr *= 0.5  # by hand
        target.lr *= 0.7
        a.lr *= 0.7
        second, c = bound(5.0, **rule)
        second.set_state(json.loads(json.dumps(first.get_state())))
        c.lr = b.lr
        for i in range(stop, 4000):
            whole.update(i)
            second.update(i)
            assert a.lr == c.lr, i


def run(schedule, target, steps, by_hand):
    values = {}
    for i in steps:
        schedule.update(i)
        if i in by_hand:
            target.lr = by_hand[i]
        values[i] = target.lr
    return values


def test_values_set_by_hand_are_taken_over():
    v = run(*bound(dec=0.5), range(4001), {1500: 0.08, 2999: 0.4})
    assert [v[i] for i in (1000, 1999, 2000, 2999, 3000, 4000)] == [0.05, 0.08, 0.04, 0.4, 0.2, 0.1]
    v = run(*bound(lindec=[4000, 0.1]), range(4501), {500: 0.2, 4200: 0.3})
    assert [v[i] for i in (1000, 2000, 3000, 4000, 4500)] == pytest.approx([0.175, 0.15, 0.125, 0, 0.3])
    v = run(*bound(updates=[(100, 0.5), (200, 0.7)]), range(301), {50: 1.0, 150: 2.0, 250: 3.0})
    assert [v[i] for i in (99, 100, 199, 200, 300)] == [1.0, 0.5, 2.0, 0.7, 3.0]
    v = run(*bound(cosine=100), range(121), {50: 0.01, 110: 0.2})
    assert [v[i] for i in (49, 50, 75, 100, 120)] == pytest.approx(
        [0.05 * (1 + math.cos(math.pi * 0.49)), 0.01, 0.01 * (1 + math.cos(math.pi * 0.75)), 0, 0.2])
    v = run(*bound(warmup=100, cosine=200), range(201), {10: 0.04})  # it does not grow with the warm-up
    assert [v[i] for i in (9, 10, 11, 100, 150, 200)] == pytest.approx([0.009, 0.04, 0.04, 0.04, 0.02, 0])


def test_the_variables_of_a_model():
    x = nm.Input((2, 1, 8), "b,f,x")
    c = nm.Conv(x, 3, 3, dropout_rate=0.3)
    d = nm.Conv(c, 2, 3, dropout_rate=0.5, activation_func="lin")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=d)

    def bind(prop_name, **kwargs):
        schedule = Schedule(**kwargs)
        schedule.bind_variable(obj=model, prop_name=prop_name)
        return schedule

    model.lr = 0.2
    bind("lr", dec=0.5).update(1000)
    bind("dropout_rates", updates=[(10, [0.1, 0.2]), (20, 0.0)]).update(10)
    assert model.lr == 0.1 and model.dropout_rates == pytest.approx([0.1, 0.2])
    bind("dropout_rates", lindec=[3000, 0.15]).update(1000)
    assert model.dropout_rates == pytest.approx([0.05, 0.15])
    schedule = Schedule(warmup=4)
    schedule.bind_variable(variable_param=model.nontrainable_params[f"{c.name}_dropout_rate"])
    for i in (0, 1, 2):
        schedule.update(i)
    assert model.dropout_rates == pytest.approx([0.025, 0.15])
    assert schedule.get_state()["base"] == pytest.approx(0.05)  # float32 rounding is no change by hand

    with pytest.raises(ValueError, match=r"dropout_rates cannot set it to \[0.1\]: The model has 2 nodes"):
        bind("dropout_rates", updates=[(10, 0.1), (9000, [0.1])])
    with pytest.raises(ValueError, match=r"lr cannot set it to -0.1: .* at least 0"):
        bind("lr", updates=[(10, -0.1)])
    with pytest.raises(ValueError, match="changes nothing: the model has no gradnet_rates"):
        bind("gradnet_rates", dec=0.9)
    with pytest.raises(AttributeError, match="Model has no attribute 'dropout_rate'. Did you mean 'dropout_rates'"):
        bind("dropout_rate", dec=0.9)
    with pytest.raises(ValueError, match="is constant"):
        Schedule(dec=0.9).bind_variable(variable_param=ConstantParam(1.0, "w"))


def test_gradnet_rates():
    x = nm.Input((2, 1, 8), "b,f,x")
    a = nm.Conv(x, 3, 3, gradnet_mode="ind")
    nm.Conv(a, 2, 3, gradnet_mode="ind")
    model = nm.model_manager.getmodel()
    schedule = Schedule(lindec=[4000, 1.0])
    schedule.bind_variable(obj=model, prop_name="gradnet_rates")
    assert model.gradnet_rates == [1, 1]
    schedule.update(1000)
    assert model.gradnet_rates == [0.75, 0.75]


def test_hyper_parameters_and_mixing_of_a_model():
    x = nm.Input((2, 3), "b,f")
    loss = nm.AggregateLoss([nm.AggregateLoss(nm.Perceptron(x, 2)), nm.AggregateLoss(nm.Perceptron(x, 2))],
                            mixing_weights=[0.6, 0.4])
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, loss_node=loss)
    model.set_opt_meta_params("Adam", dict(lr=0.8, mom=0.8, wd=0.8, beta2=0.8, clip_value=0.8, clip_norm=0.8, ema=0.8))

    def bind(prop_name, **kwargs):
        schedule = Schedule(**kwargs)
        schedule.bind_variable(obj=model, prop_name=prop_name)
        return schedule
    for name in DEFAULTS.keys() - {"nesterov"}:
        bind(name, dec=0.5).update(1000)
        assert getattr(model, name) == 0.4
        bind(name, updates=[(10, 0.9)]).update(10)
        assert getattr(model, name) == 0.9
        if name in ("clip_value", "clip_norm", "ema"):
            with pytest.raises(ValueError, match=f"The schedule of {name} cannot set it to 0.0.*above 0"):
                bind(name, cosine=100)
            assert getattr(model, name) == 0.9
        else:
            bind(name, cosine=100).update(50)
            assert getattr(model, name) == pytest.approx(0.45)
    bind("nesterov", updates=[(5, True)]).update(5)
    bind("mixing", updates=[(5, [0.5, 0.5])]).update(5)
    assert model.nesterov and model.mixing == pytest.approx([0.5, 0.5])
    bind("mixing", warmup=10).update(4)
    assert model.mixing == pytest.approx([0.2, 0.2])


def test_categories():
    config = SimpleNamespace(optimiser="Adam")
    schedule = Schedule(updates=[(500, "SGD"), (900, "AdaGrad")])
    schedule.bind_variable(obj=config, prop_name="optimiser")
    seen = []
    for i in (0, 499, 500, 899, 950):
        schedule.update(i)
        seen.append(config.optimiser)
    assert seen == ["Adam", "Adam", "SGD", "SGD", "AdaGrad"]
    with pytest.raises(TypeError, match="optimiser is 'AdaGrad': only 'updates'"):
        Schedule(dec=0.9).bind_variable(obj=config, prop_name="optimiser")


@pytest.mark.parametrize("kwargs, error, message", [
    ({}, ValueError, "needs a kind: dec, lindec"),
    (dict(decc=0.9), ValueError, r"no kind of schedule 'decc'.* Did you mean 'dec'\?"),
    (dict(dec=0.9, updates=[(1500, 0.05)]), ValueError, "one rule, got dec and updates"),
    (dict(warmup=10, updates=[(1500, 0.05)]), ValueError, "'warmup' cannot be used with 'updates'"),
    (dict(warmup=10, lindec=[100, 1]), ValueError, "'warmup' cannot be used with 'lindec'"),
    (dict(warmup=100, cosine=100), ValueError, "cosine ends at step 100, before the warm-up of 100"),
    (dict(warmup=0), ValueError, "warmup must be at least 1 step, got 0"),
    (dict(cosine=1e4), TypeError, "cosine must be a whole number of steps, got 10000.0"),
    (dict(dec=0), ValueError, "dec must be a finite number above 0, got 0"),
    (dict(dec="0.9"), TypeError, "dec must be a number, got '0.9'"),
    (dict(dec=float("nan")), ValueError, "dec must be a finite number"),
    (dict(lindec=1000), ValueError, r"lindec must be \[number of steps, value\], got 1000"),
    (dict(lindec=[0, 0.1]), ValueError, "number of steps in lindec must be at least 1"),
    (dict(updates=[]), ValueError, "updates must be a list of pairs"),
    (dict(updates=[(10, 1), (5, 2)]), ValueError, r"ascending steps, got the steps \[10, 5\]"),
    (dict(updates=[(0.5, 1)]), ValueError, r"whole numbers of at least 0, got \[0.5\]"),
    (dict(updates=[0.5, 1]), ValueError, "pairs .* got 0.5"),
])
def test_what_makes_no_schedule(kwargs, error, message):
    with pytest.raises(error, match=message):
        Schedule(**kwargs)


def test_binding_errors_and_repr():
    schedule = Schedule(warmup=5, cosine=50)
    assert repr(schedule) == "<Schedule: warmup=5, cosine=50, next update at 0>"
    with pytest.raises(ValueError, match="no variable to update: call bind_variable"):
        schedule.update(0)
    with pytest.raises(TypeError, match="either variable_param, or obj and prop_name"):
        schedule.bind_variable(obj=schedule)
    p = VariableParam(2.0, "rate", apply_train=False)
    schedule.bind_variable(p)
    schedule.update(50)
    assert p.get_value() == 0 and repr(schedule) == "<Schedule of rate_noTrain: warmup=5, cosine=50, finished>"
