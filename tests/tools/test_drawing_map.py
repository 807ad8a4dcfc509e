import json

import pytest

from tools import drawing_map


def _report(path, *, tasks=("people", "1shot"), metric="drawings"):
    measurements = [
        {
            "metric": metric,
            "tasks": who,
            "factor": factor,
            "mean": mean,
            "interval": [mean - 0.1, mean + 0.05],
        }
        for who in tasks
        for factor, mean in (("diversity", 0.4), ("recognizability", 0.9))
    ]
    path.write_text(json.dumps({"measurements": measurements}))
    return path


def test_the_map_shows_people_once_and_each_model(tmp_path):
    pytest.importorskip("matplotlib")
    places = {
        name: drawing_map.read_places(_report(tmp_path / f"{name}.json"))
        for name in ("a", "b")
    }
    assert places["a"]["1shot"][1] == (0.9, pytest.approx([0.8, 0.95]))
    figure = drawing_map.draw(places, published={"FSDM": (0.49, 95.0)})
    horizontal, vertical = figure.axes[0].containers[0].lines[2]
    ends = vertical.get_segments()[0][:, 1]
    assert ends == pytest.approx([80.0, 95.0])
    assert horizontal.get_segments()[0][:, 0] == pytest.approx([0.3, 0.45])
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["people", "a, 1shot", "b, 1shot"]


def test_a_report_without_drawings_is_rejected(tmp_path):
    path = _report(tmp_path / "other.json", metric="accuracy")
    with pytest.raises(ValueError, match="without drawings"):
        drawing_map.read_places(path)
