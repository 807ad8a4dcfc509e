"""Export of a trained VHE for runtimes other than TensorFlow.

OpenVINO and ONNX Runtime lack the operations of the generator of noise, so that
noise is an input. The shapes of all inputs are static.
"""

import itertools
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.layers import incremental_pixel_cnn
from vhe_tf.models.vhe import VHE
from vhe_tf.serving import _saved_model
from vhe_tf.serving._portable_graph import portable_graph
from vhe_tf.serving._signatures import plain_functions
from vhe_tf.serving.exporting import written_aside

__all__ = ["export_portable"]


def export_portable(
    model: VHE,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 1,
    num_shots: int = 5,
    num_samples: int = 20,
    num_element_samples: int = 1,
    sample_options: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes one SavedModel per function, for OpenVINO and ONNX converters.

    `encode`, `sample_encoded` and `log_likelihood_encoded` have the inputs and
    outputs of the signatures of `export`. In place of `seed` they take noise:
    `{latent}_normal` and `pixels_normal` from N(0, 1), `pixels_uniform` from
    the uniform distribution on (0, 1), each independent. The functions do not
    check their inputs.

    Args:
        model: `VHE`. The model.
        folder: Path of a new folder, with one folder per function.
        batch_size: Integer. Number of rows. Defaults to 1.
        num_shots: Integer. Number of support images per row. Defaults to 5.
        num_samples: Integer. As in `export`.
        num_element_samples: Integer. As in `export`.
        sample_options: Mapping or None. `guidance` and `temperature` of
            `VHE.sample`. Defaults to their defaults.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: If the folder exists.
        NotWrittenError: If writing fails. No partial folder remains.
        ValueError: If a number is not positive.

    Example:
    >>> path = export_portable(model, folder / "portable", num_samples=1)
    >>> sorted(part.name for part in path.iterdir())
    ['encode', 'log_likelihood_encoded', 'sample_encoded']
    """
    target = pathlib.Path(folder)
    sizes = [
        validation.positive("batch_size", batch_size),
        validation.positive("num_shots", num_shots),
    ]
    if target.exists():
        raise FileExistsError(
            f"Export to a new folder. Received: {target}, which exists."
        )
    functions = plain_functions(
        model,
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        sample_options=sample_options,
    )
    with (
        model.contrasts_fixed(),
        incremental_pixel_cnn.pixel_by_pixel(),
        written_aside(target) as partial,
    ):
        for name, (function, specs) in functions.items():
            static = {s.name: _static(s, sizes) for s in specs}
            _write(partial / name, _with_noise(model, function, static))
    return target


def _static(spec: tf.TensorSpec, sizes: Sequence[int]) -> tf.TensorSpec:
    """Fills in the numbers of rows and shots, the first axes."""
    shape = [
        size if size is not None else given
        for size, given in itertools.zip_longest(spec.shape, sizes)
    ]
    return tf.TensorSpec(shape[: spec.shape.rank], spec.dtype, name=spec.name)


def _with_noise(
    model: VHE, function: Any, specs: dict[str, tf.TensorSpec]
) -> Any:
    """Returns a concrete function with one more input for each noise."""
    batch_size = next(iter(specs.values())).shape[0]
    recorded = random.Noise(seeds=random.fold_in(0, tf.range(batch_size)))
    ones = {name: tf.ones(spec.shape) for name, spec in specs.items()}
    function({**ones, "seed": recorded})
    # As the model samples: group latents, the others, pixels.
    latents = sorted(model.latents, key=lambda latent: latent.per_element)
    names = [*(latent.name for latent in latents), "pixels"]
    if len(recorded.used) > len(names):
        raise ValueError(
            "Each distribution of a portable export must use one noise. "
            f"Received: {len(recorded.used)} for {names}."
        )
    noise_specs = [
        tf.TensorSpec(value.shape, value.dtype, name=f"{name}_{kind}")
        for name, (kind, value) in zip(names, recorded.used, strict=False)
    ]

    def answer(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = dict(zip(specs, values, strict=False))
        noise = random.Noise(values[len(specs) :])
        return function({**inputs, "seed": noise})

    return tf.function(
        answer, input_signature=[*specs.values(), *noise_specs], autograph=False
    ).get_concrete_function()


def _write(folder: pathlib.Path, function: Any) -> None:
    """Writes a SavedModel with one signature and without variables."""
    graph, outputs = portable_graph(function)
    inputs = {
        spec.name: graph.get_tensor_by_name(f"{spec.name}:0")
        for spec in function.structured_input_signature[0]
    }
    names = sorted(function.structured_outputs)
    v1 = tf.compat.v1.saved_model
    with (
        tf.compat.v1.Session(graph=graph) as session,
        _saved_model.quiet(tf.get_logger()),
    ):
        builder = v1.Builder(str(folder))
        signature = v1.predict_signature_def(
            inputs, dict(zip(names, outputs, strict=True))
        )
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signature},
        )
        builder.save()
