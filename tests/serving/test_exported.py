"""The content of an export, its errors, and where it is loaded."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.conftest import IMAGE_SHAPE
from tests.conftest import assert_equal_to_rounding
from tests.conftest import tiny_vhe
from tests.serving.conftest import example_inputs
from tests.serving.conftest import meta_graph_of
from tests.serving.test_exporting import SEVERAL
from tests.serving.test_exporting import assert_one_row_is_invalid
from tests.serving.test_exporting import by_row
from tests.serving.test_exporting import groups_of
from tests.serving.test_exporting import random_images
from tests.serving.test_exporting import row_seeds
from tests.serving.test_exporting import supports_of
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf._utils import atomic_io
from vhe_tf.distributions.domain import Domain
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.serving import _rows
from vhe_tf.serving import _saved_model
from vhe_tf.serving import exporting
from vhe_tf.serving._signatures import signatures
from vhe_tf.serving.exporting import export

# Nothing that needs Python, writes files, or prints.
FORBIDDEN = {
    "PyFunc",
    "PyFuncStateless",
    "EagerPyFunc",
    "WriteFile",
    "ReadFile",
    "Print",
    "PrintV2",
}

JOINT = {"encode", "log_likelihood", "sample", "sample_encoded", "sample_prior"}

ALONE = {
    *JOINT,
    "classify",
    "classify_encoded",
    "serving_default",
}

# What is rejected -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("support", lambda v: v[:, :0]),
        ("support", lambda v: v[:, :, :0]),
        ("query", lambda v: v[:2]),
        ("seed", lambda v: v[:1]),
        ("support", lambda v: tf.tile(v, [1, 1, 257, 1, 1, 1])),
    ],
)
def test_a_bad_input_is_named(flat, name, change):
    inputs = {
        "support": random_images(3, 2, 2) * 0.4 + 0.6,
        "query": random_images(3),
        "seed": row_seeds(3),
    }
    inputs[name] = change(inputs[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"`{name}`"):
        flat["classify"](**inputs)


@pytest.mark.parametrize("signature", ["classify", "sample", "encode"])
@pytest.mark.parametrize(
    "change", [lambda v: v + 2.0, lambda v: v - 2.0, lambda v: v * np.nan]
)
def test_an_invalid_row_does_not_spoil_the_others(served, signature, change):
    model, signatures = served
    inputs, _ = supports_of(model)
    if signature == "classify":
        inputs = {
            "support": random_images(3, 4, 2),
            "query": random_images(3, seed=9),
        }
    if signature != "encode":
        inputs["seed"] = row_seeds(3)
    expected = signatures[signature](**inputs)
    assert not any(expected["status"].numpy())
    for name in inputs.keys() - {"seed"}:
        row = tf.reshape(
            [False, True, False], [3] + [1] * (inputs[name].shape.rank - 1)
        )
        # One pixel is enough.
        pixel = np.zeros(inputs[name].shape[1:], bool)
        pixel.flat[-1] = True
        value = tf.where(row & pixel, change(inputs[name]), inputs[name])
        outputs = signatures[signature](**{**inputs, name: value})
        assert_one_row_is_invalid(outputs, expected, 1, name)


@pytest.mark.parametrize(
    ("domain", "scales"),
    [
        (Domain(0.0, 1.0, integer=True), [0.5, 1 / 255]),  # grey
        (Domain(0.0, 1.0), [1 / 255]),  # divided twice
        (Domain(), []),
    ],
)
def test_pixels_that_the_likelihood_does_not_model_fail_their_row(
    domain, scales
):
    signature = _rows.checked(
        lambda inputs: {"pixel": inputs["support"][:, 0, 0, 0, 0]},
        [tf.TensorSpec([None, None, *IMAGE_SHAPE], name="support")],
        max_rows=9,
        domain=domain,
    )
    right = np.array(random_images(3, 2))
    right[0, 1] = -1  # absent
    right[2] = 0  # blank
    assert not any(signature(tf.constant(right))["status"].numpy())
    for scale in [0.5, 1 / 255]:
        wrong = right.copy()
        wrong[0, 0] *= scale
        status = signature(tf.constant(wrong))["status"].numpy().tolist()
        assert (b"`support`" in status[0]) == (scale in scales)
        assert status[1:] == [b"", b""]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", np.inf), ("mean", np.nan), ("stddev", 0.0), ("stddev", np.nan)],
)
def test_invalid_parameters_do_not_spoil_other_rows(flat, name, value):
    inputs = {
        "mean": np.zeros([3, 2], np.float32),
        "stddev": np.ones([3, 2], np.float32),
        "seed": row_seeds(3),
    }
    signature = flat["sample_encoded"]
    expected = signature(**{k: tf.constant(v) for k, v in inputs.items()})
    inputs[name][2, 1] = value
    outputs = signature(**{k: tf.constant(v) for k, v in inputs.items()})
    assert_one_row_is_invalid(outputs, expected, 2, name)


def test_more_rows_than_the_export_allows_are_rejected(exports):
    model, _ = exports("deconvolutional")
    functions = signatures(model, num_samples=1, max_rows=3)
    assert functions["sample_prior"](row_seeds(3))["images"].shape[0] == 3
    for name, inputs in (
        ("sample_prior", [row_seeds(4)]),
        ("encode", [random_images(4, 1)]),
        ("sample", [random_images(4, 1), row_seeds(4)]),
        ("classify", [random_images(4, 2, 1), random_images(4), row_seeds(4)]),
    ):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="must have at most 3 rows"
        ):
            functions[name](*inputs)


@pytest.mark.parametrize("ways", [2, 4])
def test_means_and_deviations_are_of_the_same_classes(flat, ways):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="`stddev` and `mean` must",
    ):
        flat["classify_encoded"](
            mean=tf.zeros([2, 3, 2]),
            stddev=tf.ones([2, ways, 2]),
            query=random_images(2),
            seed=row_seeds(2),
        )


@pytest.mark.parametrize("name", SEVERAL)
def test_an_invalid_input_of_several_latents_is_named(name, exports):
    model, path = exports(name)
    signatures = tf.saved_model.load(str(path)).signatures
    for group in groups_of(model):
        inputs, _ = supports_of(model)
        inputs[f"support_{group}"] += 0.5
        status = signatures["sample"](**inputs, seed=row_seeds(3))["status"]
        assert f"`support_{group}` must" in str(status.numpy()[0])
        encoded = signatures["encode"](**supports_of(model)[0])
        del encoded["status"]
        encoded[f"{group}_stddev"] *= 0.0
        status = signatures["sample_encoded"](**encoded, seed=row_seeds(3))
        assert f"`{group}_stddev` must" in str(status["status"].numpy()[0])


@pytest.mark.parametrize("name", ["prior", "encoded"])
def test_a_latent_must_not_take_the_name_of_a_signature(name):
    model = VHE(
        latents=[_latent("character"), _latent(name)],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(IMAGE_SHAPE, (8,), 0),
            heads.BernoulliImageHead(),
        ),
        event_shape=IMAGE_SHAPE,
    )
    with pytest.raises(
        ValueError, match=f"`sample_{name}`.*latents=.*'{name}'"
    ):
        signatures(model)


def _latent(name):
    return Latent(
        name,
        prior=heads.StandardNormal(2),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 4),
    )


# What is written --------------------------------------------------------------


def _nodes(path):
    """Yields every node of the SavedModel, with the function it is in."""
    meta = meta_graph_of(path)
    for node in meta.graph_def.node:
        yield None, node
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            yield function, node


def _declared(path):
    """Returns the signatures that can be called, by name."""
    return {
        name: signature
        for name, signature in meta_graph_of(path).signature_def.items()
        if not name.startswith("__")
    }


def test_only_standard_operations_and_no_demand_for_xla(exported):
    _, path = exported
    functions = set()
    for function, node in _nodes(path):
        assert node.op not in FORBIDDEN
        # TensorFlow's generators depend on the device and on XLA.
        assert "Random" not in node.op
        if function is not None and function.signature.name not in functions:
            functions.add(function.signature.name)
            assert not function.attr["_XlaMustCompile"].b
    assert functions


def _names_of(model):
    groups = groups_of(model)
    if len(groups) == 1:
        return ALONE
    tasks = ("classify", "encode", "sample")
    own = {f"{task}_{group}" for task in tasks for group in groups}
    return JOINT | own | {"classify", "serving_default"}


def test_every_axis_of_rows_is_unknown_and_every_name_is_given(exported):
    model, path = exported
    declared = _declared(path)
    assert set(declared) == _names_of(model)
    for signature in declared.values():
        assert signature.method_name == "tensorflow/serving/predict"
        assert signature.inputs
        for tensors in (signature.inputs, signature.outputs):
            for name, tensor in tensors.items():
                assert not name.startswith(("args", "output_"))
                assert tensor.tensor_shape.dim[0].size == -1


def test_weights_are_stored_once_and_without_an_optimizer(exports):
    model, path = exports("deconvolutional")
    assert len(model.optimizer.variables) > len(model.weights)
    stored = [
        tuple(shape)
        for name, shape in tf.train.list_variables(
            str(path / "variables/variables")
        )
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    ]
    assert sorted(stored) == sorted(tuple(v.shape) for v in model.variables)


# Where it is loaded -----------------------------------------------------------


@pytest.fixture(scope="session")
def session(exported):
    """A function that calls signatures of an export as a server does."""
    _, path = exported
    loaded = _saved_model.SavedModel(path.parent, None)
    return lambda name, inputs: loaded.run(loaded.signatures[name], inputs)


def test_a_session_answers_as_the_python_signature(served, session):
    _, signatures = served
    for name, function in signatures.items():
        inputs = example_inputs(function, rows=3)
        expected = function(**{k: tf.constant(v) for k, v in inputs.items()})
        outputs = session(name, inputs)
        assert outputs.keys() == expected.keys()
        for key, value in expected.items():
            assert outputs[key].dtype == value.dtype.as_numpy_dtype
            if key in ("images", "label", "status"):
                np.testing.assert_array_equal(outputs[key], value)
            else:
                assert_equal_to_rounding(outputs[key], value)


def test_a_session_answers_no_rows_with_none(served, session):
    _, signatures = served
    for name, function in signatures.items():
        one = session(name, example_inputs(function, rows=1))
        none = session(name, example_inputs(function, rows=0))
        assert none.keys() == one.keys()
        for key, value in none.items():
            assert value.shape == (0, *one[key].shape[1:])
            assert value.dtype == one[key].dtype


_FRESH = """
import json, sys
import numpy as np
import tensorflow as tf

