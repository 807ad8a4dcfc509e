# # Serving
#
# A model is exported as a SavedModel of TensorFlow's own operations. Where it is
# served, nothing of this package is needed. Exporting needs an extra:
#
#     pip install 'vhe_tf[serving]'

# +
import pathlib

import numpy as np

import vhe_tf
from vhe_tf import serving

FOLDER = pathlib.Path("runs/exports/omniglot")
NUM_SAMPLES = 20

model = vhe_tf.load_model("omniglot_pixel_cnn_small")
serving.export(model, FOLDER, num_samples=NUM_SAMPLES)
# -

# `vhe-tf export MODEL --out FOLDER` does the same. The server below is for
# development; production is TensorFlow Serving, for which `deploy/` has a
# compose file (`docker compose -f deploy/compose.yaml --profile cpu up`).
# A browser at the server's address shows a page to draw on.

# The client imports no TensorFlow. Rows are requests: each has a seed of its
# own, and its answer does not depend on the other rows.

# +
data = vhe_tf.data.generate_glyphs().images[:40].reshape(2, 20, 28, 28, 1)
drawings = (data >= 128).astype("float32")
support, query = drawings[:, :3], drawings[:, 6]  # two characters

with serving.LocalServer(FOLDER, port=0) as server:
    client = serving.Client(server.address, model="omniglot")
    more = client.sample(support)  # [2, 28, 28, 1]
    answer = client.classify(np.repeat(support[None], 2, axis=0), query)
    print(more.shape, answer.label)
# -

# | signature | inputs | outputs |
# | --- | --- | --- |
# | `classify` (the default) | `support` [B, way, shot, H, W, C], `query` [B, H, W, C], `seed` [B] | `log_likelihood` (nats), `probabilities` [B, way], `label` [B] |
# | `novelty` (of PixelCNNs of binary 28x28 images) | as `classify`, and its `log_likelihood` | `novelty` [B] (nats: above 0, the query is rather of none of the classes) |
# | `sample` | `support` [B, shot, H, W, C], `seed` [B] | `images` [B, H, W, C] |
# | `sample_prior` | `seed` [B] | `images` |
# | `encode` | `support` | `mean`, `stddev` of q(c; D) |
# | `classify_encoded`, `sample_encoded` | `mean`, `stddev` in place of `support` | as above |
# | `log_likelihood` | `support`, `query`, `seed` | `log_likelihood` [B] |
#
# A model with several group latents has `classify_{g}`, `sample_{g}` and
# `encode_{g}` for each; `sample` of a model of characters and styles takes a
# support for both and is style transfer.
#
# By REST, without the client:
#
#     curl -d '{"signature_name": "sample_prior", "inputs": {"seed": [1, 2]}}' \
#         localhost:8501/v1/models/omniglot:predict

# ## Other runtimes
#
# `serving.export_portable(model, "portable")`, or `vhe-tf export MODEL --out
# portable --portable`, writes `encode`, `sample_encoded` and
# `log_likelihood_encoded` for OpenVINO and ONNX Runtime: one SavedModel each,
# with static shapes (`batch_size=1`, `num_shots=5`). Noise is an input in
# place of `seed`, since these runtimes lack the operations of the generator.
# The names of the inputs give its distribution: `character_normal` is N(0, 1),
# `pixels_uniform` is uniform on (0, 1).
#
#     pip install 'vhe_tf[portable]'
#     python -m tf2onnx.convert --opset 18 \
#         --saved-model portable/sample_encoded --output sample.onnx
#
# ```python
# session = onnxruntime.InferenceSession("sample.onnx")
# rng = np.random.default_rng()
# noise = {
#     value.name: rng.random(value.shape, np.float32)
#     if value.name.endswith("_uniform")
#     else rng.standard_normal(value.shape, np.float32)
#     for value in session.get_inputs()
#     if value.name.endswith(("_normal", "_uniform"))
# }
# (images,) = session.run(None, {"mean": mean, "stddev": stddev, **noise})
# ```
#
# OpenVINO reads the folders: `openvino.convert_model("portable/encode")`.
# [Sizes and latencies](../performance.md#other-runtimes).
