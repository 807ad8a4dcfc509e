"""Trains the networks that judge drawings of characters.

    python tools/train_critics.py --data_dir=DIR

Both are trained on the background set of Omniglot: the prototypical network to
recognise a character by another drawing of it (Snell et al. 2017), the
contrastive one to recognise an affine copy of a drawing (SimCLR, Chen et al.
2020). They are written where the package looks for them; see
`vhe_tf.evaluation.DrawingCritics`.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "A TensorFlow Datasets folder with Omniglot."
)
_OUT = flags.DEFINE_string(
    "out", "vhe_tf/evaluation/critics", "The folder to write."
)
_STEPS = flags.DEFINE_integer(
    "steps", 1500, "Training steps of each network.", lower_bound=1
)

_FILTERS = 48
_BLOCKS = 3
_FEATURES = 128
_BATCH_SIZE = 64
_TEMPERATURE = 0.2


def main(argv: Sequence[str]) -> None:
    """Loads the data, trains, writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np

    from vhe_tf.data import GroupedImages
    from vhe_tf.experiments import Experiment
    from vhe_tf.experiments import endings
    from vhe_tf.experiments.data import load_data

    with endings.exit_on_user_error():
        splits = load_data(Experiment(), data_dir=_DATA_DIR.value)
        data = splits.train.load()
        pathlib.Path(_OUT.value).mkdir(parents=True, exist_ok=True)
    augmentation = splits.augmentation(symmetries=8, affine_copies=20)
    drawings = GroupedImages(
        data.images, {"character": np.arange(len(data.images))}
    )
    for name, groups, contrastive in (
        ("proto_net", data, False),
        ("simclr", drawings, True),
    ):
        network = train(
            groups,
            augmentation=augmentation,
            contrastive=contrastive,
            steps=_STEPS.value,
        )
        path = pathlib.Path(_OUT.value, f"{name}.npz")
        save(network, path)
        print(f"Made {path}")


def train(
    data: Any, *, augmentation: Any, contrastive: bool, steps: int
) -> Any:
    """Returns a network that knows another image of a group among others.

    Args:
        data: `GroupedData` with the grouping `"character"`.
        augmentation: `Augmentation`.
        contrastive: Boolean. Whether to compare cosines of a projection of the
            features (SimCLR) instead of distances of the features.
        steps: Integer. Number of training steps.
    """
    import keras
    import tensorflow as tf

    from vhe_tf.data import Episodes

    keras.utils.set_random_seed(0)
    network = _network()
    project = keras.layers.Dense(64, use_bias=False)
    episodes = Episodes(
        data,
        batch_size=_BATCH_SIZE,
        support_size=1,
        resamples=True,
        group_latents=["character"],
        augmentation=augmentation,
    )
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(2e-3, steps)
    )

    def scores(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        if contrastive:
            pair = [
                tf.math.l2_normalize(project(v), 1) for v in (first, second)
            ]
            return tf.matmul(*pair, transpose_b=True) / _TEMPERATURE
        return (
            2.0 * tf.matmul(first, second, transpose_b=True)
            - tf.reduce_sum(second**2, axis=1)
            - tf.reduce_sum(first**2, axis=1)[:, None]
        ) / first.shape[1]

    @tf.function
    def step(query: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            both = network(tf.concat([query, support], axis=0), training=True)
            logits = scores(*tf.split(both, 2))
            labels = tf.range(_BATCH_SIZE)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                + tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, tf.transpose(logits)
                )
            )
        variables = network.trainable_variables
        if contrastive:
            variables = variables + project.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    project.build((None, _FEATURES))
    for index, episode in enumerate(episodes.dataset().take(steps)):
        loss = step(episode["query"], episode["support"]["character"][:, 0])
        if (index + 1) % 100 == 0:
            print(f"step {index + 1} of {steps}, loss {loss:.3f}", flush=True)
    return network


def save(network: Any, path: pathlib.Path) -> None:
    """Writes a network as a `DrawingCritic` reads it, in half precision."""
    import keras
    import numpy as np

    from vhe_tf._utils import atomic_io

    arrays: dict[str, Any] = {"image_size": np.int32(network.input_shape[1])}
    blocks = {keras.layers.Conv2D: 0, keras.layers.BatchNormalization: 1}
    counts = dict.fromkeys(blocks, 0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            arrays |= {"embedding.out.weight": kernel.T}
            arrays |= {"embedding.out.bias": bias}
        if type(layer) not in blocks:
            continue
        prefix = f"embedding.{counts[type(layer)]}.{blocks[type(layer)]}"
        counts[type(layer)] += 1
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            arrays[f"{prefix}.weight"] = kernel.transpose(3, 2, 0, 1)
            arrays[f"{prefix}.bias"] = bias
        else:
            names = ("weight", "bias", "running_mean", "running_var")
            for name, value in zip(names, layer.get_weights(), strict=True):
                arrays[f"{prefix}.{name}"] = value
    halves = {
        name: value.astype(np.float16) if value.dtype == np.float32 else value
        for name, value in arrays.items()
    }
    with atomic_io.beside(path) as partial, open(partial, "wb") as file:
        np.savez(file, **halves)


def _network() -> Any:
    import keras

    layers = keras.layers
    blocks = [
        layer
        for _ in range(_BLOCKS)
        for layer in (
            layers.Conv2D(_FILTERS, 3, padding="same"),
            layers.BatchNormalization(epsilon=1e-5, momentum=0.98),
            layers.ReLU(),
            layers.MaxPooling2D(),
        )
    ]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *blocks,
            layers.Permute((3, 1, 2)),  # PyTorch flattens channels first
            layers.Flatten(),
            layers.ReLU(),
            layers.Dense(_FEATURES),
        ]
    )


if __name__ == "__main__":
    app.run(main)
