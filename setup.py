"""Package metadata of vhe_tf. Tables of tools are in pyproject.toml."""

import pathlib

import setuptools
from setuptools.command.build_py import build_py

# gRPC and warm-up requests of TensorFlow Serving.
_SERVING_API = "tensorflow-serving-api>=2.21,<2.22"

# Learning curves.
_PLOTS = "matplotlib>=3.10"

# Of each shipped model, what `vhe_tf.load_model(name)` needs. Weights that take
# more bytes stay in the repository, so that the wheel stays below 12 MB.
_PRESET_FILES = ("best.keras", "config.json", "README.md")
_MAX_PRESET_BYTES = 2_000_000


class BuildWithPresets(build_py):
    """Puts the shipped models into the package that is built."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # a checkout has them
        for folder in sorted(pathlib.Path("saved_models").iterdir()):
            target = pathlib.Path(
                self.build_lib, "vhe_tf", "presets", folder.name
            )
            for path in map(folder.joinpath, _PRESET_FILES):
                if path.is_file() and path.stat().st_size < _MAX_PRESET_BYTES:
                    self.mkpath(str(target))
                    self.copy_file(str(path), str(target / path.name))


setuptools.setup(
    name="vhe_tf",
    version="0.2.0",
    description=(
        "The Variational Homoencoder (Hewitt et al., UAI 2018) in Keras and "
        "TensorFlow Probability"
    ),
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    cmdclass={"build_py": BuildWithPresets},
    packages=setuptools.find_packages(include=["vhe_tf", "vhe_tf.*"]),
    package_data={
        "vhe_tf": ["py.typed"],
        "vhe_tf.data.datasets.youtube_faces": [
            "README.md",
            "CITATIONS.bib",
            "TAGS.txt",
        ],
        "vhe_tf.evaluation": ["critics/*.npz"],
        "vhe_tf.serving": ["demo/*"],
    },
    entry_points={
        "console_scripts": ["vhe-tf = vhe_tf.experiments.cli:main"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2",
        "h5py",
        # tensorflow-datasets imports it without declaring it.
        "importlib_resources",
        "keras>=3.15,<4",
        "numpy>=2",
        "pillow",
        "pyyaml>=6",
        "requests>=2.32",
        "tensorboard>=2.21,<2.22",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10",
        "tensorflow-probability==0.25.*",
        # TensorFlow Probability needs it beside TensorFlow 2.21; the package
        # itself never imports it.
        "tf-keras>=2.21,<2.22",
        "werkzeug>=3.1",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "plots": [_PLOTS],
        "serving": [_SERVING_API],
        # What benchmarks/peers.py measures beside this package; PyTorch's wheel
        # for CPUs will do.
        "peers": ["torch>=2.12"],
        # Runtimes for portable exports, and the converter to ONNX.
        "portable": [
            "onnxruntime>=1.32",
            "openvino>=2026.4",
            "tf2onnx>=1.17",
        ],
        # The site: `make docs`.
        "docs": [
            "jupytext>=1.17,<2",
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.7,<10",
            "mkdocstrings-python>=2,<3",
        ],
        # The linters are pinned: a new release must not fail `make test`.
        "dev": [
            "hypothesis>=6.150",
            _PLOTS,
            "mypy==2.4.*",
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff==0.17.*",
            "scipy>=1.15",
            _SERVING_API,
        ],
    },
)
