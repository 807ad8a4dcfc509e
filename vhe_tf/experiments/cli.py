"""The command `vhe-tf`."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import vhe_tf
from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf.experiments.endings import exit_on_closed_output

__all__ = ["COMMANDS", "main"]

# What each command is, and the module whose `main` runs it.
COMMANDS = {
    "quickstart": ("a model at work, then a short training", "quickstart"),
    "train": ("train an experiment, or resume it", "train"),
    "list": ("list the experiments and the shipped models", "listing"),
    "evaluate": ("measure a model on unseen groups", "evaluate"),
    "fit-prior": (
        "fit the prior that new classes are sampled from",
        "fit_prior",
    ),
    "draw": ("sample new images of the class of an image", "draw"),
    "classify": ("classify an image by a few images per class", "classify"),
    "export": ("export a model for TensorFlow Serving", "export"),
    "serve": ("serve an exported or shipped model for development", "serve"),
    "reproduce": (
        "make the tables and figures of the paper again",
        "reproduce",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        argv: Strings. The name of the program, then the arguments. Defaults to
            those of the process.

    Raises:
        SystemExit: If `--help` is given, or the command is unknown or fails.
    """
    program, *arguments = sys.argv if argv is None else argv
    program = os.path.basename(program)
    with exit_on_interrupt(), exit_on_closed_output():
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:2], "--help"]
        if arguments[:1] == ["--version"]:
            print(f"vhe-tf {vhe_tf.__version__}")
            return
        if not arguments or arguments[0] in ("--help", "-h"):
            print("Usage: vhe-tf COMMAND [ARGUMENTS]; vhe-tf COMMAND --help\n")
            for name, (meaning, _) in COMMANDS.items():
                print(f"  {name:10} {meaning}")
            return
        name, *rest = arguments
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise SystemExit(
                f"error: there is no command {name!r}. "
                + (f"Did you mean {near[0]!r}? " if near else "")
                + f"`{program} --help` lists the commands."
            )
        _, module = COMMANDS[name]
        command = importlib.import_module(f"vhe_tf.experiments.{module}")
        command.main([f"{program} {name}", *rest])


if __name__ == "__main__":
    main(["vhe-tf", *sys.argv[1:]])
