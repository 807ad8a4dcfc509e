from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import IMAGE_SHAPE
from tests.conftest import assert_equal_to_rounding
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from tests.serving.conftest import NUM_SAMPLES
from vhe_tf import VHE
from vhe_tf.models import open_set
from vhe_tf.serving import _rows
from vhe_tf.serving import _signatures
from vhe_tf.serving._signatures import signatures

SEVERAL = [pytest.param("hierarchical", marks=pytest.mark.slow), "factorial"]


def random_images(*leading, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.random((*leading, *IMAGE_SHAPE)) < 0.3
    return tf.constant(images, tf.float32)


def row_seeds(count):
    return tf.constant([7, -(2**40), 3, 4, 5][:count], tf.int64)


def groups_of(model):
    return [latent.name for latent in model.latents if not latent.per_element]


def supports_of(model, *, rows=3, shots=2):
    """Returns the inputs of the joint signatures, and supports by latent."""
    supports = {
        name: random_images(rows, shots, seed=index)
        for index, name in enumerate(groups_of(model))
    }
    if len(supports) == 1:
        return {"support": next(iter(supports.values()))}, supports
    return {f"support_{k}": v for k, v in supports.items()}, supports


def by_row(seeds):
    return tf.bitcast(seeds, tf.int32)


def assert_one_row_is_invalid(outputs, expected, row, name):
    """Checks that one row failed, and the others are as expected."""
    status = [text.decode() for text in outputs["status"].numpy()]
    assert [bool(text) for text in status] == [
        index == row for index in range(len(status))
    ]
    assert f"`{name}` must" in status[row]
    for key in outputs.keys() - {"status"}:
        value, others = outputs[key].numpy(), expected[key].numpy()
        keep = np.arange(len(value)) != row
        assert_equal_to_rounding(value[keep], others[keep])
        failed = value[row]
        assert np.all(failed == -1 if key == "label" else np.isnan(failed))


# What is answered -------------------------------------------------------------


def test_samples_are_those_of_the_model_bit_for_bit(served):
    model, signatures = served
    inputs, supports = supports_of(model)
    images = signatures["sample"](**inputs, seed=row_seeds(3))["images"]
    expected = model.sample(supports, seed=by_row(row_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_samples_of_the_prior_are_those_of_the_model(served):
    model, signatures = served
    images = signatures["sample_prior"](seed=row_seeds(3))["images"]
    expected = model.sample_prior(3, seed=by_row(row_seeds(3)))
    np.testing.assert_array_equal(images, expected)


def test_likelihoods_are_those_of_the_model(served):
    model, signatures = served
    inputs, supports = supports_of(model)
    query = random_images(3, seed=9)
    result = signatures["log_likelihood"](
        **inputs, query=query, seed=row_seeds(3)
    )
    expected = model.log_likelihood(
        supports, query, seed=by_row(row_seeds(3)), num_samples=NUM_SAMPLES
    )
    np.testing.assert_allclose(result["log_likelihood"], expected, rtol=1e-5)


def test_classes_are_told_as_the_model_tells_them(served):
    model, signatures = served
    last = groups_of(model)[-1]
    support, query = random_images(3, 4, 2), random_images(3, seed=9)
    result = signatures["classify"](
        support=support, query=query, seed=row_seeds(3)
    )
    expected = model.classify(
        {last: support},
        query,
        seed=by_row(row_seeds(3)),
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
    support, query = random_images(3, 4, 2), random_images(3, seed=9)
    seeds = by_row(row_seeds(3))
    for group in groups_of(model):
        result = loaded.signatures[f"classify_{group}"](
            support=support, query=query, seed=row_seeds(3)
        )
        expected = model.classify(
            {group: support}, query, seed=seeds, num_samples=NUM_SAMPLES
        )
        np.testing.assert_allclose(
            result["log_likelihood"], expected, rtol=1e-5
        )
        given = support[:, 0]
        result = loaded.signatures[f"sample_{group}"](
            support=given, seed=row_seeds(3)
        )
        expected = model.sample({group: given}, seed=seeds)
        np.testing.assert_array_equal(result["images"], expected)
        result = loaded.signatures[f"encode_{group}"](support=given)
        expected = model.encode({group: given})[group]
        assert set(result) == {"mean", "stddev", "status"}
        assert_equal_to_rounding(result["mean"], expected.mean())
        assert_equal_to_rounding(result["stddev"], expected.stddev())


def test_what_encode_returns_stands_for_the_support(served):
    model, signatures = served
    inputs, supports = supports_of(model)
    encoded = signatures["encode"](**inputs)
    del encoded["status"]
    images = signatures["sample_encoded"](**encoded, seed=row_seeds(3))[
        "images"
    ]
    expected = model.sample(model.encode(supports), seed=by_row(row_seeds(3)))
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
    support = random_images(3, 2)
    images = functions["sample"](support, row_seeds(3))["images"]
    seeds = by_row(row_seeds(3))
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
        fixed = model.sample(random_images(2, 2), seed=1)
    np.testing.assert_array_equal(
        model.sample(random_images(2, 2), seed=1), fixed
    )


def test_encoded_classes_are_scored_like_their_supports():
    model = tiny_vhe()
    signatures = _signatures_of(model)
    support, query = random_images(3, 4, 2), random_images(3, seed=9)
    flat = tf.reshape(support, [12, 2, *IMAGE_SHAPE])
    encoded = {
        name: tf.reshape(value, [3, 4, *value.shape[1:]])
        for name, value in signatures["encode"](support=flat).items()
        if name != "status"
    }
    by_parameters = signatures["classify_encoded"](
        **encoded, query=query, seed=row_seeds(3)
    )
    by_images = signatures["classify"](
        support=support, query=query, seed=row_seeds(3)
    )
    np.testing.assert_allclose(
        by_parameters["log_likelihood"], by_images["log_likelihood"], rtol=1e-5
    )


def test_novelty_is_that_of_the_model():
    model = tiny_pixel_cnn_vhe()
    with mock.patch.object(open_set, "is_calibrated", return_value=True):
        novelty = _signatures_of(model)["novelty"]
    support, query = random_images(3, 4, 2), random_images(3, seed=9)
    scores = tf.random.stateless_normal([3, 4], seed=[0, 0])
    given = {
        "query": tf.constant(query),
        "log_likelihood": scores,
        "seed": row_seeds(3),
    }
    expected = model.novelty(
        support, query, seed=by_row(row_seeds(3)), log_likelihood=scores
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
    sampled, _ = supports_of(model)
    scored = {"support": random_images(3, 4, 2)}
    query = random_images(3, seed=9)
    for name, inputs, exact in (
        ("sample", sampled, True),
        ("sample_prior", {}, True),
        ("classify", {**scored, "query": query}, False),
        ("log_likelihood", {**sampled, "query": query}, False),
    ):
        inputs = {**inputs, "seed": row_seeds(3)}
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
            support=random_images(rows, ways, shots),
            query=random_images(rows),
            seed=row_seeds(rows),
        )
        assert result["log_likelihood"].shape == (rows, ways)
        assert result["label"].shape == (rows,)
        inputs, _ = supports_of(model, rows=rows, shots=shots)
        result = signatures["sample"](**inputs, seed=row_seeds(rows))
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


def test_scores_do_not_depend_on_the_pieces(exports, monkeypatch):
    model, _ = exports("deconvolutional")
    query, seed = random_images(3, seed=9), row_seeds(3)
    counts = {"num_samples": NUM_SAMPLES, "num_element_samples": 2}

    def scores(most):
        monkeypatch.setattr(_signatures, "_MAX_DECODED", most)
        signatures = _signatures._Signatures(
            model, ["character"], counts, 256, {}
        )
        return [
            signatures.classify()(random_images(3, 7, 2), query, seed),
            signatures.log_likelihood()(random_images(3, 2), query, seed),
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
            random_images(5, 1), random_images(5), row_seeds(5)
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


@pytest.mark.parametrize("name", ["pixel_cnn", "factorial"])
def test_requests_of_different_shots_share_a_batch(name, exports):
    _, path = exports(name)
    signatures = tf.saved_model.load(str(path)).signatures
    query, seeds = random_images(3, seed=9), row_seeds(3)
    by_signature = {"encode": {}, "sample": {"seed": seeds}}
    by_signature["log_likelihood"] = {"query": query, "seed": seeds}
    by_signature["classify"] = by_signature["log_likelihood"]
    shots = (3, 1, 2)  # of the rows
    for signature, others in by_signature.items():
        ways = [4] if signature == "classify" else []
        names = signatures[signature].structured_input_signature[1]
        supports = {
            key: [random_images(1, *ways, n, seed=n + len(key)) for n in shots]
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
    support = np.array(random_images(2, 3))
    expected = flat["encode"](support=tf.constant(support[:, ::2]))
    support[:, 1] = -1.0
    encoded = flat["encode"](support=tf.constant(support))
    for name in ("mean", "stddev"):
        assert_equal_to_rounding(encoded[name], expected[name])
    assert not any(encoded["status"].numpy())


def test_a_class_without_images_fails_its_row_alone(flat):
    support = np.array(random_images(3, 4, 2))
    support[1, 2] = -1.0
    query, seed = random_images(3, seed=9), row_seeds(3)
    outputs = flat["classify"](
        support=tf.constant(support), query=query, seed=seed
    )
    expected = flat["classify"](
        support=tf.constant(np.abs(support)), query=query, seed=seed
    )
    assert_one_row_is_invalid(outputs, expected, 1, "support")
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
    support = tf.repeat(random_images(1, 4, 2), 3, axis=0)
    query, seed = random_images(3, seed=9), row_seeds(3)
    with monkeypatch.context() as patch:
        patch.setattr(VHE, "encode", encode)
        classify = signatures(model, num_samples=2)["classify"]
        counts.clear()
        scores = classify(support, query, seed)["log_likelihood"]
    assert sum(counts) == 4
    expected = model.classify(
        {"character": support}, query, seed=by_row(seed), num_samples=2
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
