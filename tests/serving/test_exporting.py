import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.conftest import IMAGE_SHAPE
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from vhe_tf.serving.exporting import export

NUM_SAMPLES = 3

MODELS = {
    "deconvolutional": tiny_vhe,
    "pixel_cnn": tiny_pixel_cnn_vhe,
    "hierarchical": lambda: tiny_vhe("hierarchical"),
    "factorial": lambda: tiny_vhe("factorial"),
}

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


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """A model, its export as loaded by TensorFlow, and where that is."""
    model = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("exports") / request.param
    path = export(model, folder, num_samples=NUM_SAMPLES, warmup=False)
    return model, tf.saved_model.load(str(path)).signatures, path


def _images(*leading, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.random((*leading, *IMAGE_SHAPE)) < 0.3
    return tf.constant(images, tf.float32)


def _seeds(count):
    return tf.constant([7, -(2**40), 3, 4, 5][:count], tf.int64)


def _groups(model):
    return [latent.name for latent in model.latents if not latent.per_element]


def _supports(model, *, ways=None, rows=3, shots=2):
    """Returns the inputs of a signature, and supports by latent."""
    names = _groups(model)
    supports = {
        name: _images(
            *([rows, ways] if ways and name == names[-1] else [rows]),
            shots,
            seed=index,
        )
        for index, name in enumerate(names)
    }
    if len(names) == 1:
        return {"support": supports[names[0]]}, supports
    return {f"support_{k}": v for k, v in supports.items()}, supports


def _by_row(seeds):
    return tf.bitcast(seeds, tf.int32)


def test_samples_are_those_of_the_model_bit_for_bit(exported):
    model, signatures, _ = exported
    inputs, supports = _supports(model)
    images = signatures["sample"](**inputs, seed=_seeds(3))["images"]
    expected = model.sample(supports, seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_samples_of_the_prior_are_those_of_the_model(exported):
    model, signatures, _ = exported
    images = signatures["sample_prior"](seed=_seeds(3))["images"]
    expected = model.sample_prior(3, seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_likelihoods_are_those_of_the_model(exported):
    model, signatures, _ = exported
    inputs, supports = _supports(model)
    query = _images(3, seed=9)
    result = signatures["log_likelihood"](**inputs, query=query, seed=_seeds(3))
    expected = model.log_likelihood(
        supports, query, seed=_by_row(_seeds(3)), num_samples=NUM_SAMPLES
    )
    np.testing.assert_allclose(result["log_likelihood"], expected, rtol=1e-5)


def test_classes_are_scored_as_each_would_be_alone(exported):
    model, signatures, _ = exported
    inputs, supports = _supports(model, ways=4)
    query = _images(3, seed=9)
    result = signatures["classify"](**inputs, query=query, seed=_seeds(3))
    last = _groups(model)[-1]
    for way in range(4):
        expected = model.log_likelihood(
            {**supports, last: supports[last][:, way]},
            query,
            seed=_by_row(_seeds(3)),
            num_samples=NUM_SAMPLES,
        )
        np.testing.assert_allclose(
            result["log_likelihood"][:, way], expected, rtol=1e-5
        )
    scores = result["log_likelihood"].numpy()
    np.testing.assert_array_equal(result["label"], scores.argmax(axis=1))
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        result["probabilities"],
        odds / odds.sum(axis=1, keepdims=True),
        rtol=1e-4,
    )


def test_the_only_group_latent_classifies_as_the_model_does():
    model = tiny_vhe()
    signatures = _signatures_of(model)
    inputs, supports = _supports(model, ways=4)
    query = _images(3, seed=9)
    result = signatures["classify"](**inputs, query=query, seed=_seeds(3))
    expected = model.classify(
        supports, query, seed=_by_row(_seeds(3)), num_samples=NUM_SAMPLES
    )
    np.testing.assert_allclose(result["log_likelihood"], expected, rtol=1e-5)


def _signatures_of(model):
    from vhe_tf.serving.exporting import signatures

    functions = signatures(model, num_samples=NUM_SAMPLES)
    return {
        name: lambda function=function, **inputs: function(
            *[
                inputs[spec.name]
                for spec in function.structured_input_signature[0]
            ]
        )
        for name, function in functions.items()
    }


def test_what_encode_returns_stands_for_the_support(exported):
    model, signatures, _ = exported
    inputs, supports = _supports(model)
    encoded = signatures["encode"](**inputs)
    images = signatures["sample_encoded"](**encoded, seed=_seeds(3))["images"]
    expected = model.sample(model.encode(supports), seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_encoded_classes_are_scored_like_their_supports():
    # With one group latent; with parents, `encode` fixes those at their means.
    model = tiny_pixel_cnn_vhe()
    signatures = _signatures_of(model)
    inputs, _ = _supports(model, ways=4)
    query = _images(3, seed=9)
    flat = tf.reshape(inputs["support"], [12, 2, *IMAGE_SHAPE])
    encoded = {
        name: tf.reshape(value, [3, 4, *value.shape[1:]])
        for name, value in signatures["encode"](support=flat).items()
    }
    np.testing.assert_allclose(
        signatures["classify_encoded"](**encoded, query=query, seed=_seeds(3))[
            "log_likelihood"
        ],
        signatures["classify"](**inputs, query=query, seed=_seeds(3))[
            "log_likelihood"
        ],
        rtol=1e-5,
    )


def test_a_row_does_not_depend_on_the_rows_beside_it(exported):
    model, signatures, _ = exported
    sampled, _ = _supports(model)
    scored, _ = _supports(model, ways=4)
    query = _images(3, seed=9)
    for name, inputs, exact in (
        ("sample", sampled, True),
        ("sample_prior", {}, True),
        ("classify", {**scored, "query": query}, False),
        ("log_likelihood", {**sampled, "query": query}, False),
    ):
        inputs = {**inputs, "seed": _seeds(3)}
        together = signatures[name](**inputs)
        for row in range(3):
            alone = signatures[name](
                **{k: v[row : row + 1] for k, v in inputs.items()}
            )
            for key, value in together.items():
                if exact or key == "label":
                    np.testing.assert_array_equal(alone[key][0], value[row])
                else:
                    np.testing.assert_allclose(
                        alone[key][0], value[row], rtol=1e-4
                    )


def test_any_number_of_ways_shots_and_rows_will_do_none_too(exported):
    model, signatures, _ = exported
    for rows, ways, shots in ((1, 1, 1), (2, 5, 3), (0, 2, 1)):
        inputs, _ = _supports(model, ways=ways, rows=rows, shots=shots)
        result = signatures["classify"](
            **inputs, query=_images(rows), seed=_seeds(rows)
        )
        assert result["log_likelihood"].shape == (rows, ways)
        assert result["label"].shape == (rows,)
        inputs, _ = _supports(model, rows=rows, shots=shots)
        result = signatures["sample"](**inputs, seed=_seeds(rows))
        assert result["images"].shape == (rows, *IMAGE_SHAPE)
        encoded = signatures["encode"](**inputs)
        assert all(value.shape[0] == rows for value in encoded.values())


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "flat"
    path = export(tiny_vhe(), folder, num_samples=NUM_SAMPLES, warmup=False)
    return tf.saved_model.load(str(path)).signatures


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("support", lambda v: v + 0.5),
        ("support", lambda v: v - 1.0),
        ("support", lambda v: v * np.nan),
        ("query", lambda v: v * 300.0),
        ("support", lambda v: v[:, :0]),
        ("support", lambda v: v[:, :, :0]),
        ("query", lambda v: v[:2]),
        ("seed", lambda v: v[:1]),
    ],
)
def test_a_bad_input_is_named(flat, name, change):
    inputs = {
        "support": _images(3, 2, 2) * 0.4 + 0.6,
        "query": _images(3),
        "seed": _seeds(3),
    }
    inputs[name] = change(inputs[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"`{name}`"):
        flat["classify"](**inputs)


@pytest.mark.parametrize(
    ("mean", "stddev", "message"),
    [(np.inf, 1.0, "`mean` must be finite"), (0.0, 0.0, "`stddev` must be")],
)
def test_bad_parameters_are_named(flat, mean, stddev, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        flat["sample_encoded"](
            mean=tf.fill([1, 2], mean),
            stddev=tf.fill([1, 2], stddev),
            seed=_seeds(1),
        )


def _graphs(path):
    """Yields every node of the SavedModel, with the function it is in."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    (meta,) = saved.meta_graphs
    for node in meta.graph_def.node:
        yield None, node
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            yield function, node


def test_only_standard_operations_and_no_demand_for_xla(exported):
    _, _, path = exported
    functions = set()
    for function, node in _graphs(path):
        assert node.op not in FORBIDDEN
        if function is not None and function.signature.name not in functions:
            functions.add(function.signature.name)
            assert not function.attr["_XlaMustCompile"].b
    assert functions


def test_every_axis_of_rows_is_unknown_and_every_name_is_given(exported):
    _, _, path = exported
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    served = {
        name: signature
        for name, signature in saved.meta_graphs[0].signature_def.items()
        if not name.startswith("__")
    }
    assert set(served) == {
        "classify",
        "classify_encoded",
        "encode",
        "log_likelihood",
        "sample",
        "sample_encoded",
        "sample_prior",
        "serving_default",
    }
    for signature in served.values():
        assert signature.method_name == "tensorflow/serving/predict"
        assert signature.inputs
        for tensors in (signature.inputs, signature.outputs):
            for name, tensor in tensors.items():
                assert not name.startswith(("args", "output_"))
                assert tensor.tensor_shape.dim[0].size == -1


def test_weights_are_stored_once_and_without_an_optimizer(tmp_path):
    model = tiny_vhe()
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    path = export(model, tmp_path / "model", num_samples=1, warmup=False)
    size = (path / "variables" / "variables.data-00000-of-00001").stat().st_size
    weights = sum(4 * int(np.prod(v.shape)) for v in model.weights)
    assert weights <= size < 1.1 * weights + 2000


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


@pytest.mark.parametrize("name", ["deconvolutional", "pixel_cnn"])
def test_it_runs_where_only_tensorflow_is_installed(name, tmp_path):
    model = MODELS[name]()
    path = export(model, tmp_path / "model", num_samples=2, warmup=False)
    inputs, supports = _supports(model)
    values = {**inputs, "seed": _seeds(3)}
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
    expected = model.sample(supports, seed=_by_row(_seeds(3)))
    for loader in ("session", "eager"):
        images = np.load(tmp_path / f"{loader}.npz")["images"]
        np.testing.assert_array_equal(images, expected)


def test_versions_count_up_and_none_is_overwritten(tmp_path):
    model = tiny_vhe()

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


def _contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        pathlib.Path(args[1]).mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space"):
        export(tiny_vhe(), tmp_path / "m", num_samples=1, warmup=False)
    assert not list((tmp_path / "m").iterdir())


def test_warm_up_requests_are_those_that_the_signatures_answer(tmp_path):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2",
        reason="needs tensorflow-serving-api (vhe_tf[serving])",
    )
    path = export(tiny_vhe(), tmp_path / "tiny", num_samples=1)
    functions = tf.saved_model.load(str(path)).signatures
    requests = path / "assets.extra" / "tf_serving_warmup_requests"
    warmed = set()
    for record in tf.data.TFRecordDataset(str(requests)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "tiny"
        name = request.model_spec.signature_name
        functions[name](
            **{
                key: tf.constant(tf.make_ndarray(value))
                for key, value in request.inputs.items()
            }
        )
        warmed.add(name)
    assert warmed == set(functions) - {"serving_default"}
