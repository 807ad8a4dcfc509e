import json
import pathlib

import pytest

from vhe_tf import experiments
from vhe_tf.experiments.config import Evaluation
from vhe_tf.experiments.registry import EVALUATIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = json.loads(
    pathlib.Path(__file__).with_name("registry.json").read_text("utf-8")
)


def test_the_experiments_are_those_that_were_run():
    assert set(experiments.EXPERIMENTS) == set(KEPT)


@pytest.mark.parametrize("name", KEPT)
def test_an_experiment_keeps_its_settings(name):
    kept = KEPT[name]
    assert experiments.get(name).to_json() == kept["experiment"]
    evaluation = EVALUATIONS.get(name, Evaluation())
    assert evaluation.to_json() == kept["evaluation"]


def test_an_experiment_without_a_name_is_rejected():
    with pytest.raises(
        ValueError, match=r"Did you mean quickstart\?.*'quikstart'"
    ):
        experiments.get("quikstart")


def test_evaluations_are_of_experiments():
    assert set(EVALUATIONS) <= set(experiments.EXPERIMENTS)
