"""A stand-in of a served VHE, and real ones, for the tests of serving.

The stand-in has the signatures of a served VHE and closed-form answers: a class
is the mean of its support; an image is 2x2. Its only randomness is a hundredth
of the seed, which is added, so that rows that are mixed up are noticed. It
answers in a millisecond and is made in seconds, so that hundreds of requests,
right and wrong ones, take no longer than the transport; and it has dtypes and
failures that no VHE has. What may differ with a real graph is tested with a
real one.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from tests.processes import made_once
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.serving import LocalServer
from vhe_tf.serving import export

IMAGE = (2, 2, 1)

NUM_SAMPLES = 3


def _colour_vhe():
    """Makes a VHE over images of three channels with two crossed latents.

    The last in the graph is not the last in the alphabet.
    """

    def group(name):
        return Latent(
            name,
            prior=heads.StandardNormal(2),
            posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
        )

    image_shape = (8, 8, 3)
    return VHE(
        latents=[group("style"), group("character")],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(image_shape, (8,), 0),
            heads.BernoulliImageHead(),
        ),
        event_shape=image_shape,
    )


MODELS = {
    "deconvolutional": tiny_vhe,
    "colour": _colour_vhe,
    "pixel_cnn": tiny_pixel_cnn_vhe,
    "hierarchical": lambda: tiny_vhe("hierarchical"),
    "factorial": lambda: tiny_vhe("factorial"),
}


def _spec(name, *shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name=name)


_SEED = _spec("seed", None, dtype=tf.int64)
_QUERY = _spec("query", None, *IMAGE)
_SUPPORT = _spec("support", None, None, *IMAGE)
_SUPPORTS = _spec("support", None, None, None, *IMAGE)
_PARAMETERS = [_spec(name, None, *IMAGE) for name in ("mean", "stddev")]
_PARAMETERS_OF_WAYS = [
    _spec(name, None, None, *IMAGE) for name in ("mean", "stddev")
]


def _checked(name, pixels):
    in_range = tf.reduce_all((pixels >= 0.0) & (pixels <= 1.0))
    check = tf.debugging.Assert(in_range, [f"`{name}` must be in [0, 1]."])
    with tf.control_dependencies([check]):
        return tf.identity(pixels)


def _chance(seed, rank):
    noise = tf.cast(seed, tf.float32) / 100.0
    return tf.reshape(noise, [-1] + [1] * (rank - 1))


class TinyVHE(tf.Module):
    """A served VHE in form."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.offset = tf.Variable(0.25)
        self.scale = scale

    @tf.function(input_signature=[_SUPPORTS, _QUERY, _SEED])
    def classify(self, support, query, seed):
        mean = self._mean(support, 2)
        return self._classify(mean, _checked("query", query), seed)

    @tf.function(
        input_signature=[
            _SUPPORTS,
            _QUERY,
            _spec("log_likelihood", None, None),
            _SEED,
        ]
    )
    def novelty(self, support, query, log_likelihood, seed):
        del query, seed  # inputs all the same
        best = tf.gather(
            self._mean(support, 2),
            tf.argmax(log_likelihood, axis=1),
            batch_dims=1,
        )
        return {
            "novelty": tf.reduce_sum(best, [1, 2, 3])
            - tf.reduce_max(log_likelihood, axis=1),
            "status": tf.fill(tf.shape(log_likelihood)[:1], ""),
        }

    @tf.function(input_signature=[*_PARAMETERS_OF_WAYS, _QUERY, _SEED])
    def classify_encoded(self, mean, stddev, query, seed):
        return self._classify(mean + 0.0 * stddev, query, seed)

    def _mean(self, support, axis):
        pixels = _checked("support", support)
        return self.scale * tf.reduce_mean(pixels, axis)

    def _classify(self, mean, query, seed):
        error = tf.reduce_sum((mean - query[:, tf.newaxis]) ** 2, [2, 3, 4])
        log_likelihood = _chance(seed, 2) - error
        return {
            "log_likelihood": log_likelihood,
            "probabilities": tf.nn.softmax(log_likelihood),
            "label": tf.argmax(log_likelihood, 1, output_type=tf.int32),
        }

    @tf.function(input_signature=[_SUPPORT])
    def encode(self, support):
        mean = self._mean(support, 1)
        return {"mean": mean, "stddev": 0.5 * tf.ones_like(mean)}

    @tf.function(input_signature=[_SUPPORT, _SEED])
    def sample(self, support, seed):
        mean = self._mean(support, 1)
        return {"images": mean + _chance(seed, 4) + self.offset}

    @tf.function(input_signature=[*_PARAMETERS, _SEED])
    def sample_encoded(self, mean, stddev, seed):
        noise = _chance(seed, 4) + 0.0 * stddev
        return {"images": mean + noise + self.offset}

    @tf.function(input_signature=[_SEED])
    def sample_prior(self, seed):
        return {"images": tf.ones([1, *IMAGE]) * _chance(seed, 4) + self.offset}

    @tf.function(input_signature=[_SUPPORT, _QUERY, _SEED])
    def log_likelihood(self, support, query, seed):
        mean = self._mean(support, 1)
        error = tf.reduce_sum((mean - query) ** 2, [1, 2, 3])
        return {"log_likelihood": _chance(seed, 1) - error}

    # Beyond a VHE: what else the JSON rules speak of.

    @tf.function(
        input_signature=[
            _spec("text", None, dtype=tf.string),
            _spec("flag", None, dtype=tf.bool),
            _spec("byte", None, dtype=tf.uint8),
            _spec("wide", None, dtype=tf.float64),
        ]
    )
    def every_dtype(self, text, flag, byte, wide):
        return {
            "text": text,
            "text_bytes": text,
            "flag": tf.logical_not(flag),
            "byte": byte,
            "wide": wide / 3.0,
        }

    @tf.function(input_signature=[_SEED])
    def total(self, seed):
        return {"total": tf.reduce_sum(seed)}

    @tf.function(input_signature=[_spec("half", None, dtype=tf.float16)])
    def half(self, half):
        return {"half": half}

    @tf.function(input_signature=[_SEED])
    def reciprocal(self, seed):
        value = tf.cast(seed, tf.float32)
        return {"reciprocal": 1.0 / value, "not_a_number": value * np.nan}


