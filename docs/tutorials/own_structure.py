# # A structure of your own
#
# Three latents over one table of labels: characters lie within alphabets, and
# drawers go across both. A column of the table is a latent. Labels may be
# missing.

# +
import keras

import vhe_tf
from vhe_tf.data import MISSING
from vhe_tf.data import Episodes
from vhe_tf.data import from_columns
from vhe_tf.data import generate_glyphs
from vhe_tf.layers import BernoulliImageHead
from vhe_tf.layers import ConditionalNormal
from vhe_tf.layers import ConvolutionalDecoder
from vhe_tf.layers import ConvolutionalEncoder
from vhe_tf.layers import ImageLikelihood
from vhe_tf.layers import StandardNormal
from vhe_tf.layers import SupportPosterior

FILTERS = (16, 32, 48)
EPOCHS, STEPS_PER_EPOCH = 5, 200
# -

# ## The data
#
# In a file this is
# `vhe_tf.data.read_label_table("labels.csv", drawings=True, invert=None)`, with
# a column `image` and one column per grouping; an empty cell is a missing
# label:
#
#     image,alphabet,character,drawer
#     a/01.png,Greek,Greek alpha,Ann
#     a/02.png,Greek,Greek alpha,
#
# Here every fourth drawer is unknown.

glyphs = generate_glyphs()
labels = dict(glyphs.labels)
labels["drawer"] = labels["drawer"].copy()
labels["drawer"][::4] = MISSING
data = from_columns(glyphs.images, labels)

# ## The model
#
# `prior(*parents)`, `posterior(observed, *parents)` and `likelihood(**latents)`
# are Keras layers that return distributions. The alphabet acts through the
# characters, so that the likelihood excludes it.


# +
def latent(name, *parents):
    prior = ConditionalNormal(16, 128) if parents else StandardNormal(16)
    encoder = ConvolutionalEncoder(FILTERS, 0)
    posterior = SupportPosterior(encoder, 16, 128)
    return vhe_tf.Latent(
        name, prior=prior, posterior=posterior, parents=parents
    )


keras.utils.set_random_seed(0)
model = vhe_tf.VHE(
    latents=[
        latent("alphabet"),
        latent("character", "alphabet"),
        latent("drawer"),
    ],
    likelihood=ImageLikelihood(
        ConvolutionalDecoder(data.image_shape, FILTERS, 0),
        BernoulliImageHead(),
        exclude=["alphabet"],
    ),
    event_shape=data.image_shape,
)
model.summary()
# -

# ## Training
#
# The episodes take from the model what its objective needs: a support per
# grouping, the sizes of the groups, and which labels are known.

model.compile("adam")
model.fit(
    Episodes.for_model(model, data, batch_size=16),
    epochs=EPOCHS,
    steps_per_epoch=STEPS_PER_EPOCH,
    verbose=2,
)

# ## Any subset of latents
#
# What is given is encoded. The alphabet of a given character is inferred from
# the same images. Other latents are sampled from their prior.

# +
drawings = (data.images[:60] >= 128).astype("float32").reshape(3, 20, 28, 28, 1)
one_alphabet = drawings[:, :5]
by_alphabet = model.sample({"alphabet": one_alphabet}, seed=0)
transfer = model.sample(
    {"character": drawings[:, :1], "drawer": drawings[::-1, 3:4]}, seed=1
)
print(by_alphabet.shape, transfer.shape)
# -

# `examples/own_structure.py` is the same as a program that takes your table,
# holds out alphabets, resumes, and measures with linear probes which latent
# knows which column.
