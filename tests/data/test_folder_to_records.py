import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import assert_same_images
from vhe_tf.data import RecordedImages
from vhe_tf.data.datasets.folder import read_image_folder
from vhe_tf.data.datasets.records import folder_to_records


@pytest.fixture
def pages(tmp_path):
    generator = np.random.default_rng(0)
    root = tmp_path / "pages"
    for name, count in (("beta", 3), ("alpha", 2)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(200, 256, (56, 40, 3), np.uint8)
            row, column = generator.integers(4, 20, 2)
            pixels[row : row + 30, column : column + 4] = 20
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {"drawings": True, "invert": None}),
        (
            ["--channels=3", "--image_size=10x8"],
            {"channels": 3, "image_size": (10, 8), "label_name": "person"},
        ),
        (
            ["--invert", "--grouping=letter"],
            {"drawings": True, "invert": True, "label_name": "letter"},
        ),
    ],
)
def test_a_folder_becomes_the_records_of_its_images(
    pages, tmp_path, flags, options, capsys
):
    to = tmp_path / "written"
    folder_to_records.main([f"--from_folder={pages}", f"--to={to}", *flags])
    assert_same_images(
        RecordedImages(to).load(), read_image_folder(pages, **options)
    )
    assert capsys.readouterr().out == (
        f"5 images of 2 classes written to {to}\n"
    )


@pytest.mark.parametrize("invert", [True, False])
def test_warnings_name_flags(pages, tmp_path, caplog, invert):
    for path in pages.glob("*/*.png"):  # against what is asked for
        is_light = np.asarray(Image.open(path).convert("L")) > 128
        Image.fromarray(is_light ^ invert).save(path)
    given, other = ("--invert", "--no-invert")[:: 1 if invert else -1]
    folder_to_records.main(
        [f"--from_folder={pages}", f"--to={tmp_path / 'written'}", given]
    )
    [warning] = caplog.messages
    assert f"{given} makes ink of the page" in warning
    assert f"pass {other}." in warning


def test_exit_on_user_error(pages, tmp_path):
    arguments = [f"--from_folder={pages}", f"--to={tmp_path / 'written'}"]
    (pages / "beta" / "2.png").write_bytes(b"no image")
    for mistake, words in [
        ([f"--from_folder={pages / 'none'}"], "existing folder"),
        (["--image_size=0x5"], "two positive ints"),
        ([], "2.png' cannot be read"),
    ]:
        with pytest.raises(SystemExit, match=f"error: .*{words}"):
            folder_to_records.main([*arguments, *mistake])
    with pytest.raises(SystemExit) as usage:
        folder_to_records.main([*arguments, "--image_size=large"])
    assert usage.value.code == 2
