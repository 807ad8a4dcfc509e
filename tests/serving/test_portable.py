import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import IMAGE_SHAPE
from tests.serving.conftest import MODELS
from tests.serving.conftest import meta_graph_of
from vhe_tf import random
from vhe_tf.serving import export_portable
from vhe_tf.serving._portable_graph import portable_graph

ROWS, SHOTS, NUM_SAMPLES = 2, 3, 3

PARTS = ("encode", "log_likelihood_encoded", "sample_encoded")

# What OpenVINO or ONNX lack, or mistake.
FORBIDDEN = {
    "Assert",
    "BroadcastArgs",
    "Log1p",
    "MulNoNan",
    "TensorListReserve",
    "TensorListSetItem",
    "VarHandleOp",
}


@pytest.fixture(scope="module", params=["deconvolutional", "pixel_cnn"])
def portable(request, tmp_path_factory):
    """A model with one group latent, and the folder of its portable export."""
    keras.utils.set_random_seed(0)
    model = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("portable") / request.param
    return model, export_portable(
        model,
        folder,
        batch_size=ROWS,
        num_shots=SHOTS,
        num_samples=NUM_SAMPLES,
    )


def _images(*leading, seed=0):
    generator = np.random.default_rng(seed)
    return np.float32(generator.random((*leading, *IMAGE_SHAPE)) < 0.3)


def _cases(model, name):
    """Returns the inputs of a part with the noise of seeds, and its answer."""
    (latent,) = (v.name for v in model.latents if not v.per_element)
    (posterior,) = model.encode(_images(ROWS, SHOTS)).values()
    parameters = {"mean": posterior.mean(), "stddev": posterior.stddev()}
    if name == "encode":
        return {"support": _images(ROWS, SHOTS)}, parameters
    given = {
        latent: tfd.Independent(
            tfd.Normal(parameters["mean"], parameters["stddev"]),
            len(posterior.event_shape),
        )
    }
    query = _images(ROWS, seed=1)

    def answer(seed):
        if name == "sample_encoded":
            return {"images": model.sample(given, seed=seed)}
        scores = model.log_likelihood(
            given, query, seed=seed, num_samples=NUM_SAMPLES
        )
        return {"log_likelihood": scores}

    seeds = random.fold_in(3, tf.range(ROWS))
    recorded = random.Noise(seeds=seeds)
    answer(recorded)
    order = sorted(model.latents, key=lambda latent: latent.per_element)
    names = [*(latent.name for latent in order), "pixels"]
    noise = {
        f"{owner}_{kind}": value
        for owner, (kind, value) in zip(names, recorded.used, strict=False)
    }
    inputs = {**parameters, **noise}
    if name != "sample_encoded":
        inputs["query"] = query
    return inputs, answer(seeds)


def _arrays(tensors):
    return {name: np.array(tensor) for name, tensor in tensors.items()}


def _assert_close(answer, expected):
    assert answer.keys() == expected.keys()
    for key, value in _arrays(expected).items():
        if key == "images":  # a pixel whose noise is its probability is a tie
            assert np.mean(answer[key] != value) <= 0.01
        else:
            np.testing.assert_allclose(answer[key], value, 1e-4, 1e-4)


def _nodes(graph):
    functions = graph.library.function
    return [*graph.node, *(n for f in functions for n in f.node_def)]


@pytest.mark.parametrize("name", PARTS)
def test_given_the_noise_of_seeds_it_answers_as_the_model_does(portable, name):
    model, folder = portable
    loaded = tf.saved_model.load(str(folder / name))
    inputs, expected = _cases(model, name)
    answer = loaded.signatures["serving_default"](
        **{key: tf.constant(value) for key, value in inputs.items()}
    )
    _assert_close(_arrays(answer), expected)


@pytest.mark.parametrize("name", PARTS)
def test_operations_and_shapes_are_those_that_others_know(portable, name):
    _, folder = portable
    meta_graph = meta_graph_of(folder / name)
    used = {node.op for node in _nodes(meta_graph.graph_def)}
    assert not used & FORBIDDEN
    assert not [op for op in used if "Random" in op or "Bitwise" in op]
    signature = meta_graph.signature_def["serving_default"]
    for tensor in [*signature.inputs.values(), *signature.outputs.values()]:
        sizes = [axis.size for axis in tensor.tensor_shape.dim]
        assert sizes[0] == ROWS
        assert min(sizes) > 0


