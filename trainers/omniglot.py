"""Trains, evaluates and pictures a VHE on handwritten characters.

    python trainers/omniglot.py --run_dir=runs/omniglot
    python trainers/omniglot.py --run_dir=runs/x --experiment=NAME --epochs=30
    python trainers/omniglot.py --run_dir=runs/glyphs --dataset=glyphs

Omniglot comes from TensorFlow Datasets; --data_dir=DIR names a folder in which
omniglot/3.0.0 is prepared. A run that was interrupted resumes if the same
command is started again, and ends with the same weights. This script is
`vhe-tf train` written out, to be copied and changed.
"""

import sys

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf.experiments import Run
from vhe_tf.experiments import endings
from vhe_tf.experiments import train


@exit_on_interrupt()
def main(argv: list[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    arguments = train.read(argv, usage=__doc__ or "", default="omniglot")
    experiment, _, machine = arguments
    group = experiment.class_group  # "character"
    with endings.exit_on_user_error():
        run = Run(arguments.run_dir, experiment)
    # TensorFlow is imported after the flags are read: --help answers at once.
    endings.import_tensorflow()
    from vhe_tf import callbacks
    from vhe_tf.experiments import building
    from vhe_tf.experiments import pictures

    callbacks.stop_at_once()  # outside of `fit`
    with endings.exit_on_user_error():
        strategy = building.start(experiment, distribution=machine.distribution)
        splits = train.load(arguments, run)
        with strategy.scope():
            model = building.build_model(experiment, splits)
            model.compile(
                building.make_optimizer(experiment),
                kl_warmup_steps={group: experiment.kl_warmup_steps},
                accumulation=machine.accumulation,
                jit_compile=experiment.jit_compile,
            )
        episodes = building.make_episodes(model, experiment, splits=splits)
        draw = pictures.painter(experiment, splits)
    with (
        endings.exit_on_run_error(),
        train.begun(
            arguments, run, model=model, splits=splits, episodes=episodes
        ),
    ):
        model.fit(
            episodes[0],
            validation_data=episodes[1],
            epochs=experiment.epochs,
            steps_per_epoch=experiment.steps_per_epoch,
            verbose=0,
            callbacks=[
                # Accuracy, likelihoods, scalars and image grids.
                *building.monitors(experiment, run, splits=splits, draw=draw),
                callbacks.BestModel(run.best),
                callbacks.ProgressLine(),
                callbacks.ExactResume(run.checkpoints),
                callbacks.Preemption(),
            ],
        )
        train.finish(arguments, run, model=model, splits=splits, draw=draw)


if __name__ == "__main__":
    main(sys.argv)
