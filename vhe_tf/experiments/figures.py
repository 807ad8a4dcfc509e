"""The figures of the paper, drawn again from the trained rows."""

import pathlib
import shutil
from collections.abc import Collection
from collections.abc import Sequence

from vhe_tf.errors import RunError
from vhe_tf.experiments import paper
from vhe_tf.experiments import results
from vhe_tf.experiments.paper import Figure
from vhe_tf.experiments.registry import get
from vhe_tf.experiments.run import Record
from vhe_tf.experiments.run import Run

__all__ = ["draw_figures", "draw_side_by_side", "picture_path", "rows_to_draw"]


def picture_path(figure: Figure, budget: str) -> pathlib.Path:
    """Returns where the picture of a figure is kept."""
    return results.ROOT / "docs" / "results" / f"{figure.name}_{budget}.png"


def rows_to_draw(budget: str) -> set[str]:
    """Returns the rows whose models figures need that are not there yet."""
    return {
        row
        for figure in paper.FIGURES
        if not picture_path(figure, budget).exists()
        for row in figure.rows
    }


def draw_figures(
    budget: str, names: Collection[str], *, data_dir: str | None = None
) -> list[str]:
    """Draws the figures that are missing and whose models are trained.

    Args:
        budget: String, a key of `paper.BUDGETS`.
        names: Strings. Names of rows. Figures of other rows only are left as
            they are.
        data_dir: String. Folder of the data. Defaults to that of the runs.

    Returns:
        A line for each figure that could not be drawn.
    """
    failures = []
    for figure in paper.FIGURES:
        out = picture_path(figure, budget)
        if not set(figure.rows).intersection(names):
            continue
        if out.exists():
            print(f"{figure.name}: exists, {results.relative(out)}")
            continue
        try:
            runs = [_run(row, budget) for row in figure.rows]
            missing = [run.folder.name for run in runs if not run.is_complete]
            if missing:
                print(f"{figure.name}: no models {', '.join(missing)} yet")
                continue
            _draw(figure, runs, out, data_dir=data_dir)
        except (RunError, ValueError, OSError) as error:
            failures.append(f"{figure.name}: {error}")
    return failures


def _run(row: str, budget: str) -> Run:
    name = paper.ROWS[row].experiments[budget]
    return Run(results.ROOT / "runs" / name, get(name))


def _draw(
    figure: Figure,
    runs: Sequence[Run],
    out: pathlib.Path,
    *,
    data_dir: str | None,
) -> None:
    from vhe_tf._utils import atomic_io

    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_io.beside(out) as partial:
        if figure.picture:
            shutil.copyfile(runs[0].pictures / figure.picture, partial)
        else:
            models = [run.best for run in runs]
            draw_side_by_side(models, partial, data_dir=data_dir)


def draw_side_by_side(
    models: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    data_dir: str | None = None,
    num_samples: int = 5,
    seed: int = 0,
) -> None:
    """Shows samples of several models, given the same images, side by side.

    Five images of each of ten unseen classes, then a block of samples for each
    model. The data are those of the first model's run.

    Args:
        models: Paths of the `.keras` files, each in the folder of its run.
        out: Path. The PNG to write.
        data_dir: String. Folder of the data. Defaults to that of the run.
        num_samples: Integer. Number of samples per model. Defaults to 5.
        seed: Integer. Random seed. Defaults to 0.

    Raises:
        ValueError: If a model has another grouping or image shape than the
            first, or was trained on classes of its test set.
        FileNotFoundError: If there is no `config.json` beside the first model.
    """
    import vhe_tf
    from vhe_tf import callbacks
    from vhe_tf import visualization
    from vhe_tf.experiments import data

    record = Record.read(models[0].with_name("config.json"))
    experiment, group = record.experiment, record.experiment.class_group
    loaded = [vhe_tf.load_model(path) for path in models]
    for path, model in zip(models, loaded, strict=True):
        data.check_unseen(path, experiment)
        latents = [latent.name for latent in model.latents]
        shape = loaded[0].image_shape
        if group not in latents or model.image_shape != shape:
            raise ValueError(
                f"All models must have the latent {group!r} and images of "
                f"shape {shape}, as the first. Received: {path}, of shape "
                f"{model.image_shape}, with {latents}."
            )
    splits = data.load_data(experiment, data_dir=data_dir or record.data_dir)
    preview = callbacks.preview_batch(splits.test, group=group, seed=seed)
    grid = visualization.comparison_grid(
        loaded,
        preview.support,
        names=[path.parent.name for path in models],
        group=group,
        num_samples=num_samples,
        seed=(seed, 0),
    )
    visualization.save_png(out, grid, ink=splits.ink)
