import io
import json
import subprocess
import sys
import textwrap
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests import tiny_run
from tests.conftest import tiny_episode
from tests.conftest import tiny_vhe
from vhe_tf import VHE
from vhe_tf import load_model
from vhe_tf.models import loading
from vhe_tf.optimizers import AveragingAdam

GROUPS = {
    "flat": ["character"],
    "hierarchical": ["alphabet", "character"],
    "factorial": ["character", "style"],
}


def _assert_equal(terms, others):
    tf.nest.map_structure(np.testing.assert_array_equal, terms, others)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after three steps, and the file that it was saved to."""
    model = tiny_vhe("flat")
    model.compile(
        AveragingAdam(0.01, use_ema=True, ema_momentum=0.9),
        kl_warmup_steps={"character": 7},
    )
    for _ in range(3):
        model.train_step(tiny_episode())
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return model, path


@pytest.mark.parametrize(
    ("structure", "objective"),
    [("hierarchical", "vhe"), ("factorial", "neural_statistician")],
)
def test_a_saved_model_revives_the_same_numbers(structure, objective, tmp_path):
    model = tiny_vhe(structure, objective=objective)
    model.save(tmp_path / "model.keras")
    revived = load_model(tmp_path / "model.keras")
    episode = tiny_episode(GROUPS[structure])
    # JSON, which tells no tuple from a list.
    assert json.dumps(revived.get_config()) == json.dumps(model.get_config())
    assert not revived.compiled
    _assert_equal(revived(episode), model(episode))


def test_constructor_arguments_are_in_the_config():
    config = tiny_vhe().get_config()
    assert {"latents", "likelihood", "event_shape", "objective"} <= set(config)
    revived = VHE.from_config(config)
    assert json.dumps(revived.get_config()) == json.dumps(config)


def test_the_compilation_revives(trained):
    model, path = trained
    revived = load_model(path)
    assert revived.compiled
    assert revived.kl_warmup_steps == {"character": 7}
    assert int(revived.optimizer.iterations.numpy()) == 3
    assert revived.optimizer.get_config() == model.optimizer.get_config()
    for old, new in zip(
        model.optimizer.variables, revived.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_training_goes_on_as_if_never_interrupted(trained, tmp_path):
    path = tmp_path / "model.keras"
    load_model(trained[1]).save(path)
    first, second = load_model(trained[1]), load_model(path)
    for model in (first, second):
        model.train_step(tiny_episode(seed=(7, 8)))
    _assert_equal(first.get_weights(), second.get_weights())
    assert not np.array_equal(
        first.get_weights()[0], trained[0].get_weights()[0]
    )


@pytest.mark.integration
def test_a_fresh_process_revives_the_same_numbers(trained, tmp_path):
    model, path = trained
    episode = tiny_episode()
    np.savez(
        tmp_path / "episode.npz",
        query=episode["query"],
        support=episode["support"]["character"],
        seed=episode["seed"],
    )
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        import vhe_tf
        model = vhe_tf.load_model(sys.argv[1])
        with np.load(sys.argv[2]) as arrays:
            terms = model({
                "query": arrays["query"],
                "support": {"character": arrays["support"]},
                "group_size": {"character": np.int32([5, 5, 5])},
                "seed": arrays["seed"],
            })
        np.save(sys.argv[3], terms.elbo)
        """
    )
    subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            str(path),
            str(tmp_path / "episode.npz"),
            str(tmp_path / "elbo.npy"),
        ],
        check=True,
        timeout=120,
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "elbo.npy"), model(episode).elbo, rtol=1e-5
    )


def test_a_path_may_be_a_string(trained):
    assert isinstance(load_model(str(trained[1])), VHE)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received: .*absent\.keras"):
        load_model(tmp_path / "absent.keras")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_model(tmp_path)


