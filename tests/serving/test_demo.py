import html
import json
import re
import shutil
import subprocess

import pytest

from vhe_tf.serving import _application
from vhe_tf.serving import local

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium or google-chrome on the PATH"
)

# What a person would do, appended to the script of the page.
_VISIT = """
(async () => {
  const quiet = async () => {
    do await new Promise((done) => setTimeout(done, 50));
    while (byId("status").className === "working");
  };
  const draw = (canvas, points) => {
    const box = canvas.getBoundingClientRect();
    points.forEach(([x, y], i) => {
      const at = {clientX: box.left + x * box.width,
                  clientY: box.top + y * box.height, bubbles: true};
      canvas.dispatchEvent(
          new PointerEvent(i ? "pointermove" : "pointerdown", at));
    });
    canvas.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
  };
  const bar = [[0.5, 0.1], [0.5, 0.9]], line = [[0.1, 0.5], [0.9, 0.5]];
  const result = {};
  try {
    await quiet();
    result.before = byId("classify").disabled;
    const [first, second] = document.querySelectorAll("#classes section");
    for (const [section, points] of [[first, bar], [second, line]]) {
      draw(section.querySelector(".pad"), points);
      section.querySelector(".add").click();
      await quiet();
    }
    result.supports = classes.map((one) => one.images);
    result.samples = [first, second].map(
        (one) => one.querySelectorAll(".samples canvas").length);
    draw(byId("query"), bar);
    result.query = query.image();
    result.examples = [...document.querySelectorAll(".examples")].map(
        (one) => one.querySelectorAll("button[aria-label]").length);
    result.unlabelled = document.querySelectorAll(
        "canvas:not([aria-label]):not(.examples canvas)").length;
    byId("query-examples").querySelector("button").click();
    result.example = query.image().flat(2).some((ink) => ink > 0);
    query.clear();
    draw(byId("query"), bar);
    result.sampling = sampling;
    const box = document.createElement("div");
    const pixel = [1, 0, 0.2].slice(0, channels);
    show(box, [Array(height).fill(Array(width).fill(pixel))]);
    result.shown = [...box.firstChild.getContext("2d")
        .getImageData(0, 0, 1, 1).data];
    byId("classify").click();
    await quiet();
    result.label = byId("answer").dataset.label;
    result.shares = [...byId("answer").querySelectorAll(".bar")].map(
        (one) => parseFloat(one.lastChild.textContent));
    result.bars = [...byId("answer").querySelectorAll(".bar > div")].map(
        (one) => 100 * one.firstChild.getBoundingClientRect().width
            / one.getBoundingClientRect().width);
    result.viewport = innerWidth;
    result.width = document.documentElement.scrollWidth - innerWidth;
    result.status = byId("status").textContent;
  } catch (error) {
    result.error = String(error);
  }
  const output = document.createElement("pre");
  output.id = "result";
  output.textContent = JSON.stringify(result);
  top.document.body.append(output);
})();
"""


def _visit(address):
    page = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=60000",
            "--dump-dom",
            address,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    ).stdout.decode("utf-8")
    match = re.search(r'<pre id="result">(.*?)</pre>', page, re.DOTALL)
    assert match, page[-2000:]
    return json.loads(html.unescape(match[1]))


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Puts the visit at the end of the script that the server sends."""
    folder = tmp_path / "demo"
    shutil.copytree(_application.DEMO, folder)
    with (folder / "page.js").open("a", encoding="utf-8") as file:
        file.write(_VISIT)
    monkeypatch.setattr(_application, "DEMO", folder)


@pytest.fixture
def phone(page, monkeypatch):
    """Serves the page in a frame, since windows have at least 500 pixels."""
    (_application.DEMO / "phone.html").write_text(
        '<iframe src="/" style="width: 360px; border: 0"></iframe>'
    )
    pages = {**_application._PAGES, "/phone": ("phone.html", "text/html")}
    monkeypatch.setattr(_application, "_PAGES", pages)
    monkeypatch.setattr(_application, "_HEADERS", {})  # they forbid frames


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model", "sampling", "shown"),
    [
        ("deconvolutional", "sample", [0, 0, 0, 255]),
        ("colour", "sample_character", [0, 255, 204, 255]),
    ],
)
def test_a_visitor_draws_sees_samples_and_gets_an_answer(
    model, sampling, shown, exports, page
):
    _, path = exports(model)
    with local.LocalServer(path.parent, port=0) as server:
        result = _visit(server.address)
    assert "error" not in result, result
    assert result["before"]  # nothing to recognise yet
    assert result["sampling"] == sampling
    assert result["shown"] == shown
    assert result["samples"] == [8, 8]
    bar, line = (images[0] for images in result["supports"])
    # Strokes from 0.1 to 0.9, one down and one across; sampled at k / 8.
    ink, none = ([value] * len(bar[0][0]) for value in (1, 0))
    assert [row[4] for row in bar] == [none] + [ink] * 7
    assert line[4] == [none] + [ink] * 7
    assert result["query"] == bar
    assert result["examples"] == [3, 3, 3]
    assert result["example"]
    assert result["unlabelled"] == 0
    assert result["width"] <= 0  # nothing to scroll sideways
    assert result["label"] in ("First", "Second")  # without a novelty
    assert len(result["shares"]) == 2
    assert sum(result["shares"]) == pytest.approx(100.0, abs=0.2)
    assert result["bars"] == pytest.approx(result["shares"], abs=1.0)
    assert result["status"] == ""


@pytest.mark.integration
def test_a_model_with_novelty_can_answer_neither(saved_model, page):
    with local.LocalServer(saved_model, port=0) as server:
        result = _visit(server.address)
    assert "error" not in result, result
    assert result["status"] == "", result["status"]
    assert result["label"] in ("First", "Second", "Neither")
    assert len(result["shares"]) == 3
    assert sum(result["shares"]) == pytest.approx(100.0, abs=0.2)


@pytest.mark.integration
def test_nothing_scrolls_sideways_on_a_phone(saved_model, phone):
    with local.LocalServer(saved_model, port=0) as server:
        result = _visit(f"{server.address}/phone")
    assert "error" not in result, result
    assert result["viewport"] == 360
    assert len(result["bars"]) == 3
    assert result["width"] <= 0


@pytest.mark.integration
def test_a_visitor_is_told_what_went_wrong(exports, page):
    _, path = exports("deconvolutional")
    with local.LocalServer(path.parent, port=0) as server:
        result = _visit(f"{server.address}/?model=other")
    assert "other" in result["status"]
