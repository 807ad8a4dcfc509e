"""The changes that are tried in the small PixelCNN VHE, one at a time."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_pixel_cnn_sizes
from tests.conftest import tiny_sizes
from tests.trainers.conftest import ROOT
from tests.trainers.conftest import endings
from tests.trainers.conftest import output_of
from tests.trainers.conftest import printed_by
from tests.trainers.conftest import tiny_trainer
from vhe_tf.layers.spatial_inference import TemplatePosterior
from vhe_tf.models import architectures


@pytest.fixture(autouse=True)
def trainers_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "trainers")


@pytest.fixture
def layers():
    import ablation_layers

    return ablation_layers


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _randomised(layer):
    layer.set_weights(
        [0.5 * _random(*w.shape, seed=i) for i, w in enumerate(layer.weights)]
    )
    return layer


def _model():
    keras.utils.set_random_seed(0)
    with tiny_pixel_cnn_sizes():
        return architectures.pixel_cnn_vhe("small", image_shape=(8, 8, 1))


def _episode():
    return {
        "query": tf.round(tf.sigmoid(_random(2, 8, 8, 1))),
        "support": {
            "character": tf.round(tf.sigmoid(_random(2, 3, 8, 8, 1, seed=1)))
        },
        "group_size": {"character": tf.constant([20, 20])},
        "seed": tf.constant([0, 1]),
    }


# Decoders --------------------------------------------------------------------


def _network(kind, *, conditioned=None):
    network = kind(2, filters=4, num_blocks=1, first_kernel_size=3)
    network.build((None, 7, 8, 1), conditioned and (None, 7, 8, conditioned))
    return _randomised(network)


def _seen(network, *, height=7, width=8):
    """Returns which pixels change which, `[H, W, H, W]`, by changing each."""
    image = _random(1, height, width, 1)
    changed = tf.repeat(image, height * width, axis=0) + tf.reshape(
        tf.eye(height * width), [-1, height, width, 1]
    )
    differences = np.abs(network(changed) - network(image)).max(axis=-1)
    return differences.reshape(height, width, height, width) > 0


@pytest.mark.parametrize(
    "name", ["AttentiveGatedPixelCNN", "DownsamplingGatedPixelCNN"]
)
def test_a_decoder_sees_pixels_before_each_alone(layers, name):
    seen = _seen(_network(getattr(layers, name))).reshape(56, 56)
    assert not np.tril(seen).any()  # of a pixel, itself and those before
    assert np.triu(seen, 1).any()


def test_attention_sees_what_every_pixel_before_has_seen(layers):
    plain = _network(architectures.pixel_cnn.GatedPixelCNN)
    first = _seen(plain).reshape(56, 56)  # [seen, by]
    expected = np.logical_or.accumulate(first, axis=1)
    seen = _seen(_network(layers.AttentiveGatedPixelCNN))
    np.testing.assert_array_equal(seen.reshape(56, 56), expected)
    assert expected[0, 2:].all()  # the first pixel, by all the others


def test_attention_is_that_of_keras(layers):
    network = _network(layers.AttentiveGatedPixelCNN)
    features = _random(3, 7, 8, 4)
    sequence = tf.reshape(features + network.positions, [3, 56, 4])
    reference = keras.layers.MultiHeadAttention(4, 1)
    reference.build((3, 56, 4), (3, 56, 4))
    kernel = tf.split(network.attend.kernel[0, 0], 3, axis=1)
    bias = tf.split(network.attend.bias, 3)
    reference.set_weights(
        [
            *[
                tf.reshape(v, shape)
                for pair in zip(kernel, bias, strict=True)
                for v, shape in zip(pair, [(4, 4, 1), (4, 1)], strict=True)
            ],
            tf.reshape(tf.eye(4), [4, 1, 4]),
            tf.zeros(4),
        ]
    )
    expected = reference(sequence, sequence, use_causal_mask=True)
    np.testing.assert_allclose(
        network._attention(features),
        tf.reshape(expected, features.shape),
        atol=1e-5,
    )


def test_the_path_at_half_the_size_sees_whole_pairs_of_rows_above(layers):
    network = _network(layers.DownsamplingGatedPixelCNN)
    height, width = 21, 20
    features = _random(1, height, width, 4)
    kinds = np.eye(height * width).reshape(-1, height, width, 1)
    changed = network._coarse(
        tf.repeat(features, height * width, axis=0) + kinds
    )
    seen = np.abs(changed - network._coarse(features)).max(axis=-1) > 0
    rows, columns = np.arange(height) // 2, np.arange(width) // 2
    # Each of three blocks reaches two coarse rows up, two columns to a side.
    up = rows[None, :] - rows[:, None]  # [seen, by]
    aside = np.abs(columns[:, None] - columns[None, :])
    expected = ((up >= 1) & (up <= 7))[:, None, :, None] & (aside <= 6)[
        None, :, None, :
    ]
    np.testing.assert_array_equal(
        seen.reshape(height, width, height, width), expected
    )


@pytest.mark.parametrize(
    "name", ["AttentiveGatedPixelCNN", "DownsamplingGatedPixelCNN"]
)
def test_a_decoder_sees_its_conditioning_and_does_not_draw(layers, name):
    network = _network(getattr(layers, name), conditioned=3)
    images, conditioning = _random(1, 7, 8, 1), _random(1, 7, 8, 3, seed=1)
    difference = network(images, conditioning) - network(images, -conditioning)
    assert np.all(np.abs(difference).max(axis=-1) > 1e-4)
    with pytest.raises(NotImplementedError, match="does not draw"):
        network.incremental(conditioning, (1, 7, 8, 1))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        ("with_attention_in_decoder", "AttentiveGatedPixelCNN"),
        ("with_downsampling_in_decoder", "DownsamplingGatedPixelCNN"),
    ],
)
def test_a_decoder_takes_the_place_of_the_plain_one(layers, make, name):
    model = getattr(layers, make)(_model())
    assert type(model.likelihood.network).__name__ == name
    assert model.likelihood.network.filters == 4
    terms = model(_episode())
    assert np.all(np.isfinite(terms.elbo))


# q(c; D) ---------------------------------------------------------------------


def test_attention_over_the_support_begins_as_the_mean(layers):
    options = {"filters": (4, 8), "kernel_size": 3, "units": 5}
    plain = TemplatePosterior(2, **options)
    attentive = layers.AttentiveTemplatePosterior(2, **options)
    support = _random(2, 3, 8, 8, 1)
    expected = plain(support).mean()
    before = attentive(support).mean()
    attentive.set_weights(
        plain.get_weights() + attentive.get_weights()[len(plain.weights) :]
    )
    assert np.abs(before - expected).max() > 1e-3
    np.testing.assert_allclose(attentive(support).mean(), expected, atol=1e-5)


def _attentive(layers, images):
    attentive = layers.AttentiveTemplatePosterior(
        2, filters=(8,), kernel_size=3, units=5
    )
    attentive(images)
    return _randomised(attentive)


def test_attention_over_the_support_is_that_of_keras(layers):
    attentive = _attentive(layers, _random(1, 2, 4, 4, 1))
    features = _random(1, 3, 4, 4, 8)
    by_pixel = tf.reshape(tf.transpose(features[0], [1, 2, 0, 3]), [16, 3, 8])
    reference = keras.layers.MultiHeadAttention(4, 2)
    reference.build((16, 1, 8), (16, 3, 8))
    [query], [key] = attentive.query, attentive.key
    identity = tf.eye(8)
    reference.set_weights(
        [
            tf.reshape(query.kernel, [8, 4, 2]),
            tf.reshape(query.bias, [4, 2]),
            tf.reshape(key.kernel, [8, 4, 2]),
            tf.zeros([4, 2]),
            tf.reshape(identity, [8, 4, 2]),
            tf.zeros([4, 2]),
            tf.reshape(identity, [4, 2, 8]),
            tf.zeros(8),
        ]
    )
    expected = reference(tf.reduce_mean(by_pixel, 1, keepdims=True), by_pixel)
    np.testing.assert_allclose(
        attentive.average(features, scale=0),
        tf.reshape(expected, [1, 4, 4, 8]),
        atol=1e-5,
    )


def test_attention_over_the_support_learns_with_every_weight(layers):
    support = _random(2, 3, 8, 8, 1)
    attentive = _attentive(layers, support)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(attentive(support).mean() ** 2)
    variables = [
        layer.kernel for layer in (*attentive.query, *attentive.key)
    ] + [layer.bias for layer in attentive.query]
    for gradient in tape.gradient(total, variables):
        assert np.abs(gradient).max() > 1e-3


def test_attention_over_the_support_does_not_see_its_order(layers):
    model = layers.with_attention_over_support(_model())
    posterior = _randomised(model.latents[0].posterior)
    support = _episode()["support"]["character"]
    np.testing.assert_allclose(
        posterior(support).mean(),
        posterior(support[:, ::-1]).mean(),
        atol=1e-5,
    )
    assert np.all(np.isfinite(model(_episode()).elbo))


# The other changes -----------------------------------------------------------


def test_a_pose_that_shows_moves_the_template_from_the_start(layers):
    plain = _model().likelihood.affine_map
    z = _random(5, 2)
    assert np.ptp(plain(z), axis=0).max() == 0.0
    shows = layers.with_pose_that_shows(_model()).likelihood.affine_map
    assert np.all(np.ptp(shows(z), axis=0) > 1e-3)


def test_every_change_changes_something_and_the_baseline_nothing():
    changes = printed_by(
        "import ablations, json\n"
        "from dataclasses import asdict\n"
        "changes = ablations.CHANGES.items()\n"
        "print(json.dumps({name: asdict(change) for name, change in changes}))"
    )
    baseline = changes["baseline"]
    assert baseline == {
        "what": "none",
        "size": {},
        "flags": {},
        "layers": None,
        "constant_rate": False,
    }
    sizes = vars(architectures.PIXEL_CNN_SIZES["small"])
    flagfile = (ROOT / "trainers/flagfiles/ablations.flags").read_text()
    for name, change in changes.items():
        assert name == "baseline" or change | {"what": "none"} != baseline
        assert all(sizes[k] != v for k, v in change["size"].items())
        assert not any(
            f"--{k}={v}\n" in flagfile for k, v in change["flags"].items()
        )


def test_a_learning_rate_without_cosine_stays_at_its_peak():
    rates = printed_by(
        "import ablations, json\n"
        "from absl import flags\n"
        "from tests.conftest import tiny_pixel_cnn_sizes\n"
        "flags.FLAGS(['', '--run_dir=none', '--change=baseline'])\n"
        "def rates(name):\n"
        "    with tiny_pixel_cnn_sizes():\n"
        "        change = ablations.CHANGES[name]\n"
        "        model = ablations.make_model(change, (8, 8, 1))\n"
        "    for step in (250, 500, 5000, 15000):\n"
        "        model.optimizer.iterations.assign(step)\n"
        "        yield float(model.optimizer.learning_rate)\n"
        "names = ('constant_rate', 'baseline')\n"
        "print(json.dumps({name: list(rates(name)) for name in names}))"
    )
    np.testing.assert_allclose(
        rates["constant_rate"], [5e-4, 1e-3, 1e-3, 1e-3], rtol=1e-5
    )
    cosine = rates["baseline"]
    np.testing.assert_allclose(cosine[:2], [5e-4, 1e-3], rtol=1e-5)
    assert cosine[3] < 5e-4


# The document ----------------------------------------------------------------


def _result(change, repeat, elbo, *, minutes=5.0, **changed):
    return {
        "flags": {
            "change": change,
            "repeat": repeat,
            "changed_what": f"words of {change}",
            "changed_flags": {},
            "init": None,
            "epochs": 2,
            **changed,
        },
        "steps": 3000,
        "parameters": 1234,
        "minutes": minutes,
        "elbo": elbo,
        "averaged_elbo": [-50.0, -60.0],
        "kl": {"character": 40.0, "pose": 0.5},
    }


def _rows(text):
    """Returns the cells of each row of the tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_a_change_is_compared_batch_by_batch_to_its_own_baseline():
    import ablation_document

    text = ablation_document.render(
        [
            _result("dropout", 1, [-60.0, -70.0, -80.0], minutes=None),
            _result("baseline", 0, [0.0, 0.0, 0.0]),
            _result("baseline", 1, [-61.0, -72.0, -83.0])
            | {"averaged_elbo": None},
        ]
    )
    rows = _rows(text)
    assert [row[0] for row in rows] == ["`baseline`", "`baseline`", "`dropout`"]
    assert rows[0][8:10] == ["-55.00 ± 9.80", "-"]
    assert rows[1][8:10] == ["-", "-"]
    # Differences 1, 2, 3: 1.96 standard errors of the mean are 1.13.
    assert rows[2][1:] == [
        "words of dropout",
        "1",
        "3,000",
        "1,234",
        "-",
        "-70.00 ± 11.32",
        "+2.00 ± 1.13",
        "-55.00 ± 9.80",
        "-",
        "40.0 / 0.50",
    ]


