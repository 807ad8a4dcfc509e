import os
import pathlib
import sys

import pytest

from vhe_tf.experiments import endings

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called are\n",
    "I0000 00:00:1.5 1 cudart_stub.cc:31] Could not find cuda drivers\n",
    "E0000 00:00:1.5 1 util.cc:131] oneDNN supports DT_INT32 only on\n",
    "E0000 00:00:1.5 1 cuda_platform.cc:52] failed call to cuInit: 303\n",
    "W0000 00:00:1.5 1 cpu_allocator.cc:83] Allocation exceeds 10%\n",
    "Traceback (most recent call last):\n",
]


@pytest.mark.parametrize(("has_driver", "kept"), [(False, 4), (True, 2)])
def test_warnings_of_tensorflow_are_shown_and_its_information_is_not(
    has_driver, kept, tmp_path, monkeypatch, capfd
):
    driver = tmp_path if has_driver else tmp_path / "none"
    monkeypatch.setattr(endings, "_NVIDIA_DRIVER", pathlib.Path(driver))
    with endings._filtered_errors():
        os.write(2, "".join(LINES).encode())  # as C++ does
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "".join([*LINES[kept:], "after\n"])


def test_errors_that_end_the_import_are_shown(capfd):
    def fail():
        with endings._filtered_errors():
            os.write(2, LINES[4].encode())
            raise ImportError("no library")

    with pytest.raises(ImportError, match="no library"):
        fail()
    assert capfd.readouterr().err == LINES[4]


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_user_has_chosen(before, after, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if before is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", before)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    endings.import_tensorflow()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == after
