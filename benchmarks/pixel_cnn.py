"""Speed of the gated PixelCNN: training, scoring, sampling, classification.

    python benchmarks/pixel_cnn.py
    python benchmarks/pixel_cnn.py --images=colour

Binary 28x28 images, or 8-bit colour images of 40x40, a mixture of 5 logistics
a pixel; 32 filters, 6 gated blocks. Every figure stands beside
its yardstick, timed in turn with it in the same run, so that ratios hold on a
noisy machine:

- training and scoring: the same network as a plain stack of convolutions
  whose kernels are multiplied by masks, as it is usually written;
- sampling: the naive sampler, which evaluates the whole image for each pixel,
  and `tfp.distributions.PixelCNN` of about the same size;
- classification (binary images): a loop over classes and samples.
"""

import functools
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import measure
import numpy as np
import small_models
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure
from tensorflow_probability import distributions as tfd

import vhe_tf
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.pixel_cnn import Pixels
from vhe_tf.evaluation import ClassScorer
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

_PARTS = flags.DEFINE_list(
    "parts", ["network", "sampling", "classification"], "What to measure."
)
_TFP = flags.DEFINE_bool(
    "tfp", True, "Sample from tfp.distributions.PixelCNN too (a minute)."
)
IMAGES = flags.DEFINE_enum(
    "images", "binary", ["binary", "colour"], "Which images to model."
)

_IMAGE_SHAPES = {"binary": (28, 28, 1), "colour": (40, 40, 3)}
FILTERS = 32
BLOCKS = 6
BATCH_SIZE = 32


def _image_shape() -> tuple[int, int, int]:
    return _IMAGE_SHAPES[IMAGES.value]


def _pixels() -> Pixels:
    if IMAGES.value == "binary":
        return BernoulliPixels()
    return DiscretizedLogisticPixels(num_components=5)


def _num_parameters() -> int:
    return _pixels().num_parameters(_image_shape()[2])


class PlainPixelCNN(keras.layers.Layer):
    """The yardstick: `GatedPixelCNN` by full kernels times masks."""

    def build(self, input_shape: Sequence[int]) -> None:
        """Makes kernels, biases and masks."""
        f = FILTERS

        def convolution(
            rows: int, columns: int, size_in: int, size_out: int, seen: int
        ) -> Any:
            # The first `seen` taps in raster order count; in a vertical
            # stack, `seen` rows of them.
            kernel = self.add_weight(
                shape=(rows, columns, size_in, size_out),
                initializer="glorot_uniform",
            )
            bias = self.add_weight(shape=(size_out,), initializer="zeros")
            mask = np.zeros((rows, columns, 1, 1), np.float32)
            if rows > 1:
                mask[:seen] = 1.0
            else:
                mask[:, :seen] = 1.0
            return kernel, bias, mask

        channels = input_shape[-1]
        self.first_above = convolution(7, 7, channels, f, 3)
        self.first_left = convolution(1, 7, channels, f, 3)
        self.blocks = [
            (
                convolution(3, 3, f, 2 * f, 2),
                convolution(1, 3, f, 2 * f, 2),
                convolution(1, 1, 2 * f, 2 * f, 1),
                convolution(1, 1, f, f, 1),
            )
            for _ in range(BLOCKS)
        ]
        self.hidden = convolution(1, 1, f, f, 1)
        self.parameters = convolution(1, 1, f, _num_parameters(), 1)

    def call(self, images: tf.Tensor, conditioning: None = None) -> tf.Tensor:
        """Returns the parameters of all pixels, `[N, H, W, P]`."""
        above = _masked(self.first_above, images)
        left = _masked(self.first_left, images)
        for from_above, from_left, across, residual in self.blocks:
            above_in = _masked(from_above, above)
            left_in = _masked(from_left, left) + _masked(across, above_in)
            above += _plain_gate(above_in)
            left += _masked(residual, _plain_gate(left_in))
        hidden = tf.nn.elu(_masked(self.hidden, tf.nn.elu(left)))
        return _masked(self.parameters, hidden)


def _masked(convolution: Any, images: tf.Tensor) -> tf.Tensor:
    kernel, bias, mask = convolution
    return tf.nn.conv2d(images, kernel * mask, 1, "SAME") + bias


def _plain_gate(features: tf.Tensor) -> tf.Tensor:
    a, b = tf.split(features, 2, axis=-1)
    return tf.tanh(a) * tf.sigmoid(b)


def main(argv: Sequence[str]) -> None:
    """Measures each part and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    keras.utils.set_random_seed(0)
    for part in _PARTS.value:
        if part == "classification" and IMAGES.value == "colour":
            continue
        {
            "network": measure_network,
            "sampling": measure_sampling,
            "classification": measure_classification,
        }[part]()


def measure_network() -> None:
    """Reports images trained and scored per second, plain and ours."""
    batch = images(BATCH_SIZE)
    calls: dict[str, Callable[[], Any]] = {}
    for name, network, jit_compile in (
        ("plain", PlainPixelCNN(), False),
        ("plain, XLA", PlainPixelCNN(), True),
        ("ours", gated(), False),
        ("ours, XLA", gated(), True),
    ):
        distribution = PixelCNN(network, _pixels(), _image_shape())
        train = training_step(network, distribution, jit_compile)
        score = tf.function(distribution.log_prob, jit_compile=jit_compile)
        calls[f"train {name}"] = functools.partial(train, batch)
        calls[f"score {name}"] = functools.partial(score, batch)
    seconds = measure.best_seconds(calls, repeats=3)
    figures = []
    for task in ("train", "score"):
        plain = min(seconds[f"{task} plain"], seconds[f"{task} plain, XLA"])
        for name in ("plain", "plain, XLA", "ours", "ours, XLA"):
            value = seconds[f"{task} {name}"]
            figures.append(
                Figure(
                    f"{task}, {name}",
                    BATCH_SIZE / value,
                    "images per second",
                    "the better plain stack",
                    plain / value,
                )
            )
    measure.report(f"The gated PixelCNN, {IMAGES.value} images", figures)


def gated() -> GatedPixelCNN:
    """Returns our network."""
    return GatedPixelCNN(_num_parameters(), filters=FILTERS, num_blocks=BLOCKS)


def training_step(
    network: Any, distribution: tfd.Distribution, jit_compile: bool = False
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a training step, of the optimizer of a run.

    Args:
        network: Any. Whatever has the `trainable_variables` of the
            distribution.
        distribution: Distribution. The distribution of images.
        jit_compile: Boolean. Whether to compile it by XLA. Defaults to False.
    """
    distribution.log_prob(tf.zeros([1, *distribution.event_shape]))  # builds
    optimizer = small_models.optimizer()
    optimizer.build(network.trainable_variables)

    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution.log_prob(images))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    return tf.function(step, jit_compile=jit_compile)


