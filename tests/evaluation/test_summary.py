import dataclasses
import json
import re

import numpy as np
import pytest

from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import few_shot_accuracy
from tests.evaluation.conftest import uniform_data
from vhe_tf import Objective
from vhe_tf import evaluation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import elbo
from vhe_tf.evaluation import evaluators
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import conditional_nll
from vhe_tf.evaluation.likelihood import joint_nll
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.summary import EvaluationSettings
from vhe_tf.evaluation.summary import Report
from vhe_tf.evaluation.summary import summary_lines


def evaluate(data, world=None, *, model=None, progress=None, **kwargs):
    settings = {
        "ways": (3,),
        "shots": (1, 2),
        "num_tasks": 2,
        "num_samples": 2,
    }
    return evaluation.evaluate(
        model or (world or GaussianWorld(2, 1)).model,
        data,
        group="character",
        settings=EvaluationSettings(**{**settings, **kwargs}),
        progress=progress,
    )


def facts(report):
    """Returns what each line about what was left out counts."""
    what = r"ELBO|NLL|\d+-shot|(?<=by )alphabet|'\w+'"
    counts = r"\d+ (?:shots|images?|characters)"
    return [re.findall(f"{what}|{counts}", line) for line in report.left_out]


def keys(report, metric):
    """Returns the keys of a metric, without its name."""
    return [
        each.key.removeprefix(f"{metric}.")
        for each in report.measurements
        if each.metric == metric
    ]


def strict_round_trip(report):
    return Report.from_json(
        json.loads(json.dumps(report.to_json(), allow_nan=False))
    )


def as_read(report):
    """The report, its settings with the lists of JSON in place of tuples."""
    settings = json.loads(json.dumps(report.settings))
    return dataclasses.replace(report, settings=settings)


@pytest.fixture(scope="module")
def report_and_lines():
    """A report, and the lines of progress while it was made."""
    lines = []
    return evaluate(uniform_data((6,) * 4), progress=lines.append), lines


def test_a_report_survives_json(report_and_lines):
    report, _ = report_and_lines
    assert strict_round_trip(report) == as_read(report)


def test_a_report_has_every_measurement_and_setting():
    data = uniform_data((6,) * 6, alphabet=[0, 0, 0, 1, 1, 1])
    report = evaluate(
        data,
        within="alphabet",
        joint_num_samples=5,
        num_element_samples=2,
        seed=4,
    )
    assert list(report.by_key()) == [
        "accuracy.3way_1shot",
        "accuracy.3way_2shot",
        "accuracy.3way_1shot_within_alphabet",
        "accuracy.3way_2shot_within_alphabet",
        "elbo",
        "conditional_nll.1shot",
        "conditional_nll.2shot",
        "conditional_nll.5shot",
        "joint_nll",
    ]
    for each in report.measurements:
        if each.metric == "accuracy":
            assert each.num_values == 2
            assert (each.ways, each.chance) == (3, 1 / 3)
        if each.metric in ("accuracy", "conditional_nll"):
            assert (each.num_samples, each.num_element_samples) == (2, 2)
        assert each.unit == (
            "fraction" if each.metric == "accuracy" else "nats per image"
        )
    assert report["conditional_nll.1shot"].num_values == 20
    assert report["elbo"].num_values == 4 * 2  # batches
    joint = report["joint_nll"]
    assert (joint.num_samples, joint.num_element_samples) == (5, 2)
    assert joint.num_values == 6
    assert 1.0 <= joint.effective_sample_size <= 5.0 + 1e-5
    assert report.settings["num_tasks"] == 2
    assert report.settings["seed"] == 4
    assert report.groups == tuple(range(6))


def test_a_report_holds_what_the_estimators_return():
    world = GaussianWorld(2, width=1.5)
    data = uniform_data((6,) * 4)
    report = evaluate(data, world, seed=3, shots=(2,), num_groups=2)
    scorer = ClassScorer(world.model, group="character", num_samples=2)
    [bound] = elbo.Elbo(data, num_batches=8, seed=3)(world.model)
    for expected in (
        few_shot_accuracy(
            scorer, data, num_ways=3, num_shots=2, num_tasks=2, seed=3
        ),
        bound,
        conditional_nll(scorer, data, num_shots=5, num_queries=20, seed=3),
        joint_nll(
            JointScorer(world.model, group="character"),
            data,
            num_samples=2,
            num_groups=2,
            seed=3,
        ),
    ):
        assert report[expected.key] == expected


