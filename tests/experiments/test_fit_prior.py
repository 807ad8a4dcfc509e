import vhe_tf
from tests.experiments.conftest import commanded
from tests.experiments.conftest import failure_of
from tests.tiny_run import tiny_model


def test_a_prior_is_fitted_to_the_training_classes_of_a_run(
    begun_run, tmp_path
):
    out = tmp_path / "fitted.keras"
    text = commanded("fit-prior", begun_run, f"--out={out}", "--num_steps=2")
    assert f"Wrote {out}." in text
    before = vhe_tf.load_model(begun_run)
    after = vhe_tf.load_model(out)
    assert before.latents[0].fitted_prior is None
    assert after.latents[0].fitted_prior is not None


def test_a_model_without_its_run_is_rejected(tmp_path):
    path = tmp_path / "alone.keras"
    vhe_tf.save_model(tiny_model(), path)
    assert "no config.json beside" in failure_of("fit-prior", path)