def measure_sampling() -> None:
    """Reports images sampled per second, ours, naive and by TFP."""
    network = gated()
    distribution = PixelCNN(network, _pixels(), _image_shape())
    seed = tf.constant([1, 2])
    calls: dict[str, Callable[[], Any]] = {}
    for count in (1, 64):
        sample = functools.partial(distribution.sample, count, seed=seed)
        calls[f"cached, {count}"] = sample
        calls[f"cached, {count}, XLA"] = tf.function(sample, jit_compile=True)
    naive = tf.function(network)
    calls["naive, 1"] = lambda: sample_naively(naive, [1, *_image_shape()])
    seconds = measure.best_seconds(calls)
    if _TFP.value and IMAGES.value == "binary":
        seconds["tfp, 1"] = _seconds_of_tfp()
    figures = []
    for name, value in seconds.items():
        count = int(name.split(", ")[1])
        naive_seconds = count * seconds["naive, 1"]
        figures.append(
            Figure(
                f"sample, {name}",
                count / value,
                "images per second",
                "the naive sampler",
                naive_seconds / value,
            )
        )
    measure.report(f"Sampling, {IMAGES.value} images", figures)


def sample_naively(
    network: Callable[..., tf.Tensor], shape: Sequence[int]
) -> None:
    """Samples images, `[N, H, W, C]`, each pixel by an evaluation of all."""
    pixels = _pixels()
    draw = tf.function(pixels.transform)
    noise = pixels.noise(shape, tf.constant([[1, 2]]))[0]
    images = np.zeros(shape, np.float32)
    for i in range(shape[1]):
        for j in range(shape[2]):
            parameters = network(tf.constant(images), None)[:, i, j]
            images[:, i, j] = draw(
                parameters, noise[:, i, j], temperature=tf.constant(1.0)
            )


def _seconds_of_tfp() -> float:
    """Times one image from TFP's PixelCNN, warmed up on a smaller one."""
    _, *width_and_channels = _image_shape()
    for height in (2, _image_shape()[0]):
        distribution = tfp_distribution([height, *width_and_channels])
        start = time.perf_counter()
        distribution.sample(1)
        seconds = time.perf_counter() - start
    return seconds


def tfp_distribution(image_shape: Sequence[int]) -> tfd.PixelCNN:
    """Returns TFP's PixelCNN of binary images, of the size of our network."""
    return tfd.PixelCNN(
        image_shape=tuple(image_shape),
        num_resnet=1,
        num_hierarchies=1,
        num_filters=24,
        num_logistic_mix=1,
        dropout_p=0.0,
        use_weight_norm=False,
        use_data_init=False,
        high=1,
    )


def measure_classification() -> None:
    """Reports queries classified per second, 20-way 5-shot, 20 samples of c."""
    num_ways, num_shots, num_samples = 20, 5, 20
    model = vhe_tf.pixel_cnn_vhe("small")
    support = images(num_ways * num_shots).numpy()
    support = support.reshape(num_ways, num_shots, *_image_shape())
    queries = images(20).numpy()
    scorer = ClassScorer(model, group="character", num_samples=num_samples)
    infer = tf.function(model.infer)
    score = tf.function(model.log_likelihood_given)
    seed = tf.constant([0, 0])

    def loop() -> None:
        query = tf.constant(queries[:1])
        for of_class in support:
            samples = infer(
                {"character": tf.constant(of_class[np.newaxis])},
                seed=seed,
                num_samples=num_samples,
            )
            for sample in samples["character"]:
                score({"character": sample}, query, seed=seed)

    counts = {"ours, 1 query": 1, "ours, 20 queries": 20}
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(scorer, support, queries[:count], seed=(0, 0))
        for name, count in counts.items()
    }
    seconds = measure.best_seconds({**calls, "loop": loop})
    plain = 1 / seconds["loop"]
    measure.report(
        f"Classification, {num_ways}-way {num_shots}-shot, "
        f"{num_samples} samples",
        [
            Figure(
                "a loop over classes and samples", plain, "queries per second"
            ),
            *(
                Figure(
                    name,
                    count / seconds[name],
                    "queries per second",
                    "the loop",
                    count / seconds[name] / plain,
                )
                for name, count in counts.items()
            ),
        ],
    )


def images(count: int) -> tf.Tensor:
    """Returns `[count, H, W, C]` noise, of binary images a tenth ink."""
    noise = tf.random.stateless_uniform(
        [count, *_image_shape()], seed=[0, count]
    )
    if IMAGES.value == "binary":
        return tf.cast(noise < 0.1, tf.float32)
    return tf.round(255.0 * noise) / 255.0


if __name__ == "__main__":
    app.run(main)
