import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tests.conftest import IMAGE_SHAPE
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from tests.serving.conftest import NUM_SAMPLES
from tests.serving.conftest import example_inputs
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf._utils import atomic_io
from vhe_tf.distributions.domain import Domain
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models import open_set
from vhe_tf.serving import _rows
from vhe_tf.serving import _saved_model
from vhe_tf.serving import _signatures
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

SEVERAL = [pytest.param("hierarchical", marks=pytest.mark.slow), "factorial"]


@pytest.fixture(scope="session")
def served(exported):
    """A model, and the signatures of its export as loaded by TensorFlow."""
    model, path = exported
    return model, tf.saved_model.load(str(path)).signatures


def _images(*leading, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.random((*leading, *IMAGE_SHAPE)) < 0.3
    return tf.constant(images, tf.float32)


def _seeds(count):
    return tf.constant([7, -(2**40), 3, 4, 5][:count], tf.int64)


def _groups(model):
    return [latent.name for latent in model.latents if not latent.per_element]


def _supports(model, *, rows=3, shots=2):
    """Returns the inputs of the joint signatures, and supports by latent."""
    supports = {
        name: _images(rows, shots, seed=index)
        for index, name in enumerate(_groups(model))
    }
    if len(supports) == 1:
        return {"support": next(iter(supports.values()))}, supports
    return {f"support_{k}": v for k, v in supports.items()}, supports


def _by_row(seeds):
    return tf.bitcast(seeds, tf.int32)


# What is answered -------------------------------------------------------------


def test_samples_are_those_of_the_model_bit_for_bit(served):
    model, signatures = served
    inputs, supports = _supports(model)
    images = signatures["sample"](**inputs, seed=_seeds(3))["images"]
    expected = model.sample(supports, seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_samples_of_the_prior_are_those_of_the_model(served):
    model, signatures = served
    images = signatures["sample_prior"](seed=_seeds(3))["images"]
    expected = model.sample_prior(3, seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_likelihoods_are_those_of_the_model(served):
    model, signatures = served
    inputs, supports = _supports(model)
    query = _images(3, seed=9)
    result = signatures["log_likelihood"](**inputs, query=query, seed=_seeds(3))
    expected = model.log_likelihood(
        supports, query, seed=_by_row(_seeds(3)), num_samples=NUM_SAMPLES
    )
    np.testing.assert_allclose(result["log_likelihood"], expected, rtol=1e-5)


def test_classes_are_told_as_the_model_tells_them(served):
    model, signatures = served
    last = _groups(model)[-1]
    support, query = _images(3, 4, 2), _images(3, seed=9)
    result = signatures["classify"](
        support=support, query=query, seed=_seeds(3)
    )
    expected = model.classify(
        {last: support},
        query,
        seed=_by_row(_seeds(3)),
        num_samples=NUM_SAMPLES,
    )
    scores = result["log_likelihood"].numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(result["label"], scores.argmax(axis=1))
    assert "novelty" not in signatures  # not calibrated for 8x8 pixels
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        result["probabilities"],
        odds / odds.sum(axis=1, keepdims=True),
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", SEVERAL)
def test_each_latent_of_several_has_signatures_of_its_own(name, exports):
    model, path = exports(name)
    loaded = tf.saved_model.load(str(path))
    support, query = _images(3, 4, 2), _images(3, seed=9)
    seeds = _by_row(_seeds(3))
    for group in _groups(model):
        result = loaded.signatures[f"classify_{group}"](
            support=support, query=query, seed=_seeds(3)
        )
        expected = model.classify(
            {group: support}, query, seed=seeds, num_samples=NUM_SAMPLES
        )
        np.testing.assert_allclose(
            result["log_likelihood"], expected, rtol=1e-5
        )
        given = support[:, 0]
        result = loaded.signatures[f"sample_{group}"](
            support=given, seed=_seeds(3)
        )
        expected = model.sample({group: given}, seed=seeds)
        np.testing.assert_array_equal(result["images"], expected)
        result = loaded.signatures[f"encode_{group}"](support=given)
        expected = model.encode({group: given})[group]
        assert set(result) == {"mean", "stddev", "status"}
        np.testing.assert_allclose(result["mean"], expected.mean(), 1e-5)
        np.testing.assert_allclose(result["stddev"], expected.stddev(), 1e-5)


def test_what_encode_returns_stands_for_the_support(served):
    model, signatures = served
    inputs, supports = _supports(model)
    encoded = signatures["encode"](**inputs)
    del encoded["status"]
    images = signatures["sample_encoded"](**encoded, seed=_seeds(3))["images"]
    expected = model.sample(model.encode(supports), seed=_by_row(_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def _signatures_of(model):
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


def test_an_export_samples_with_its_own_options():
    model = tiny_vhe()
    functions = signatures(model, sample_options={"best_of": 3})
    support = _images(3, 2)
    images = functions["sample"](support, _seeds(3))["images"]
    seeds = _by_row(_seeds(3))
    expected = model.sample(support, seed=seeds, best_of=3)
    np.testing.assert_array_equal(images, expected)
    assert np.any(images != model.sample(support, seed=seeds))


def test_an_export_holds_the_contrasts_of_guided_samples():
    model = tiny_pixel_cnn_vhe()
    with mock.patch.object(
        VHE, "_contrasts", autospec=True, side_effect=VHE._contrasts
    ) as contrasts:
        signatures(model, num_samples=1)
    assert contrasts.call_count == 1
    with model.contrasts_fixed():
        fixed = model.sample(_images(2, 2), seed=1)
    np.testing.assert_array_equal(model.sample(_images(2, 2), seed=1), fixed)


def test_encoded_classes_are_scored_like_their_supports():
    model = tiny_pixel_cnn_vhe()
    signatures = _signatures_of(model)
    support, query = _images(3, 4, 2), _images(3, seed=9)
    flat = tf.reshape(support, [12, 2, *IMAGE_SHAPE])
    encoded = {
        name: tf.reshape(value, [3, 4, *value.shape[1:]])
        for name, value in signatures["encode"](support=flat).items()
        if name != "status"
    }
    by_parameters = signatures["classify_encoded"](
        **encoded, query=query, seed=_seeds(3)
    )
    by_images = signatures["classify"](
        support=support, query=query, seed=_seeds(3)
    )
    np.testing.assert_allclose(
        by_parameters["log_likelihood"], by_images["log_likelihood"], rtol=1e-5
    )


def test_novelty_is_that_of_the_model():
    model = tiny_pixel_cnn_vhe()
    with mock.patch.object(open_set, "is_calibrated", return_value=True):
        novelty = _signatures_of(model)["novelty"]
    support, query = _images(3, 4, 2), _images(3, seed=9)
    scores = tf.random.stateless_normal([3, 4], seed=[0, 0])
    given = {
        "query": tf.constant(query),
        "log_likelihood": scores,
        "seed": _seeds(3),
    }
    expected = model.novelty(
        support, query, seed=_by_row(_seeds(3)), log_likelihood=scores
    )
    absent = np.full_like(support[:, :, :1], -1.0)
    for padded in (support, np.concatenate([absent, support], axis=2)):
        answer = novelty(support=tf.constant(padded), **given)
        np.testing.assert_allclose(answer["novelty"], expected, rtol=1e-4)
    # A class may be impossible; NaN says nothing, of its own row alone.
    none = np.where(np.arange(4) == np.argmax(scores[0]), scores[0], -np.inf)
    changed = tf.stack([none, [np.nan] * 4, scores[2]])
    answer = novelty(
        support=tf.constant(support), **{**given, "log_likelihood": changed}
    )
    np.testing.assert_allclose(
        answer["novelty"], [expected[0], np.nan, expected[2]], rtol=1e-4
    )
    assert [b"log_likelihood" in text for text in answer["status"].numpy()] == [
        False,
        True,
        False,
    ]
    with pytest.raises(tf.errors.InvalidArgumentError, match="same classes"):
        novelty(
            support=tf.constant(support),
            **{**given, "log_likelihood": scores[:, :3]},
        )


def test_a_row_does_not_depend_on_the_rows_beside_it(served):
    model, signatures = served
    sampled, _ = _supports(model)
    scored = {"support": _images(3, 4, 2)}
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
                if exact or key in ("label", "status"):
                    np.testing.assert_array_equal(alone[key][0], value[row])
                else:
                    np.testing.assert_allclose(
                        alone[key][0], value[row], rtol=1e-4
                    )


def test_any_number_of_ways_shots_and_rows_will_do_none_too(served):
    model, signatures = served
    for rows, ways, shots in ((1, 1, 1), (2, 5, 3), (0, 2, 1)):
        result = signatures["classify"](
            support=_images(rows, ways, shots),
            query=_images(rows),
            seed=_seeds(rows),
        )
        assert result["log_likelihood"].shape == (rows, ways)
        assert result["label"].shape == (rows,)
        inputs, _ = _supports(model, rows=rows, shots=shots)
        result = signatures["sample"](**inputs, seed=_seeds(rows))
        assert result["images"].shape == (rows, *IMAGE_SHAPE)
        encoded = signatures["encode"](**inputs)
        assert all(value.shape[0] == rows for value in encoded.values())


# In pieces --------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 20, 21])
@pytest.mark.parametrize("most", [1, 5, 7, 100])
def test_pieces_are_even_bounded_and_in_order(count, most):
    sizes = []

    def triples(rows):
        sizes.append(len(rows["index"]))
        return {"triples": 3.0 * rows["index"]}

    values = _rows.in_pieces(
        triples,
        {"index": tf.range(count, dtype=tf.float32)},
        most=most,
        shapes={"triples": ()},
    )["triples"]
    np.testing.assert_array_equal(values, 3 * np.arange(count))
    assert len(sizes) == -(-count // most)  # no more of them than needed
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", ["deconvolutional", "pixel_cnn"])
def test_scores_do_not_depend_on_the_pieces(name, exports, monkeypatch):
    model, _ = exports(name)
    query, seed = _images(3, seed=9), _seeds(3)
    counts = {"num_samples": NUM_SAMPLES, "num_element_samples": 2}

    def scores(most):
        monkeypatch.setattr(_signatures, "_MAX_DECODED", most)
        signatures = _signatures._Signatures(
            model, ["character"], counts, 256, {}
        )
        return [
            signatures.classify()(_images(3, 7, 2), query, seed),
            signatures.log_likelihood()(_images(3, 2), query, seed),
        ]

    expected = scores(1000)
    for most in (1, 31):  # classes one by one, and five at once
        for value, other in zip(scores(most), expected, strict=True):
            np.testing.assert_allclose(
                value["log_likelihood"], other["log_likelihood"], rtol=1e-5
            )


def test_images_decoded_at_once_are_bounded(exports):
    model, _ = exports("deconvolutional")

    def size(self, support, query, **kwargs):
        count = tf.shape(query)[0]
        return tf.fill([count], tf.cast(count, tf.float32))

    with mock.patch.object(VHE, "log_likelihood", size):
        functions = signatures(model, num_samples=10, num_element_samples=3)
        rows = functions["log_likelihood"](
            _images(5, 1), _images(5), _seeds(5)
        )["log_likelihood"]
    most = _signatures._MAX_DECODED // 30
    assert 1 < np.max(rows) <= most


# Supports of several sizes ----------------------------------------------------


def _padded(support, shots):
    """Appends absent images, whose pixels are -1, to the images of each row."""
    support = np.array(support)
    missing = shots - support.shape[-4]
    pads = [(0, 0)] * support.ndim
    pads[-4] = (0, missing)
    return np.pad(support, pads, constant_values=-1.0)


@pytest.mark.parametrize("name", ["deconvolutional", "pixel_cnn", "factorial"])
def test_requests_of_different_shots_share_a_batch(name, exports):
    _, path = exports(name)
    signatures = tf.saved_model.load(str(path)).signatures
    query, seeds = _images(3, seed=9), _seeds(3)
    by_signature = {"encode": {}, "sample": {"seed": seeds}}
    by_signature["log_likelihood"] = {"query": query, "seed": seeds}
    by_signature["classify"] = by_signature["log_likelihood"]
    shots = (3, 1, 2)  # of the rows
    for signature, others in by_signature.items():
        ways = [4] if signature == "classify" else []
        names = signatures[signature].structured_input_signature[1]
        supports = {
            key: [_images(1, *ways, n, seed=n + len(key)) for n in shots]
            for key in names
            if key.startswith("support")
        }
        merged = {
            key: tf.constant(np.concatenate([_padded(v, 4) for v in values]))
            for key, values in supports.items()
        }
        together = signatures[signature](**merged, **others)
        for row in range(3):
            alone = signatures[signature](
                **{key: values[row] for key, values in supports.items()},
                **{key: v[row : row + 1] for key, v in others.items()},
            )
            for key, value in together.items():
                if key == "status":
                    assert value[row].numpy() == alone[key][0].numpy() == b""
                else:
                    np.testing.assert_allclose(
                        value[row], alone[key][0], rtol=1e-5, atol=1e-6
                    )


def test_absent_images_are_left_out_wherever_they_stand(flat):
    support = np.array(_images(2, 3))
    expected = flat["encode"](support=tf.constant(support[:, ::2]))
    support[:, 1] = -1.0
    encoded = flat["encode"](support=tf.constant(support))
    for name in ("mean", "stddev"):
        np.testing.assert_allclose(encoded[name], expected[name], rtol=1e-5)
    assert not any(encoded["status"].numpy())


def test_a_class_without_images_fails_its_row_alone(flat):
    support = np.array(_images(3, 4, 2))
    support[1, 2] = -1.0
    query, seed = _images(3, seed=9), _seeds(3)
    outputs = flat["classify"](
        support=tf.constant(support), query=query, seed=seed
    )
    expected = flat["classify"](
        support=tf.constant(np.abs(support)), query=query, seed=seed
    )
    _assert_one_row_is_invalid(outputs, expected, 1, "support")
    assert b"at least one image per class" in outputs["status"][1].numpy()


def test_a_support_is_encoded_once_even_if_it_is_of_many_rows(monkeypatch):
    model = tiny_vhe()
    counts = []

    def encode(self, support):
        (images,) = support.values()
        tf.py_function(
            lambda n: counts.append(int(n)), [tf.shape(images)[0]], []
        )
        return original(self, support)

    original = VHE.encode
    support = tf.repeat(_images(1, 4, 2), 3, axis=0)
    query, seed = _images(3, seed=9), _seeds(3)
    with monkeypatch.context() as patch:
        patch.setattr(VHE, "encode", encode)
        classify = signatures(model, num_samples=2)["classify"]
        counts.clear()
        scores = classify(support, query, seed)["log_likelihood"]
    assert sum(counts) == 4
    expected = model.classify(
        {"character": support}, query, seed=_by_row(seed), num_samples=2
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


# What is rejected -------------------------------------------------------------


@pytest.fixture(scope="module")
def flat(exports):
    _, path = exports("deconvolutional")
    return tf.saved_model.load(str(path)).signatures


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
        "support": _images(3, 2, 2) * 0.4 + 0.6,
        "query": _images(3),
        "seed": _seeds(3),
    }
    inputs[name] = change(inputs[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"`{name}`"):
        flat["classify"](**inputs)


def _assert_one_row_is_invalid(outputs, expected, row, name):
    """Checks that one row failed, and the others are as expected."""
    status = [text.decode() for text in outputs["status"].numpy()]
    assert [bool(text) for text in status] == [
        index == row for index in range(len(status))
    ]
    assert f"`{name}` must" in status[row]
    for key in outputs.keys() - {"status"}:
        value, others = outputs[key].numpy(), expected[key].numpy()
        keep = np.arange(len(value)) != row
        np.testing.assert_allclose(value[keep], others[keep], rtol=1e-5)
        failed = value[row]
        assert np.all(failed == -1 if key == "label" else np.isnan(failed))


@pytest.mark.parametrize("signature", ["classify", "sample", "encode"])
@pytest.mark.parametrize(
    "change", [lambda v: v + 2.0, lambda v: v - 2.0, lambda v: v * np.nan]
)
def test_an_invalid_row_does_not_spoil_the_others(served, signature, change):
    model, signatures = served
    inputs, _ = _supports(model)
    if signature == "classify":
        inputs = {"support": _images(3, 4, 2), "query": _images(3, seed=9)}
    if signature != "encode":
        inputs["seed"] = _seeds(3)
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
        _assert_one_row_is_invalid(outputs, expected, 1, name)


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
    right = np.array(_images(3, 2))
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
        "seed": _seeds(3),
    }
    signature = flat["sample_encoded"]
    expected = signature(**{k: tf.constant(v) for k, v in inputs.items()})
    inputs[name][2, 1] = value
    outputs = signature(**{k: tf.constant(v) for k, v in inputs.items()})
    _assert_one_row_is_invalid(outputs, expected, 2, name)


def test_more_rows_than_the_export_allows_are_rejected(exports):
    model, _ = exports("deconvolutional")
    functions = signatures(model, num_samples=1, max_rows=3)
    assert functions["sample_prior"](_seeds(3))["images"].shape[0] == 3
    for name, inputs in (
        ("sample_prior", [_seeds(4)]),
        ("encode", [_images(4, 1)]),
        ("sample", [_images(4, 1), _seeds(4)]),
        ("classify", [_images(4, 2, 1), _images(4), _seeds(4)]),
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
            query=_images(2),
            seed=_seeds(2),
        )


@pytest.mark.parametrize("name", SEVERAL)
def test_an_invalid_input_of_several_latents_is_named(name, exports):
    model, path = exports(name)
    signatures = tf.saved_model.load(str(path)).signatures
    for group in _groups(model):
        inputs, _ = _supports(model)
        inputs[f"support_{group}"] += 0.5
        status = signatures["sample"](**inputs, seed=_seeds(3))["status"]
        assert f"`support_{group}` must" in str(status.numpy()[0])
        encoded = signatures["encode"](**_supports(model)[0])
        del encoded["status"]
        encoded[f"{group}_stddev"] *= 0.0
        status = signatures["sample_encoded"](**encoded, seed=_seeds(3))
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


def _saved(path):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    (meta,) = saved.meta_graphs
    return meta


def _nodes(path):
    """Yields every node of the SavedModel, with the function it is in."""
    meta = _saved(path)
    for node in meta.graph_def.node:
        yield None, node
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            yield function, node


def _declared(path):
    """Returns the signatures that can be called, by name."""
    return {
        name: signature
        for name, signature in _saved(path).signature_def.items()
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
    groups = _groups(model)
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
                np.testing.assert_allclose(outputs[key], value, rtol=1e-5)


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
@pytest.mark.parametrize("name", ["deconvolutional", "pixel_cnn"])
def test_it_runs_where_only_tensorflow_is_installed(name, exports, tmp_path):
    model, path = exports(name)
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
def test_the_command_of_tensorflow_shows_it_and_finds_nothing(exports):
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
    # One that is in every SavedModel shows that the command would tell.
    denied = ",".join([*FORBIDDEN, "RestoreV2"])
    found = _saved_model_cli(
        "scan", "--dir", str(path), "--op_denylist", denied
    )
    assert "contains the following denylisted ops: {'RestoreV2'}" in found


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
