# # Your own images
#
# Some tens to thousands of classes with a few images each: letters of a script,
# icons, marks, logos. Put them in one folder per class:
#
#     DIR/aleph/01.png
#     DIR/aleph/02.png
#     DIR/beth/01.png
#
# From a shell, `vhe-tf train --images=DIR --run_dir=runs/mine`
# does everything: it splits the classes, starts from the weights of a shipped
# model, trains, evaluates, and saves pictures. This page does the same in Python.

# +
import pathlib

import keras

import vhe_tf
from vhe_tf import callbacks
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import hold_out_groups
from vhe_tf.data import ready
from vhe_tf.evaluation import FewShotClassification

EPOCHS, STEPS_PER_EPOCH = 4, 100
RUN = pathlib.Path("runs/tutorial")
# -

# A folder of drawings is read with
# `vhe_tf.data.read_image_folder("DIR", drawings=True, invert=None)`; labels in
# a table with
# `vhe_tf.data.read_label_table("labels.csv", drawings=True, invert=None)`. Here
# the embedded handwriting stands in for them. Whole classes are held out, since
# the question is how the model does on classes that it has not seen.

data = vhe_tf.data.generate_glyphs()
train, test = hold_out_groups(data, "character", num_groups=40)
train, validation = hold_out_groups(train, "character", num_groups=20)
print(len(train), "images to train on,", len(test), "to test on")

# A trained model is the best start for 28x28 drawings. For other shapes, make a
# model with `vhe_tf.pixel_cnn_vhe("small", image_shape=..., num_levels=256)`.

keras.utils.set_random_seed(0)
model = vhe_tf.load_model("omniglot_pixel_cnn_small")
model.compile(keras.optimizers.Adam(3e-4, clipnorm=10.0))

# Affine copies make more elements of each class. Symmetries would make more
# classes; a mirrored letter may be another letter, so that there is one here.

# +
augmentation = Augmentation(symmetries=1, affine_copies=10)
episodes = Episodes.for_model(
    model, train, support_size=(1, 5), augmentation=augmentation, batch_size=16
)
model.fit(
    episodes,
    epochs=EPOCHS,
    steps_per_epoch=STEPS_PER_EPOCH,
    validation_data=Episodes.for_model(model, validation, batch_size=16),
    callbacks=[
        callbacks.ExactResume(RUN / "checkpoints"),  # interrupt it, run again
        callbacks.Preemption(),
    ],
    verbose=2,
)
vhe_tf.save_model(model, RUN / "model.keras")
# -

# How well does it recognise classes that it has never seen?

evaluator = FewShotClassification(
    ready(test, "binary"), group="character", shots=(1, 5), num_tasks=2
)
for measurement in evaluator(model):
    print(measurement.key, f"{measurement.mean:.1%}")

# The saved file works wherever a preset's name does:
# `vhe-tf draw DRAWING.png --model=runs/tutorial/model.keras`.
#
# [Train on your own images](../own_images.md#advice) says which settings suit
# which images, and what was measured on real sets.