def test_runs_that_differ_in_more_than_the_change_are_not_compared():
    import ablation_document

    text = ablation_document.render(
        [
            _result("baseline", 0, [0.0, 0.0]),
            _result("dropout", 0, [-3.0, -3.0], epochs=3),
            _result("other", 1, [-3.0, -3.0]),
            _result(
                "longer", 0, [-3.0, -3.0], epochs=3, changed_flags={"epochs": 3}
            ),
        ]
    )
    assert {row[0]: row[7] for row in _rows(text)} == {
        "`baseline`": "-",
        "`dropout`": "-",
        "`other`": "-",
        "`longer`": "-3.00 ± 0.00",
    }


def test_a_flag_that_a_result_lacks_is_a_difference():
    import ablation_document

    text = ablation_document.render(
        [
            _result("baseline", 0, [0.0, 0.0]),
            _result("dropout", 0, [-3.0, -3.0], new=1),
            _result("other", 0, [-3.0, -3.0], new=None),
        ]
    )
    assert [row[7] for row in _rows(text)] == ["-", "-", "-3.00 ± 0.00"]


def test_runs_are_compared_to_a_baseline_of_the_same_start():
    import ablation_document

    text = ablation_document.render(
        [
            _result("baseline", 0, [0.0, 0.0]),
            _result("dropout", 0, [-3.0, -3.0], init="a.keras"),
            _result("baseline", 0, [-5.0, -5.0], init="a.keras"),
        ]
    )
    assert "## Begun with the weights of `a.keras`" in text
    continued = _rows(text)[2]
    assert continued[7] == "+2.00 ± 0.00"
    assert continued[9] == "+0.00 ± 0.00"  # of averages, both those of above


