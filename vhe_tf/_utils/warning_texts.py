"""Warnings in the words of the caller."""

import contextlib
import logging
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

__all__ = ["reworded_warnings"]


@contextlib.contextmanager
def reworded_warnings(reword: Callable[[str], str]) -> Iterator[None]:
    """Changes the texts that this package logs within.

    Args:
        reword: Callable. Returns what is logged in place of a text.
    """
    make = logging.getLogRecordFactory()

    def make_reworded(name: str, *values: Any, **more: Any) -> Any:
        record = make(name, *values, **more)
        if name.startswith("vhe_tf."):
            record.msg, record.args = reword(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(make_reworded)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
