import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from vhe_tf.stopping import stop_requests


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_is_seen_and_kills_nothing():
    with stop_requests() as asked:
        assert not asked()
        ask()
        assert asked()
        ask()
        assert asked()


def test_each_time_begins_without_a_request():
    with stop_requests():
        ask()
    with stop_requests() as asked:
        assert not asked()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_afterwards_all_is_as_it_was(error):
    calls = []

    def mine(*_):
        calls.append("mine")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        try:
            with stop_requests():
                ask()
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert signal.getsignal(signal.SIGTERM) is mine
        assert not calls
        ask()
        assert calls == ["mine"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_changes():
    seen = []

    def elsewhere():
        with stop_requests() as asked:
            seen.extend([signal.getsignal(signal.SIGTERM), asked()])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM), False]


def test_a_write_goes_on_after_a_request():
    """As on file systems whose writes a signal can interrupt: here, a pipe."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    main = threading.main_thread().ident
    with stop_requests() as asked:
        timers = [
            threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGTERM]),
            threading.Timer(0.6, os.read, [read, 1 << 16]),
        ]
        for timer in timers:
            timer.start()
        # TensorFlow writes in C, which does not try again as Python does.
        written = ctypes.CDLL(None).write(write, bytes(4096), 4096)
        assert asked()
    assert written == 4096
    os.close(read)
    os.close(write)


def test_before_and_after_training_a_request_ends_the_program():
    program = (
        "import os, signal, time\n"
        "from vhe_tf import stopping\n"
        "stopping.stop_at_once()\n"
        "with stopping.stop_requests() as asked:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('asked', asked(), flush=True)\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    print('removed what was half written')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "asked True",
        "",
        "Stopped on request; the same command goes on.",
        "removed what was half written",
    ]
