"""Any structure of your own: three latents over a table of labels.

    python examples/own_structure.py               # the embedded glyphs
    python examples/own_structure.py labels.csv    # columns image, alphabet,
                                                   # character, drawer

A copy of this file is where to begin: a column of the table is a latent. Here
characters lie within alphabets and drawers go across both; a cell may be
empty, and then that image takes the latent's prior. At the end a linear probe
says which latent knows which column, on alphabets that were never seen. To
train on several GPUs, make and compile the model within
`vhe_tf.distribute.make_strategy("mirrored").scope()`.
"""

import sys

import keras

import vhe_tf
import vhe_tf.callbacks
from vhe_tf.data import Episodes
from vhe_tf.data import datasets
from vhe_tf.data import generate_glyphs
from vhe_tf.data import read_label_table
from vhe_tf.evaluation import Probes
from vhe_tf.experiments import endings
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference

SIZE, UNITS, FILTERS = 16, 128, (16, 32, 48)
EPOCHS, STEPS_PER_EPOCH = 5, 400
NUM_TEST, NUM_VALIDATION = 6, 3  # alphabets; one more is left to train on


def latent(name: str, *parents: str) -> vhe_tf.Latent:
    """Declares p(name | parents) and q(name; D, parents)."""
    prior = (
        inference.ConditionalNormal(SIZE, UNITS)
        if parents
        else heads.StandardNormal(SIZE)
    )
    encoder = convolution.ConvolutionalEncoder(FILTERS, 0)
    posterior = inference.SupportPosterior(encoder, SIZE, UNITS)
    return vhe_tf.Latent(
        name, prior=prior, posterior=posterior, parents=parents
    )


def main() -> None:
    """Trains and probes."""
    with endings.mistakes_end_quietly():
        data = (
            read_label_table(sys.argv[1]) if sys.argv[1:] else generate_glyphs()
        )
        train, test = datasets.hold_out_groups(
            data, "alphabet", num_groups=NUM_TEST
        )
        train, validation = datasets.hold_out_groups(
            train, "alphabet", num_groups=NUM_VALIDATION
        )
    keras.utils.set_random_seed(0)  # the weights at the start
    model = vhe_tf.VHE(
        latents=[
            latent("alphabet"),
            latent("character", "alphabet"),
            latent("drawer"),
        ],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(data.image_shape, FILTERS, 0),
            heads.BernoulliImageHead(),
            exclude=["alphabet"],  # it acts through the characters
        ),
        image_shape=data.image_shape,
    )
    model.compile("adam")
    train_episodes, validation_episodes = (
        Episodes.for_model(model, images) for images in (train, validation)
    )
    model.fit(
        train_episodes,
        validation_data=validation_episodes,
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
        verbose=2,
        callbacks=[
            vhe_tf.callbacks.ExactResume("runs/own_structure/checkpoints"),
            vhe_tf.callbacks.Preemption(),
        ],
    )
    probes = Probes(datasets.ready(test, "binary"), group="character")
    for probe in probes(model):
        print(
            f"the {probe.factor} from the latent {probe.latent!r}: "
            f"{probe.mean:.1%} (chance {probe.chance:.1%})"
        )


if __name__ == "__main__":
    main()