_SIGNATURES = (
    "classify",
    "classify_encoded",
    "encode",
    "every_dtype",
    "half",
    "log_likelihood",
    "novelty",
    "reciprocal",
    "sample",
    "sample_encoded",
    "sample_prior",
    "total",
)


class TinyFactorialVHE(tf.Module):
    """A served VHE with the group latents `character` and `style` in form.

    An image is the sum of their means.
    """

    def __init__(self):
        super().__init__()
        self.character = TinyVHE()
        self.style = TinyVHE(scale=0.5)

    def signatures(self):
        """Returns the functions of each latent, and those of both."""
        latents = {"character": self.character, "style": self.style}
        functions = {
            f"{task}_{name}": getattr(latent, task)
            for name, latent in latents.items()
            for task in ("classify", "encode", "sample")
        }
        functions["classify"] = self.style.classify
        supports = [
            _spec(f"support_{name}", None, None, *IMAGE) for name in latents
        ]
        parameters = [
            _spec(f"{name}_{parameter}", None, *IMAGE)
            for name in latents
            for parameter in ("mean", "stddev")
        ]
        joint = {
            "encode": (self.encode, supports),
            "log_likelihood": (self.log_likelihood, [*supports, _QUERY, _SEED]),
            "sample": (self.sample, [*supports, _SEED]),
            "sample_encoded": (self.sample_encoded, [*parameters, _SEED]),
        }
        for name, (function, specs) in joint.items():
            functions[name] = tf.function(function, input_signature=specs)
        functions["sample_prior"] = self.style.sample_prior
        return functions

    def encode(self, support_character, support_style):
        supports = {"character": support_character, "style": support_style}
        return {
            f"{name}_{parameter}": value
            for name, support in supports.items()
            for parameter, value in getattr(self, name).encode(support).items()
        }

    def _sum(self, support_character, support_style):
        encoded = self.encode(support_character, support_style)
        return encoded["character_mean"] + encoded["style_mean"]

    def log_likelihood(self, support_character, support_style, query, seed):
        error = (self._sum(support_character, support_style) - query) ** 2
        error = tf.reduce_sum(error, [1, 2, 3])
        return {"log_likelihood": _chance(seed, 1) - error}

    def sample(self, support_character, support_style, seed):
        mean = self._sum(support_character, support_style)
        return {"images": mean + _chance(seed, 4)}

    def sample_encoded(
        self, character_mean, character_stddev, style_mean, style_stddev, seed
    ):
        noise = _chance(seed, 4) + 0.0 * (character_stddev + style_stddev)
        return {"images": character_mean + style_mean + noise}


