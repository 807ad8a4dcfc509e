import importlib.util
import pathlib
import re

import numpy as np

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def _example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_dimensional_distributions_train_and_are_probed(
    monkeypatch, capsys
):
    example = _example("one_dimensional_distributions")
    smaller = {
        "NUM_CLASSES": 24,
        "NUM_TEST_CLASSES": 40,
        "CLASS_SIZE": 20,
        "SUPPORT_SIZE": 10,
        "EPOCHS": 1,
        "STEPS_PER_EPOCH": 2,
    }
    for name, value in smaller.items():
        monkeypatch.setattr(example, name, value)
    example.main()
    printed = capsys.readouterr().out
    assert re.search(r"^family: .*%", printed, re.MULTILINE)
    for name in ("mean", "standard deviation"):
        assert re.search(rf"^{name}: .* explains -?[\d.]+%", printed, re.M)


def test_families_are_standardised():
    families = _example("one_dimensional_distributions").FAMILIES
    assert len(families) == 4
    for sampler in families.values():
        values = sampler(np.random.default_rng(0), 200_000)
        assert abs(values.mean()) < 0.02
        assert abs(values.std() - 1.0) < 0.02


def test_three_latents_are_declared_in_few_lines():
    model = _example("own_structure").three_latents((16, 16, 1))
    parents = {latent.name: latent.parents for latent in model.latents}
    assert parents == {
        "alphabet": (),
        "character": ("alphabet",),
        "drawer": (),
    }
