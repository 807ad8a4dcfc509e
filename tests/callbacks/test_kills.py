import sys

import pytest

from tests.processes import output_of


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "export"])
def test_whatever_is_killed_leaves_only_what_is_whole_and_goes_on(
    what, tmp_path
):
    """Runs and exports that are killed; killed_run.py says when."""
    done = output_of(
        [sys.executable, "-m", "tests.killed_run", what, str(tmp_path)]
    )
    assert done.returncode == 0, done.stdout
    assert " kills" in done.stdout.splitlines()[-1]
