"""Few-shot accuracy, likelihoods and factors of a trained model."""

from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.classification import few_shot_accuracy
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import conditional_nll
from vhe_tf.evaluation.likelihood import joint_nll
from vhe_tf.evaluation.oracle_classifier import Judge
from vhe_tf.evaluation.oracle_classifier import train_judge
from vhe_tf.evaluation.probes import Probe
from vhe_tf.evaluation.probes import linear_probe
from vhe_tf.evaluation.probes import posterior_means

__all__ = [
    "ClassScorer",
    "Estimate",
    "JointScorer",
    "Judge",
    "Probe",
    "conditional_nll",
    "few_shot_accuracy",
    "joint_nll",
    "linear_probe",
    "posterior_means",
    "train_judge",
]
