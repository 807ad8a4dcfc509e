import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from vhe_tf.callbacks import Preemption
from vhe_tf.errors import StoppedOnRequest


@contextlib.contextmanager
def listening():
    stop = Preemption()
    stop.open()
    try:
        yield stop
    finally:
        stop.close()


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_a_request_is_seen_and_kills_nothing():
    with listening() as stop:
        assert not stop.requested
        ask()
        assert stop.requested
        ask()
        assert stop.requested


def test_the_first_ctrl_c_is_a_request_and_the_second_interrupts():
    def ask_again():
        ask(signal.SIGINT)

    with listening() as stop:
        ask(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            ask_again()


def test_on_a_terminal_the_first_ctrl_c_is_answered_at_once(monkeypatch, capfd):
    monkeypatch.setattr(os, "isatty", lambda stream: stream == 2)
    with listening():
        ask(signal.SIGINT)
    out, error = capfd.readouterr()
    # A line that the next one rewrites.
    assert not out
    assert error[0] == error[-1] == "\r"
    assert "\n" not in error


def test_each_time_begins_without_a_request():
    stop = Preemption()
    stop.open()
    ask()
    stop.close()
    stop.open()
    assert not stop.requested
    stop.close()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_afterwards_all_is_as_it_was(error):
    calls = []

    def mine(*_):
        calls.append("mine")

    before = signal.signal(signal.SIGTERM, mine)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        try:
            with listening():
                ask()
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is interrupt
        assert not calls
        ask()
        assert calls == ["mine"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_changes():
    seen = []

    def elsewhere():
        with listening() as stop:
            seen.extend([signal.getsignal(signal.SIGTERM), stop.requested])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM), False]


def test_any_keras_model_stops_on_request():
    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                ask()

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    with pytest.raises(StoppedOnRequest):
        model.fit(
            np.zeros((8, 2)),
            np.zeros(8),
            batch_size=1,
            verbose=0,
            callbacks=[
                Ask(),
                Preemption(),
                keras.callbacks.LambdaCallback(
                    on_train_batch_begin=lambda batch, logs: seen.append(batch)
                ),
            ],
        )
    assert seen == [0, 1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_write_goes_on_after_a_request():
    """As on file systems whose writes a signal can interrupt: here, a pipe."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    main = threading.main_thread().ident
    with listening() as stop:
        timers = [
            threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGTERM]),
            threading.Timer(0.6, os.read, [read, 1 << 16]),
        ]
        for timer in timers:
            timer.start()
        # TensorFlow writes in C, which does not try again as Python does.
        written = ctypes.CDLL(None).write(write, bytes(4096), 4096)
        assert stop.requested
    assert written == 4096
    os.close(read)
    os.close(write)


@pytest.mark.integration
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_before_and_after_training_a_request_ends_the_program(number):
    program = (
        "import os, signal, time\n"
        "from vhe_tf.callbacks import Preemption, stop_at_once\n"
        "stop_at_once()\n"
        "stop = Preemption()\n"
        "stop.open()\n"
        f"os.kill(os.getpid(), signal.{number})\n"
        "print('asked', stop.requested, flush=True)\n"
        "stop.close()\n"
        "try:\n"
        f"    os.kill(os.getpid(), signal.{number})\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    print('removed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    asked, empty, stopped, removed = done.stdout.splitlines()
    assert (asked, empty, removed) == ("asked True", "", "removed")
    assert "same command" in stopped
