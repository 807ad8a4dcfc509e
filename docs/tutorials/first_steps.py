# # First steps with a trained model
#
# A shipped model has learned from handwritten characters of 30 alphabets. It
# generates and recognises characters that it has never seen, from one drawing.
# Everything below runs in under a minute on two cores.

# +
import pathlib

import numpy as np

import vhe_tf
from vhe_tf import visualization
from vhe_tf.data import generate_glyphs

NUM_CHARACTERS = 20

model = vhe_tf.load_model("omniglot_pixel_cnn_small")
model.summary()
# -

# `vhe_tf.presets()` lists the shipped models. `generate_glyphs()` is a data set
# of procedural handwriting that comes with the package: another kind of
# drawing than the model was trained on. The model takes images of shape
# `[28, 28, 1]`, ink 1 on paper 0.

# +
data = generate_glyphs().with_groups("alphabet", [29])
images = (data.images >= 128).astype("float32")
images = images.reshape(-1, 20, 28, 28, 1)[:NUM_CHARACTERS]
support, query = images[:, :1], images[:, 6]  # one drawing of each; another
# -

# ## Generate
#
# A seed makes each call repeatable.

more = model.sample(support, seed=0)  # [characters, 28, 28, 1]
new = model.sample_prior(4, seed=1)  # characters that do not exist

# `conditional_grid` makes a picture: the support, then new drawings of the
# same characters.

grid = visualization.conditional_grid(
    model, [support[:6]], group="character", num_samples=8
)
visualization.save_png(pathlib.Path("first_steps.png"), grid)

# ![One drawing of six unseen characters, and eight samples each.](first_steps.png)
#
# ## Recognise
#
# Each query is scored under all classes. The first axis counts queries, so that
# the same supports are repeated.

# +
classes = np.repeat(support[None], len(query), axis=0)
scores = model.classify(classes, query, seed=2, num_samples=5)  # nats
accuracy = (scores.numpy().argmax(axis=1) == np.arange(len(query))).mean()
print(
    f"{len(query)}-way 1-shot accuracy on {len(query)} queries: {accuracy:.0%}"
)
# -

# ## Between two characters

steps = model.interpolate(support[:2], support[2:4], num_steps=6, seed=3)
print(steps.shape)

# From a shell: `vhe-tf draw DRAWING.png --out=samples.png` does the same with
# a photograph of a drawing, and `vhe-tf serve omniglot_pixel_cnn_small` opens
# a page to draw on. Next: [your own images](own_images.md).
