"""Experiments as values, by name, and what runs them.

    vhe-tf train quickstart

Nothing here imports TensorFlow before it is needed.
"""

from vhe_tf.experiments.config import Evaluation
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.config import override
from vhe_tf.experiments.registry import EXPERIMENTS
from vhe_tf.experiments.registry import get
from vhe_tf.experiments.run import Run

__all__ = ["EXPERIMENTS", "Evaluation", "Experiment", "Run", "get", "override"]