def test_evaluators_of_equal_settings_share_what_is_compiled():
    data = uniform_data((6,) * 4)
    first, second = (
        evaluators.FewShotClassification(
            data, group="character", num_tasks=1, shots=[1]
        )
        for _ in range(2)
    )
    second.share_scorers(first)
    world, other = GaussianWorld(2), GaussianWorld(2)
    kept = first._scorers._kept
    first(world.model)
    second(world.model)
    assert len(first._scorers._kept) == 1
    # Another model takes the place of the last one.
    second(other.model)
    [scorer] = first._scorers._kept.values()
    assert scorer.model is other.model
    assert first._scorers._kept is not kept


def test_shots_are_lowered_to_leave_a_query():
    metrics = evaluate(uniform_data((6, 3, 6)), shots=(1, 3, 5))
    assert keys(metrics, "accuracy") == ["3way_1shot", "3way_2shot"]
    assert keys(metrics, "conditional_nll") == ["1shot", "2shot"]
    three, five, *_, nll = facts(metrics)
    assert three == ["3-shot", "3 images", "2-shot"]
    assert five == ["5-shot", "3 images", "2-shot"]
    assert nll == ["NLL", "19 shots", "3 images"]


def test_no_task_where_a_class_has_one_image():
    metrics = evaluate(uniform_data((3, 1, 3)), shots=(1,))
    assert not keys(metrics, "accuracy")
    assert facts(metrics)[0] == ["1-shot", "1 image"]


def test_ways_are_lowered_to_the_classes_there_are():
    data = uniform_data((4,) * 6, alphabet=[0, 0, 1, 1, 1, 1])
    metrics = evaluate(data, ways=(20,), shots=(1,), within="alphabet")
    assert keys(metrics, "accuracy") == [
        "6way_1shot",
        "4way_1shot_within_alphabet",
    ]
    assert metrics.left_out[:2] == (
        "20-way tasks: there are 6 classes, so 6-way instead",
        "20-way tasks within alphabet: there are 4 classes, so 4-way instead",
    )
    assert "left out: 20-way tasks: there are 6 classes" in "\n".join(
        summary_lines(metrics)
    )


def test_larger_tasks_have_as_many_queries_as_the_smallest(monkeypatch):
    asked = {}

    def watched(scorer, data, *, design, **options):
        asked[design.num_ways] = design.num_queries
        return original(scorer, data, design=design, **options)

    original = evaluators.classification.few_shot_accuracy

    monkeypatch.setattr(evaluators.classification, "few_shot_accuracy", watched)
    data = uniform_data((3,) * 8)
    metrics = evaluate(data, ways=(6, 2, 50), shots=(1,))
    assert keys(metrics, "accuracy") == [
        "2way_1shot",
        "6way_1shot",
        "8way_1shot",
    ]
    assert asked == {2: None, 6: 2, 8: 2}
    assert metrics.left_out[0] == (
        "50-way tasks: there are 8 classes, so 8-way instead"
    )
    assert metrics.left_out[1].startswith("the ELBO")


def test_ways_lowered_to_the_same_are_measured_once():
    lines = []
    metrics = evaluate(
        uniform_data((3,) * 4),
        ways=(20, 200),
        shots=(1,),
        progress=lines.append,
    )
    assert keys(metrics, "accuracy") == ["4way_1shot"]
    assert sum(line.startswith("4-way") for line in lines) == 2  # tasks
    assert [line[:7] for line in metrics.left_out[:2]] == [
        "20-way ",
        "200-way",
    ]


def test_likelihoods_can_be_in_bits_too(report_and_lines):
    report, _ = report_and_lines
    in_bits = report.in_bits((2, 3, 4))
    for before, after in zip(
        report.measurements, in_bits.measurements, strict=True
    ):
        if before.metric == "accuracy":
            assert after == before
            continue
        assert after == dataclasses.replace(before, num_dimensions=24)
        bits = after.bits_per_dimension
        for name in ("mean", "interval"):
            assert getattr(bits, name) == pytest.approx(
                np.array(getattr(before, name)) / 24 / np.log(2), rel=1e-6
            )
    assert strict_round_trip(in_bits) == as_read(in_bits)