def test_several_latents_have_their_own_noise(tmp_path):
    folder = export_portable(
        MODELS["factorial"](), tmp_path / "portable", num_samples=NUM_SAMPLES
    )
    signature = meta_graph_of(folder / "sample_encoded").signature_def
    assert set(signature["serving_default"].inputs) == {
        "character_mean",
        "character_normal",
        "character_stddev",
        "pixels_uniform",
        "style_mean",
        "style_normal",
        "style_stddev",
    }


def test_a_folder_that_exists_is_rejected(tmp_path):
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        export_portable(MODELS["deconvolutional"](), tmp_path)


@pytest.mark.parametrize("name", ["batch_size", "num_shots"])
def test_sizes_must_be_positive(name, tmp_path):
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        export_portable(
            MODELS["deconvolutional"](), tmp_path / "portable", **{name: 0}
        )


# Graphs ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def function():
    """A function of everything that is replaced, in and out of loops."""
    generator = np.random.default_rng(0)
    kernel = tf.Variable(generator.normal(size=(3, 3, 2, 2)), dtype=tf.float32)
    matrix = tf.Variable(generator.normal(size=(2, 2)), dtype=tf.float32)

    def step(images):
        images = tf.nn.conv2d(
            images, kernel, 1, [(0, 0), (2, 0), (1, 1), (0, 0)]
        )
        images = tf.math.log1p(tf.abs(images))
        images = tf.math.multiply_no_nan(images, 0.5 * images)
        with tf.control_dependencies([tf.debugging.assert_less(images, 1e9)]):
            return tf.reduce_sum(images, axis=tf.zeros([0], tf.int32))

    def by_loops(images):
        images = step(images)
        (images,) = tf.while_loop(
            lambda x: tf.reduce_sum(x) < 1e3,
            lambda x: [step(tf.linalg.matmul(x, matrix)) + 1.0],
            [images],
            maximum_iterations=3,
        )
        _, images = tf.while_loop(
            lambda i, _: i < 2,
            lambda i, x: (
                i + 1,
                tf.while_loop(
                    lambda j, _: j < i,
                    lambda j, y: (j + 1, step(y @ matrix)),
                    [0, x],
                )[1],
            ),
            [0, images],
        )
        return {"images": images}

    traced = tf.function(
        by_loops,
        input_signature=[tf.TensorSpec([1, 4, 4, 2], name="images")],
        autograph=False,
    ).get_concrete_function()
    traced.weights = kernel, matrix  # keeps them alive
    return traced


def test_a_portable_graph_computes_the_same(function):
    graph, (output,) = portable_graph(function)
    images = np.random.default_rng(1).random((1, 4, 4, 2), np.float32)
    with tf.compat.v1.Session(graph=graph) as session:
        answer = session.run(output, {"images:0": images})
    expected = function(tf.constant(images))["images"]
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6)


def test_a_portable_graph_has_none_of_what_it_replaces(function):
    graph, _ = portable_graph(function)
    nodes = _nodes(graph.as_graph_def())
    assert not {node.op for node in nodes} & FORBIDDEN
    convolutions = [node for node in nodes if node.op == "Conv2D"]
    assert len(convolutions) == 3
    assert {node.attr["padding"].s for node in convolutions} == {b"VALID"}
    sums = [node for node in nodes if node.op == "Sum"]
    assert len(sums) == 1  # that of the condition


def test_loops_of_a_portable_graph_hold_their_constants(function):
    graph, _ = portable_graph(function)
    for body in graph.as_graph_def().library.function:
        nodes = {node.name: node for node in body.node_def}
        for node in body.node_def:
            if node.op in ("BatchMatMulV2", "Conv2D"):
                while node.op != "Const":
                    node = nodes[node.input[-1].partition(":")[0]]


# Other runtimes --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_openvino_answers_as_tensorflow_does(portable, name):
    openvino = pytest.importorskip("openvino", reason="vhe_tf[portable]")
    model, folder = portable
    compiled = openvino.compile_model(
        openvino.convert_model(str(folder / name)),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    inputs, expected = _cases(model, name)
    results = compiled(_arrays(inputs))
    answer = {key: results[compiled.output(key)] for key in expected}
    _assert_close(answer, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_onnx_runtime_answers_as_tensorflow_does(portable, name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="vhe_tf[portable]")
    pytest.importorskip("tf2onnx", reason="vhe_tf[portable]")
    model, folder = portable
    path = str(tmp_path / "part.onnx")
    command = ["-m", "tf2onnx.convert", "--opset", "18", "--saved-model"]
    subprocess.run(
        [sys.executable, *command, str(folder / name), "--output", path],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    session = onnxruntime.InferenceSession(path)
    inputs, expected = _cases(model, name)
    names = list(expected)
    answer = session.run(names, _arrays(inputs))
    _assert_close(dict(zip(names, answer, strict=True)), expected)
