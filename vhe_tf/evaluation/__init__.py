"""Few-shot accuracy and likelihoods of a trained model."""

from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.classification import few_shot_accuracy
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import conditional_nll
from vhe_tf.evaluation.likelihood import joint_nll

__all__ = [
    "ClassScorer",
    "Estimate",
    "JointScorer",
    "conditional_nll",
    "few_shot_accuracy",
    "joint_nll",
]
