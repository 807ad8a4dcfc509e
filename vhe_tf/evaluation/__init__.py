"""Few-shot accuracy, likelihoods and factors of a trained model."""

from vhe_tf._utils import backend  # noqa: F401
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.classification import PosteriorScorer
from vhe_tf.evaluation.classification import few_shot_accuracy
from vhe_tf.evaluation.drawing_critics import DrawingCritic
from vhe_tf.evaluation.drawing_critics import DrawingCritics
from vhe_tf.evaluation.drawings import Drawings
from vhe_tf.evaluation.drawings import drawing_classes
from vhe_tf.evaluation.elbo import Elbo
from vhe_tf.evaluation.elbo import TrainingKL
from vhe_tf.evaluation.evaluators import ConditionalLikelihood
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.evaluators import FewShotClassification
from vhe_tf.evaluation.evaluators import JointLikelihood
from vhe_tf.evaluation.evaluators import LakeRuns
from vhe_tf.evaluation.evaluators import Probes
from vhe_tf.evaluation.evaluators import Sampling
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import conditional_nll
from vhe_tf.evaluation.likelihood import joint_nll
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.new_groups import NewGroups
from vhe_tf.evaluation.open_set import NoveltyScorer
from vhe_tf.evaluation.open_set import OpenSet
from vhe_tf.evaluation.oracle_classifier import train_oracle_classifier
from vhe_tf.evaluation.probes import linear_probe
from vhe_tf.evaluation.probes import posterior_means
from vhe_tf.evaluation.style_transfer import StyleTransfer
from vhe_tf.evaluation.summary import EvaluationSettings
from vhe_tf.evaluation.summary import Report
from vhe_tf.evaluation.summary import evaluate
from vhe_tf.evaluation.summary import summary_lines
from vhe_tf.evaluation.tasks import TaskDesign
from vhe_tf.evaluation.tasks import few_shot_tasks

__all__ = [
    "ClassScorer",
    "ConditionalLikelihood",
    "DrawingCritic",
    "DrawingCritics",
    "Drawings",
    "Elbo",
    "EvaluationSettings",
    "Evaluator",
    "FewShotClassification",
    "JointLikelihood",
    "JointScorer",
    "LakeRuns",
    "Measurement",
    "NewGroups",
    "NoveltyScorer",
    "OpenSet",
    "PosteriorScorer",
    "Probes",
    "Report",
    "Sampling",
    "StyleTransfer",
    "TaskDesign",
    "TrainingKL",
    "conditional_nll",
    "drawing_classes",
    "evaluate",
    "few_shot_accuracy",
    "few_shot_tasks",
    "joint_nll",
    "linear_probe",
    "posterior_means",
    "summary_lines",
    "train_oracle_classifier",
]