def test_the_document_is_that_of_its_results():
    import ablation_document

    results = [
        json.loads(path.read_text())
        for path in sorted((ROOT / "docs" / "ablations").glob("*.json"))
    ]
    assert results
    document = (ROOT / "docs" / "ablations.md").read_text()
    assert document == ablation_document.render(results)


# The command -----------------------------------------------------------------


def _arguments(tmp_path):
    return [
        "--dataset=glyphs",
        "--architecture=pixel_cnn",
        "--support_size=1-2",
        "--symmetries=1",
        "--affine_copies=1",
        "--batch_size=2",
        "--epochs=1",
        "--steps_per_epoch=2",
        f"--run_dir={tmp_path / 'runs'}",
        f"--out={tmp_path}",
    ]


def _command(tmp_path, *arguments):
    return tiny_trainer(
        *_arguments(tmp_path), *arguments, script="ablations.py"
    )


@pytest.mark.slow
def test_a_change_is_trained_measured_and_tabled(tmp_path):
    command = _command(tmp_path, "--change=symmetries", "--repeat=2")
    result = output_of(command)
    assert result.returncode == 0, result.stdout
    path = tmp_path / "ablations" / "symmetries_2.json"
    made = json.loads(path.read_text())
    assert made["flags"]["symmetries"] == 8
    assert made["steps"] == 2
    assert len(made["elbo"]) == len(made["averaged_elbo"]) == 63
    # Of two steps, the average is not the last.
    assert not np.allclose(made["elbo"], made["averaged_elbo"], rtol=1e-4)
    assert "`symmetries`" in (tmp_path / "ablations.md").read_text()
    # Again: nothing is trained, and what was measured is measured again.
    assert output_of(command).returncode == 0
    assert json.loads(path.read_text()) == made
    other = _command(
        tmp_path, "--change=symmetries", "--batch_size=3", "--run_dir=none"
    )
    result = output_of(other)
    assert result.returncode == 1
    assert f"--batch_size must be 2, as in {path}" in result.stdout
    assert json.loads(path.read_text()) == made