def of(metric, mean, half_width=None, **fields):
    interval = half_width and (mean - half_width, mean + half_width)
    return Measurement(metric, mean, interval, **fields)


def test_a_summary_names_nats_and_bits():
    nats = 40 * 40 * 3 * np.log(2.0)  # of one bit per dimension
    per_image = {"unit": "nats per image"}
    report = Report(
        (
            of("elbo", -1.5 * nats, 0.01 * nats, **per_image),
            of(
                "joint_nll",
                1.25 * nats,
                num_samples=20,
                effective_sample_size=3.0,
                **per_image,
            ),
            of("conditional_nll", 2.0 * nats, 1.0, shots=1, **per_image),
            of("conditional_nll", 1.75 * nats, 1.0, shots=5, **per_image),
            of("training_kl", 31.0, 0.5, latent="person", unit="nats"),
            of("training_kl", 4.0, latent="video", unit="nats"),
        ),
        caveat="not comparable",
    )
    assert summary_lines(report.in_bits((40, 40, 3))) == [
        "ELBO: -4990.66 ± 33.27 nats per image = -1.500 ± 0.010 bits per "
        "dimension",
        "joint NLL <= 4158.88 nats per image = 1.250 bits per dimension "
        "(k = 20, effective sample size 3.0)",
        "NLL of a new image, by shots: 1: 6654.2, 5: 5822.4 nats",
        "the same in bits per dimension: 1: 2.000, 5: 1.750",
        "KL of person, training set: 31.00 ± 0.50 nats",
        "KL of video, training set: 4.00 nats",
        "not comparable",
    ]


def test_an_unknown_grouping_to_classify_within_is_an_error_at_once():
    lines = []
    with pytest.raises(ValueError, match=r"\['character'\].*'alphabet'"):
        evaluate(uniform_data(), within="alphabet", progress=lines.append)
    assert not lines


def test_a_single_group_makes_a_report_without_an_interval():
    metrics = evaluate(uniform_data((4,)))
    assert metrics["joint_nll"].half_width is None
    assert keys(metrics, "accuracy") == ["1way_1shot", "1way_2shot"]
    assert strict_round_trip(metrics) == as_read(metrics)
    [joint] = [line for line in summary_lines(metrics) if "joint" in line]
    assert f"<= {metrics['joint_nll'].mean:.2f} nats per image" in joint


def test_a_report_without_any_shots_has_its_joint_nll():
    metrics = evaluate(uniform_data((1, 1, 1)))
    assert not keys(metrics, "accuracy")
    assert not keys(metrics, "conditional_nll")
    line, *left_out = summary_lines(metrics)
    assert line.startswith("joint NLL <= ")
    assert left_out == [f"left out: {why}" for why in metrics.left_out]


def test_a_report_says_how_far_it_is(report_and_lines):
    _, lines = report_and_lines
    for part in (
        "3-way 1-shot: task",
        "ELBO: batch 8 of 8, -",
        "joint NLL: group",
        "after 5 shots",
    ):
        assert any(part in line for line in lines)


