"""The Keras callback: the curve is that of a plain loop, and the model is as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", minversion="3", reason="keras is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of packages below Keras

import lrexp  # noqa: E402
from lrexp.integrations.attach import RisingLr  # noqa: E402
from lrexp.integrations.keras import LRFinder, LrSchedule, get_lr_scheduler  # noqa: E402

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 8)).astype("float32")
    return x, x.sum(1, keepdims=True)


@pytest.fixture
def make() -> Callable[..., Any]:
    def made(optimizer: Any = None) -> Any:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
        return model

    return made


def test_the_curve_is_that_of_a_loop_by_hand(data: Data, make: Callable[..., Any]) -> None:
    x, y = data
    finder, by_hand = LRFinder(1e-4, 1.0, steps=30), make()
    make().fit(x, y, batch_size=32, epochs=2, shuffle=False, callbacks=[finder], verbose=0)
    rising = RisingLr(1e-4, 1.0, 30)
    while not rising.is_over:
        place = len(rising.curve.lr) % 20 * 32
        by_hand.optimizer.learning_rate = rising.lr
        by_hand.reset_metrics()
        loss, _ = by_hand.train_on_batch(x[place : place + 32], y[place : place + 32])
        rising.observe(float(loss))
    (curve,) = finder.result.curves
    assert curve.lr == pytest.approx(rising.curve.lr)
    assert curve.loss == pytest.approx(rising.curve.loss, rel=1e-4)


def test_the_model_is_as_it_was(data: Data, make: Callable[..., Any]) -> None:
    x, y = data
    model = make(keras.optimizers.Adam(1e-4))
    model.fit(x, y, epochs=1, verbose=0)  # moments and iterations are there
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    finder = LRFinder(1e-6, 1.0, steps=50)
    model.fit(x, y, epochs=5, callbacks=[finder], verbose=0)
    for variable, value in zip(variables, before, strict=True):
        assert (keras.ops.convert_to_numpy(variable) == value).all()
    found = finder.get_optimal_lr()
    assert found is not None
    assert 1e-5 < found < 1
    assert finder.plot_loss().get_xscale() == "log"
    model.optimizer.learning_rate = found
    loss = model.evaluate(x, y, verbose=0)[0]
    assert model.fit(x, y, epochs=3, verbose=0).history["loss"][-1] < loss


def test_presets_and_schedules(make: Callable[..., Any], data: Data) -> None:
    plateau = get_lr_scheduler()
    found = (plateau.monitor, plateau.patience, plateau.factor, plateau.min_lr)
    assert found == ("val_loss", 2, 0.5, 1e-6)
    assert get_lr_scheduler(patience=7).patience == 7
    given = {"max_lr": 0.01, "min_lr": 1e-4, "warmup_steps": 5, "max_steps": 30}
    schedule = lrexp.get_lr_scheduler(**given, decay_type="cosine")
    made = LrSchedule(schedule, 30)
    again = LrSchedule.from_config(made.get_config())
    for step in (0, 4, 5, 17, 29):
        assert float(made(step)) == pytest.approx(schedule(step), rel=1e-6)
        assert float(again(step)) == float(made(step))
    model = make(keras.optimizers.SGD(made))
    model.fit(*data, batch_size=64, epochs=1, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(schedule(10), rel=1e-5)


def test_what_cannot_be_is_refused(data: Data, make: Callable[..., Any]) -> None:
    with pytest.raises(lrexp.ConfigError, match="has no result yet"):
        LRFinder().get_optimal_lr()
    with pytest.raises(lrexp.ConfigError, match="min_lr: must be below max_lr"):
        LRFinder(1.0, 0.1)
    model = make(keras.optimizers.SGD(LrSchedule(lambda step: 0.1, 3)))
    with pytest.raises(lrexp.ConfigError, match="must have a fixed LR"):
        model.fit(*data, epochs=1, callbacks=[LRFinder()], verbose=0)