def _truncated(data):
    return data[: len(data) // 2]


def _overwritten(data):
    middle = len(data) // 2
    return data[:middle] + b"\xff" * 64 + data[middle + 64 :]


@pytest.mark.parametrize(
    "corruption",
    [_truncated, _overwritten, lambda _: b"", lambda _: b"weights"],
)
def test_a_corrupt_file_is_named(trained, tmp_path, corruption):
    path = tmp_path / "spoilt.keras"
    path.write_bytes(corruption(trained[1].read_bytes()))
    with pytest.raises(ValueError, match=r"spoilt\.keras is not .* corrupt"):
        load_model(path)


def test_a_model_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input([2]), keras.layers.Dense(1)]).save(path)
    with pytest.raises(ValueError, match=r"other\.keras holds a Sequential"):
        load_model(path)


def test_a_model_of_an_unknown_class_is_refused(tmp_path):
    class Unknown(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    path = tmp_path / "unknown.keras"
    keras.Sequential([keras.Input([2]), Unknown()]).save(path)
    with pytest.raises(ValueError, match="needs the class Unknown"):
        load_model(path)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "code.keras"
    keras.Sequential([keras.Input([2]), keras.layers.Lambda(lambda x: x)]).save(
        path
    )
    with pytest.raises(ValueError, match=r"code\.keras is not a \.keras"):
        load_model(path)


def test_saving_a_model_is_whole_or_nothing(tmp_path, monkeypatch):
    model = tiny_run.compiled_model()
    path = tmp_path / "best.keras"
    loading.save_model(model, path)
    before = path.read_bytes()

    def fail(self, filepath, **kwargs):
        filepath.write_bytes(b"half a model")
        raise OSError("disk full")

    monkeypatch.setattr(vhe_tf.VHE, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        loading.save_model(model, path)
    assert path.read_bytes() == before


def test_a_saved_model_has_no_optimizer(tmp_path):
    model = tiny_run.compiled_model()
    loading.save_model(model, tmp_path / "best.keras")
    assert not vhe_tf.load_model(tmp_path / "best.keras").compiled


def _rewritten(path, target, **members):
    """Copies a file with other members, compressed."""
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, members.get(name, old.read(name)))
    return target


def _config_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def test_a_class_that_is_not_imported_is_named(trained, tmp_path):
    config = _config_of(trained[1])
    config["config"]["likelihood"].update(
        module="their.networks", class_name="Brush", registered_name="t>Brush"
    )
    path = _rewritten(
        trained[1],
        tmp_path / "theirs.keras",
        **{"config.json": json.dumps(config)},
    )
    with pytest.raises(ValueError, match="the class Brush of the module") as e:
        load_model(path)
    assert "their.networks: import the module" in str(e.value)
    assert "corrupt" not in str(e.value)


def test_settings_nested_without_end_are_a_value_error(trained, tmp_path):
    config = "[" * 100_000
    path = tmp_path / "deep.keras"
    _rewritten(trained[1], path, **{"config.json": config})
    with pytest.raises(ValueError, match=r"deep\.keras is not"):
        load_model(path)


@pytest.mark.parametrize("error", [RecursionError, MemoryError, OverflowError])
def test_whatever_keras_raises_is_a_value_error(trained, monkeypatch, error):
    def fail(path, *, safe_mode):
        assert safe_mode
        raise error("x" * 5000 + "\n" * 9 + "y\n" * 50)

    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(
        ValueError, match=f"Received: {error.__name__}"
    ) as caught:
        load_model(trained[1])
    assert len(str(caught.value)) < 1000
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_file_that_unpacks_to_much_more_is_not_unpacked(
    trained, tmp_path, monkeypatch, name
):
    path = tmp_path / "bomb.keras"
    _rewritten(trained[1], path, **{name: b" " * 2**28})

    def fail(*args, **kwargs):
        raise AssertionError("unpacked")

    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(ValueError, match=r"it unpacks to 268,\d+,\d+ bytes"):
        load_model(path)


def test_weights_that_are_not_stored_are_not_read(
    trained, tmp_path, monkeypatch
):
    with zipfile.ZipFile(trained[1]) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        file.create_dataset("layers/more/vars/0", (2**28,), "f4")
    weights = weights.getvalue()
    assert len(weights) < 2**22
    path = tmp_path / "unallocated.keras"
    _rewritten(trained[1], path, **{"model.weights.h5": weights})

    def fail(*args, **kwargs):
        raise AssertionError("read")

    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(ValueError, match=r"its weights take 1,07\d,\d+,\d+ by"):
        load_model(path)
