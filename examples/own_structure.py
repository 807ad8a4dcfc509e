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
from vhe_tf.experiments import endings

FILTERS = (16, 32, 48)
EPOCHS, STEPS_PER_EPOCH = 5, 400
NUM_TEST, NUM_VALIDATION = 6, 3  # alphabets; one more is left to train on


def encoder() -> vhe_tf.layers.ConvolutionalEncoder:
    """Makes an encoder of images."""
    return vhe_tf.layers.ConvolutionalEncoder(FILTERS, convolutions=0)


def three_latents(image_shape: tuple[int, ...]) -> vhe_tf.VHE:
    """Declares alphabets, characters within them, and drawers across both."""
    vector = vhe_tf.Latent.vector
    return vhe_tf.VHE(
        [
            vector("alphabet", 16, encoder=encoder()),
            vector("character", 16, encoder=encoder(), parents=["alphabet"]),
            vector("drawer", 16, encoder=encoder()),
        ],
        vhe_tf.layers.ImageLikelihood(
            vhe_tf.layers.ConvolutionalDecoder(image_shape, FILTERS, 0),
            vhe_tf.layers.BernoulliImageHead(),
            exclude=["alphabet"],  # it acts through the characters
        ),
        event_shape=image_shape,
    )


def main() -> None:
    """Trains and probes."""
    with endings.exit_on_user_error():
        data = (
            vhe_tf.data.read_label_table(
                sys.argv[1], drawings=True, invert=None
            )
            if sys.argv[1:]
            else vhe_tf.data.generate_glyphs()
        )
        train, test = vhe_tf.data.hold_out_groups(
            data, "alphabet", num_groups=NUM_TEST
        )
        train, validation = vhe_tf.data.hold_out_groups(
            train, "alphabet", num_groups=NUM_VALIDATION
        )
    keras.utils.set_random_seed(0)  # the weights at the start
    model = three_latents(data.image_shape)
    model.compile("adam")
    train_episodes, validation_episodes = (
        vhe_tf.data.Episodes.for_model(model, images)
        for images in (train, validation)
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
    probes = vhe_tf.evaluation.Probes(
        vhe_tf.data.ready(test, "binary"), group="character"
    )
    for probe in probes(model):
        print(
            f"the {probe.factor} from the latent {probe.latent!r}: "
            f"{probe.mean:.1%} (chance {probe.chance:.1%})"
        )


if __name__ == "__main__":
    main()
