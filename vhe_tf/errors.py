"""Errors that end a training run."""

__all__ = [
    "NonFiniteLossError",
    "RunError",
    "StoppedOnRequest",
    "WorkerLostError",
]


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite, or the validation ELBO NaN.

    Example:
    >>> issubclass(NonFiniteLossError, ArithmeticError)
    True
    """


class RunError(ValueError):
    """A run cannot start or resume in its folder.

    Example:
    >>> issubclass(RunError, ValueError)
    True
    """


class StoppedOnRequest(SystemExit):
    """The run was asked to stop, and ends the program with status 0.

    With `ExactResume` among the callbacks, the step that it had reached is
    saved. Without it, nothing is: the weights are those in the model.

    Example:
    >>> issubclass(StoppedOnRequest, SystemExit)
    True
    """


class WorkerLostError(RuntimeError):
    """Another worker of the run stopped.

    Example:
    >>> issubclass(WorkerLostError, RuntimeError)
    True
    """