@pytest.fixture(scope="session")
def saved_factorial_model(tmp_path_factory):
    """The folder of one version of it."""
    folder = tmp_path_factory.mktemp("saved_models") / "stand_in"
    model = TinyFactorialVHE()
    signatures = model.signatures()
    tf.saved_model.save(model, str(folder / "1"), signatures=signatures)
    return folder


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """The folder of versions 2 and 10; 9 is not one yet."""
    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    (folder / "11.partial").mkdir(parents=True)
    model = TinyVHE()
    signatures = {name: getattr(model, name) for name in _SIGNATURES}
    signatures["serving_default"] = model.classify
    tf.saved_model.save(model, str(folder / "10"), signatures=signatures)
    (folder / "2").symlink_to(folder / "10")
    return folder


@pytest.fixture(scope="session")
def server(saved_model):
    """A server of it, with small limits, on a free port."""
    with LocalServer(
        saved_model,
        port=0,
        max_request_mib=1.0,
        log=lambda line: None,
    ) as local_server:
        yield local_server


@pytest.fixture(scope="session")
def signatures(saved_model):
    """The same model's signatures through TensorFlow's other loader."""
    loaded = tf.saved_model.load(str(saved_model / "10"))

    def call(name, **inputs):
        outputs = loaded.signatures[name](
            **{key: tf.constant(value) for key, value in inputs.items()}
        )
        return {key: value.numpy() for key, value in outputs.items()}

    # The functions die with the module that they belong to.
    call.loaded = loaded
    return call


@pytest.fixture
def inputs():
    """Inputs of `classify`: 3 rows, 4 ways, 5 shots."""
    generator = np.random.default_rng(0)
    return {
        "support": generator.random((3, 4, 5, *IMAGE), np.float32),
        "query": generator.random((3, *IMAGE), np.float32),
        "seed": np.array([7, 0, -300], np.int64),
    }


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """A function from the name of a model to it and the folder of its export.

    Each is made once.
    """

    @functools.cache
    def exported(name):
        keras.utils.set_random_seed(0)
        model = MODELS[name]()
        model.compile("adam")
        model.optimizer.build(model.trainable_variables)

        # The folder above a version has the name of the model.
        def make(folder):
            export(model, folder / name, num_samples=NUM_SAMPLES)

        folder = made_once(f"exported_{name}", make, tmp_path_factory)
        return model, folder / name / "1"

    return exported


@pytest.fixture(
    scope="session",
    params=[
        "deconvolutional",
        pytest.param("pixel_cnn", marks=pytest.mark.extended),
        pytest.param("hierarchical", marks=pytest.mark.slow),
        pytest.param("factorial", marks=pytest.mark.extended),
    ],
)
def exported(request, exports):
    """Each model in turn, and the folder of its export."""
    return exports(request.param)


@pytest.fixture(scope="session")
def served(exported):
    """A model, and the signatures of its export as loaded by TensorFlow."""
    model, path = exported
    return model, tf.saved_model.load(str(path)).signatures


@pytest.fixture(scope="session")
def flat(exports):
    _, path = exports("deconvolutional")
    return tf.saved_model.load(str(path)).signatures


def meta_graph_of(folder):
    """Returns the graph of a SavedModel, with its signatures."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    (meta_graph,) = saved.meta_graphs
    return meta_graph


def example_inputs(function, *, rows, ways=2, shots=3, seed=1):
    """Makes inputs for a loaded signature, by name."""
    generator = np.random.default_rng(seed)
    inputs = {}
    for name, spec in function.structured_input_signature[1].items():
        is_support = name.startswith("support")
        sizes = [rows, ways, shots] if is_support else [rows, ways]
        if is_support and list(spec.shape).count(None) == 2:
            sizes = [rows, shots]
        open_axes = list(spec.shape).count(None)
        shape = [*sizes[:open_axes], *spec.shape[open_axes:]]
        if name == "seed":
            inputs[name] = generator.integers(-(2**63), 2**63 - 1, shape)
        elif name.endswith(("mean", "stddev")):
            inputs[name] = generator.random(shape, np.float32)
        else:
            inputs[name] = np.float32(generator.random(shape) < 0.3)
    return inputs
