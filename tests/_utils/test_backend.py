import json
import os
import subprocess
import sys

import pytest


def imported(module, **environment):
    return subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", ["vhe_tf.models.vhe", "vhe_tf.layers"])
def test_another_backend_of_keras_is_named_first(module):
    result = imported(module, KERAS_BACKEND="jax")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: vhe_tf needs the TensorFlow backend")
    assert "Received: the backend 'jax'." in last


def test_a_backend_from_the_settings_file_is_named(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    result = imported(
        "vhe_tf.models.vhe", KERAS_BACKEND="", KERAS_HOME=str(tmp_path)
    )
    assert f"in {tmp_path / 'keras.json'}. Rec" in result.stderr
    assert "Received: the backend 'torch'." in result.stderr


def test_the_client_works_with_any_backend():
    assert not imported("vhe_tf.serving.client", KERAS_BACKEND="jax").returncode