path, signature = sys.argv[1:3]
inputs = {k: np.load(f"{sys.argv[3]}/{k}.npy") for k in json.loads(sys.argv[4])}
graph = tf.Graph()
with tf.compat.v1.Session(graph=graph) as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], path)
    served = meta.signature_def[signature]
    outputs = session.run(
        {k: v.name for k, v in served.outputs.items()},
        {served.inputs[k].name: v for k, v in inputs.items()},
    )
np.savez(f"{sys.argv[3]}/session.npz", **outputs)
function = tf.saved_model.load(path).signatures[signature]
outputs = function(**{k: tf.constant(v) for k, v in inputs.items()})
outputs = {k: v.numpy() for k, v in outputs.items()}
np.savez(f"{sys.argv[3]}/eager.npz", **outputs)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"vhe_tf", "tensorflow_probability"}, loaded
"""


@pytest.mark.integration
def test_it_runs_where_only_tensorflow_is_installed(exports, tmp_path):
    model, path = exports("pixel_cnn")
    inputs, supports = supports_of(model)
    values = {**inputs, "seed": row_seeds(3)}
    for key, value in values.items():
        np.save(tmp_path / f"{key}.npy", value.numpy())
    subprocess.run(
        [
            sys.executable,
            "-c",
            _FRESH,
            str(path),
            "sample",
            str(tmp_path),
            json.dumps(list(values)),
        ],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
    )
    expected = model.sample(supports, seed=by_row(row_seeds(3)))
    for loader in ("session", "eager"):
        images = np.load(tmp_path / f"{loader}.npz")["images"]
        np.testing.assert_array_equal(images, expected)


def _saved_model_cli(*arguments):
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tensorflow.python.tools.saved_model_cli",
            *arguments,
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.stdout


@pytest.mark.integration
def test_the_command_of_tensorflow_shows_it(exports):
    path = exports("pixel_cnn")[1]
    shown = _saved_model_cli("show", "--all", "--dir", str(path))
    for name, signature in _declared(path).items():
        (_, section) = shown.split(f"signature_def['{name}']:")
        section = section.partition("signature_def[")[0]
        for key in signature.inputs:
            assert f"inputs['{key}']" in section
        for key in signature.outputs:
            assert f"outputs['{key}']" in section
        assert "Method name is: tensorflow/serving/predict" in section


# Versions ---------------------------------------------------------------------


@pytest.fixture
def untraced(monkeypatch):
    """Lets exports have no signatures, which take seconds to trace."""
    monkeypatch.setattr(
        exporting, "signatures", lambda *_, **__: {"classify": None}
    )


def test_versions_count_up_and_none_is_overwritten(
    tmp_path, monkeypatch, untraced
):
    model = tiny_vhe()

    def save(module, folder, signatures, options):
        (pathlib.Path(folder) / "saved_model.pb").write_bytes(
            b""
        )  # an empty message

    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(exporting, "_shrink", lambda _: None)

    def made(**kwargs):
        path = export(
            model, tmp_path / "m", num_samples=1, warmup=False, **kwargs
        )
        return path.name

    assert made(version=9) == "9"
    assert made() == "10"
    before = _contents(tmp_path / "m" / "9")
    with pytest.raises(FileExistsError, match="never overwritten"):
        made(version=9)
    with pytest.raises(ValueError, match="Received: version=0"):
        made(version=0)
    assert _contents(tmp_path / "m" / "9") == before
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["10", "9"]


@pytest.mark.parametrize("name", ["num_samples", "num_element_samples"])
@pytest.mark.parametrize("count", [0, -1])
def test_an_export_without_draws_is_refused(tmp_path, name, count):
    with pytest.raises(ValueError, match=f"Received: {name}={count}"):
        export(tiny_vhe(), tmp_path / "m", warmup=False, **{name: count})
    assert not (tmp_path / "m").exists()


def _contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch, untraced):
    def fail(*args, **kwargs):
        (pathlib.Path(args[1]) / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space"):
        export(tiny_vhe(), tmp_path / "m", num_samples=1, warmup=False)
    assert not list((tmp_path / "m").iterdir())


def test_only_what_nobody_writes_any_more_is_removed(tmp_path):
    left, written = (
        atomic_io.partial_path(tmp_path / version) for version in "12"
    )
    own = tmp_path / ".my.notes.partial"
    for folder in (left, written, own, tmp_path / "1"):
        (folder / "variables").mkdir(parents=True)
    link = atomic_io.partial_path(tmp_path / "3")
    link.symlink_to(own)
    with atomic_io.locked(written):
        exporting._remove_abandoned(tmp_path)
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "1",
        written.name,
        own.name,
        link.name,
    }
    assert (own / "variables").is_dir()


def test_warm_up_requests_are_those_that_the_signatures_answer(
    exported, served
):
    _, path = exported
    _, signatures = served
    requests = path / "assets.extra" / "tf_serving_warmup_requests"
    warmed = set()
    for record in tf.data.TFRecordDataset(str(requests)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == path.parent.name
        name = request.model_spec.signature_name
        signatures[name](
            **{
                key: tf.constant(tf.make_ndarray(value))
                for key, value in request.inputs.items()
            }
        )
        warmed.add(name)
    assert warmed == set(signatures) - {"serving_default"}
