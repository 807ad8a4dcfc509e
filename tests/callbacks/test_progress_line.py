import io
import math
import sys
import types

import pytest

from vhe_tf._utils import progress as status
from vhe_tf.callbacks import progress
from vhe_tf.distribute import make_strategy


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(status, "time", clock)
    monkeypatch.setitem(status._last_time, True, -math.inf)
    return clock


def test_time_left_is_of_the_whole_run_without_its_compilation(
    clock, monkeypatch, capsys
):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    line = progress.ProgressLine()
    line.set_model(
        types.SimpleNamespace(distribute_strategy=make_strategy("none"))
    )
    line.set_params({"epochs": 3, "steps": 10})

    def shown():
        return terminal.getvalue().rpartition("\033[K")[2].rstrip("\r")

    def epoch(index, first_step):
        line.on_epoch_begin(index)
        for batch in range(10):
            clock.now += first_step if batch == 0 else 2.0
            line.on_train_batch_end(batch, {"elbo": -90.0})
            if batch == 4:
                middle = shown()
        line.on_test_begin()
        assert shown() == f"epoch {index + 1}/3: validation"
        clock.now += 8.0
        line.on_epoch_end(index, {"elbo": -90.0, "val_elbo": -80.0})
        return middle

    # 25 steps of 2 s are left; the first one took a minute to compile.
    assert epoch(0, 60.0) == (
        "epoch 1/3 [=====.....] 5/10, 0.5 steps/s, 50 s left, elbo -90.00"
    )
    # 15 steps, and the ends of two epochs of 8 s.
    assert epoch(1, 2.0) == (
        "epoch 2/3 [=====.....] 5/10, 0.5 steps/s, 46 s left, elbo -90.00"
    )
    assert "epoch 2/3, 28 s: elbo -90, val_elbo -80" in capsys.readouterr().out