@pytest.mark.slow
def test_what_is_measured_is_the_same_whatever_the_chance(tmp_path):
    # Of weights that no step has moved, so that repeats differ in these alone.
    bounds = []
    for arguments in (["--repeat=0"], ["--repeat=1"]):
        init = f"--init={tmp_path / 'model.keras'}"
        if not bounds:
            with tiny_sizes():
                keras.utils.set_random_seed(0)
                model = architectures.pixel_cnn_vhe(
                    "small", image_shape=(28, 28, 1)
                )
            model.save(tmp_path / "model.keras")
        command = _command(
            tmp_path, "--change=baseline", "--learning_rate=0", init, *arguments
        )
        result = output_of(command)
        assert result.returncode == 0, result.stdout
        name = f"baseline_continued_{len(bounds)}.json"
        made = json.loads((tmp_path / "ablations" / name).read_text())
        bounds.append(made["elbo"])
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-6)


def test_mistakes_are_explained(tmp_path):
    mistakes = {
        "--change=nothing": "baseline",
        "--change=dropout --objective=resample": "--objective must be",
        "--change=pose_that_shows --init=a.keras": "with random weights",
    }
    said = endings(
        "ablations",
        *([*_arguments(tmp_path), *mistake.split()] for mistake in mistakes),
    )
    for text, words in zip(said, mistakes.values(), strict=True):
        assert words in text