def test_a_summary_is_lines_for_a_person():
    def accuracy(mean, half_width=None, *, ways=20, shots=1, **fields):
        return of(
            "accuracy",
            mean,
            half_width,
            ways=ways,
            shots=shots,
            chance=1 / ways,
            **fields,
        )

    def probe(latent, factor, mean, chance):
        return of("probe", mean, 0.01, latent=latent, factor=factor,
                  chance=chance)  # fmt: skip

    transferred = {
        "style": (0.9, 0.01),
        "content": (0.8, 0.02),
        "style_of_true": (0.99, 0.03),
        "content_of_true": (0.95, 0.04),
        "content_kept": (0.7, 0.05),
        "style_kept": (0.6, 0.06),
        "style_changed": (0.5, None),
    }
    report = Report(
        (
            accuracy(0.81234, 0.0123),
            accuracy(0.9, 0.1, ways=5, shots=5, within="alphabet"),
            accuracy(0.7, 0.02, ways=10, shots=5, by="alphabet"),
            of("elbo", -80.126, 0.504),
            of("conditional_nll", 70.06, 1.0, shots=1),
            of("conditional_nll", 60.0, 1.0, shots=19),
            of(
                "joint_nll",
                61.237,
                0.456,
                num_samples=500,
                effective_sample_size=12.34,
            ),
            accuracy(0.5, tasks="lake_runs"),
            probe("character", "character", 0.812, 0.0125),
            probe("character", "style", 0.2, 0.1),
            probe("style", "style", 0.95, 0.1),
            *(
                of("transfer", mean, half_width, factor=name)
                for name, (mean, half_width) in transferred.items()
            ),
        ),
        left_out=("a thing: no reason",),
    )
    assert summary_lines(report) == [
        "20-way 1-shot accuracy: 81.2% [80.0%, 82.5%] (chance 5.0%)",
        "5-way 5-shot within alphabet accuracy: "
        "90.0% [80.0%, 100.0%] (chance 20.0%)",
        "10-way 5-shot by alphabet accuracy: "
        "70.0% [68.0%, 72.0%] (chance 10.0%)",
        "20-way 1-shot in Lake's runs accuracy: 50.0% (chance 5.0%)",
        "ELBO: -80.13 ± 0.50 nats per image",
        "joint NLL <= 61.24 ± 0.46 nats per image (k = 500, effective sample "
        "size 12.3)",
        "NLL of a new image, by shots: 1: 70.1, 19: 60.0 nats",
        "linear probe of character, from one image: character 81.2% (chance "
        "1.2%), style 20.0% (chance 10.0%)",
        "linear probe of style, from one image: style 95.0% (chance 10.0%)",
        "redrawn in another style: right style 90.0% [89.0%, 91.0%] "
        "(true images 99.0% [96.0%, 102.0%]), right content 80.0% [78.0%, "
        "82.0%] (true images 95.0% [91.0%, 99.0%]), by oracle classifiers",
        "another style keeps the content 70.0% [65.0%, 75.0%] and changes the "
        "style 50.0%; another content keeps the style 60.0% [54.0%, 66.0%]",
        "left out: a thing: no reason",
    ]


# The ELBO ---------------------------------------------------------------------


def elbo_of(model, data, **settings):
    [bound] = elbo.Elbo(data, **settings)(model)
    return bound


def bound_of(world, num_shots):
    # One batch is one pass over the 8 groups of 4 images.
    data = uniform_data((4,) * 8)
    bound = elbo_of(world.model, data, num_shots=num_shots, num_batches=200)
    images = data.images.reshape(8, 4, -1)
    evidence = np.mean([world.log_evidence(x) for x in images]) / 4
    return bound, NUM_ERRORS * bound.standard_error, evidence


def test_the_bound_is_the_evidence_where_the_posterior_is_true():
    # D = X, without z: nothing is lost.
    bound, error, evidence = bound_of(GaussianWorld(2), 4)
    assert 0.0 < error < 0.1
    assert abs(bound.mean - evidence) < error


@pytest.mark.parametrize(
    ("settings", "num_shots"), [({}, 1), ({"width": 1.5}, 4)]
)
def test_the_bound_is_below_the_evidence_where_it_is_not(settings, num_shots):
    bound, error, evidence = bound_of(GaussianWorld(2, **settings), num_shots)
    assert bound.mean + error < evidence


def test_the_bound_is_of_the_objective_that_the_model_has():
    data = uniform_data((4,) * 8)
    world = GaussianWorld(2)
    settings = {"num_shots": 2, "num_batches": 20}
    bounds = {}
    for objective in ("vhe", "rescale", "neural_statistician"):
        world.model.objective = Objective(objective)
        bounds[objective] = elbo_of(world.model, data, **settings).mean
    # Rescale has no bound: it is measured by the ELBO of the VHE.
    assert bounds["rescale"] == bounds["vhe"]
    assert bounds["neural_statistician"] != bounds["vhe"]


def test_the_bound_repeats_with_its_seed():
    def bound(seed):
        return elbo_of(
            GaussianWorld(2).model,
            uniform_data((4,) * 8),
            num_shots=2,
            num_batches=2,
            seed=seed,
        )

    assert bound(3) == bound(3)
    assert bound(3).mean != bound(4).mean


def test_group_ids_need_not_be_consecutive():
    data = uniform_data((3, 3))
    shifted = GroupedImages(
        data.images, {"character": 7 + 5 * data.labels["character"]}
    )
    metrics = evaluate(shifted, shots=(1,))
    assert keys(metrics, "accuracy") == ["2way_1shot"]
