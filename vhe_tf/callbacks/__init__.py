"""Keras callbacks for training a VHE, each usable in any `fit` of one."""

from vhe_tf._utils import backend  # noqa: F401
from vhe_tf.callbacks.best_model import BestModel
from vhe_tf.callbacks.evaluate import Evaluate
from vhe_tf.callbacks.exact_resume import ExactResume
from vhe_tf.callbacks.few_shot_accuracy import FewShotAccuracy
from vhe_tf.callbacks.image_grids import ImageGrids
from vhe_tf.callbacks.image_grids import PreviewBatch
from vhe_tf.callbacks.image_grids import preview_batch
from vhe_tf.callbacks.likelihoods import Likelihoods
from vhe_tf.callbacks.preemption import Preemption
from vhe_tf.callbacks.preemption import stop_at_once
from vhe_tf.callbacks.progress import ProgressLine
from vhe_tf.callbacks.scalars import Scalars

__all__ = [
    "BestModel",
    "Evaluate",
    "ExactResume",
    "FewShotAccuracy",
    "ImageGrids",
    "Likelihoods",
    "Preemption",
    "PreviewBatch",
    "ProgressLine",
    "Scalars",
    "preview_batch",
    "stop_at_once",
]
