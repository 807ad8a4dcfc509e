"""XLA and mixed precision compute what float32 does, as near as they can."""

import contextlib
import functools
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests import tiny_run
from tests.conftest import IMAGE_SHAPE
from tests.conftest import perturb
from tests.conftest import tiny_deconvolutional_sizes
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_sizes
from vhe_tf.layers.dropout import SeededDropout
from vhe_tf.optimizers import AveragingAdam

BATCH_SIZE = 4
STEPS = 4
LEARNING_RATES = {"deconvolutional": 1e-4, "pixel_cnn": 3e-5}


class Tolerance(NamedTuple):
    """Largest relative differences from float32."""

    bound: float
    gradient_norm: float


# Of --precision and --jit_compile, whose help states them. The bound of
# bfloat16 is off by a few of its roundings, of up to 2^-8 = 0.4% each. How many
# depends on the processor: some kernels accumulate in float32, others round
# every sum (0.1% to 0.8% measured, and up to 2.4% of the gradient's norm).
MODES = {
    ("float32", True): Tolerance(1e-5, 1e-4),
    ("mixed_bfloat16", False): Tolerance(2e-2, 5e-2),
    ("mixed_float16", False): Tolerance(2e-3, 1e-2),
}


@contextlib.contextmanager
def policy(name):
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)


def tiny(kind):
    """Makes a small model of few features, without dropout."""
    keras.utils.set_random_seed(0)
    with tiny_deconvolutional_sizes(), tiny_pixel_cnn_sizes():
        make = getattr(vhe_tf, f"{kind}_vhe")
        model = make("small", image_shape=IMAGE_SHAPE)
    perturb(model)
    for layer in model._flatten_layers():
        if isinstance(layer, SeededDropout):
            layer.rate = 0.0
    return model


def compiled(kind, precision, **options):
    with policy(precision):
        model = tiny(kind)
    optimizer = keras.optimizers.SGD(LEARNING_RATES[kind])
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=2.0**7
        )
    model.compile(optimizer, **options)
    return model


def values(model):
    return np.concatenate([np.ravel(v) for v in model.trainable_variables])


@functools.cache
def training(kind, precision, jit_compile):
    """Takes a few steps on one batch.

    Returns:
        The loss before each, and the norm of the first gradient.
    """
    model = compiled(kind, precision, jit_compile=jit_compile)
    episode = tiny_episode(batch_size=BATCH_SIZE, support_size=3)
    before = values(model)
    losses, norm = [], None
    batch = tf.data.Dataset.from_tensors(episode)
    for _ in range(STEPS):
        history = model.fit(batch, shuffle=False, verbose=0).history
        losses += history["loss"]
        if norm is None:
            norm = np.linalg.norm(values(model) - before)
    return np.array(losses), norm / LEARNING_RATES[kind]


@pytest.mark.parametrize("kind", ["deconvolutional", "pixel_cnn"])
@pytest.mark.parametrize("mode", MODES)
def test_bound_and_gradient_are_those_of_float32(kind, mode):
    losses, norm = training(kind, *mode)
    wanted_losses, wanted_norm = training(kind, "float32", False)
    for each in (losses, wanted_losses):
        assert np.all(np.isfinite(each))
        # All steps together lower the loss by more than bfloat16 rounds it.
        assert each[-1] < each[0]
    np.testing.assert_allclose(
        losses[0], wanted_losses[0], rtol=MODES[mode].bound
    )
    np.testing.assert_allclose(
        norm, wanted_norm, rtol=MODES[mode].gradient_norm
    )


def test_a_float16_step_in_microbatches_is_the_same():
    moves = []
    for accumulation in (1, 4):
        model = compiled(
            "deconvolutional", "mixed_float16", accumulation=accumulation
        )
        before = values(model)
        model.train_step(tiny_episode(batch_size=BATCH_SIZE, support_size=3))
        moves.append(values(model) - before)
    assert np.any(moves[0])
    tolerance = MODES["mixed_float16", False].gradient_norm
    assert np.linalg.norm(moves[1] - moves[0]) < tolerance * np.linalg.norm(
        moves[0]
    )


# Steps that float16 skips -----------------------------------------------------


class _Die(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self._left = step

    def on_train_batch_end(self, batch, logs=None):
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def train_in_float16(folder, *, callbacks=()):
    """Trains with a loss scale that the gradients of the first steps exceed."""
    with policy("mixed_float16"):
        model = tiny_run.tiny_model()
    assert model.latents[0].posterior.compute_dtype == "float16"
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            AveragingAdam(1e-2, use_ema=True, ema_momentum=0.5),
            initial_scale=2.0**21,
        )
    )
    tiny_run.train(folder, tiny_run.sampler(), model=model, callbacks=callbacks)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_in_float16(folder)


def test_steps_count_where_the_optimizer_skips_them(whole):
    folder, model = whole
    steps = tiny_run.EPOCHS * tiny_run.STEPS
    taken = int(model.optimizer.iterations.numpy())
    assert tiny_run.STEPS < steps - taken < steps - 2
    assert model.optimizer.dynamic_scale.numpy() == 2.0 ** (21 - steps + taken)
    assert tiny_run.latest(folder) == f"ckpt-{steps}"


# Within the steps that are skipped, and after them.
@pytest.mark.parametrize("step", [6, 11])
def test_a_run_cut_short_goes_on_at_its_step_and_scale(whole, step, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in_float16(tmp_path, callbacks=[_Die(step)])
    model = train_in_float16(tmp_path)
    tiny_run.assert_same_models(tmp_path, whole[0])
    for value, wanted in zip(
        model.optimizer.variables, whole[1].optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(value, wanted)
