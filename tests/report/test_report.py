"""The report: what it says agrees with the files, and the page opens in a browser by itself."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import CLASSES, make_data, tiny_config

from wsss.cli import main
from wsss.data.images import read_label, write_label
from wsss.data.index import ImageRecord, Index, read_index, read_masks, write_masks
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.confusion import Scores
from wsss.evaluation.tables import CurvePoint, rows_of_scores, write_curve, write_rows
from wsss.report.facts import differences, times
from wsss.report.findings import Findings, Picture, examine, representative
from wsss.report.writing import write_report
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import PredictionConfig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run on four validation pictures, one of them predicted wrongly."""
    data = make_data(tmp_path, train=3, val=4)
    folder = data / "results" / "first"
    for name in ("config", "evaluation", "predictions", "segmentation/work", "benchmarks"):
        (folder / name).mkdir(parents=True)
    settings = {
        "segmentation": tiny_config(),
        "prediction": PredictionConfig(scales=(1.0,)),
        "evaluation": EvaluationConfig(),
    }
    for name, values in settings.items():
        (folder / "config" / f"{name}.json").write_text(json.dumps(to_dict(values)))
    for number in range(3, 7):
        label = read_label(data / "data" / "masks" / f"p0{number}.png")
        if number == 5:
            label = np.where(label > 0, 3 - label, 0).astype(np.uint8)
        write_label(folder / "predictions" / f"p0{number}.png", label)
    scores = Scores(*(np.array([0.9, 0.5, 0.25]) for _ in range(3)))
    common: dict[str, Any] = {"run": "first", "labels": "pseudo", "selection": "configured"}
    rows = [
        *rows_of_scores(scores, CLASSES, stage="cam", split="train", threshold=0.3, **common),
        *rows_of_scores(
            scores, CLASSES, stage="segmentation", split="val", threshold=None, **common
        ),
    ]
    write_rows(folder / "miou.csv", rows)
    points = [CurvePoint(t, t / 2, 0.5, 0.5) for t in (0.1, 0.3, 0.6)]
    write_curve(folder / "evaluation" / "cam_curve.csv", points)
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in (10, 20, 30)]
    (folder / "segmentation" / "work" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "benchmarks" / "segmentation.tsv").write_text("s\th:m:s\n75.5\t0:01:15\n")
    return folder


def report(run: Path, **changes: Any) -> str:
    data = run.parent.parent
    values = {
        "config": EvaluationConfig(),
        "folder": run,
        "index": data / "index.csv",
        "masks": data / "masks.csv",
        "root": data / "data",
        "output": run / "report.html",
    }
    write_report(**(values | changes))
    return (run / "report.html").read_text()


class Page(HTMLParser):
    """What a page has: its texts, its pictures, and what it would ask a network for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.open.append(tag)
        if tag == "img" and values.get("src"):
            self.images.append(values)
        if values.get("id"):
            self.ids.append(values["id"] or "")
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            value = values.get(key)
            if value and not value.startswith(("#", "data:")):
                self.asked.append(value)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.cells.append(data.strip())


def test_the_page_is_one_file_that_asks_for_nothing(run: Path) -> None:
    text = report(run)
    page = Page(text)
    assert page.asked == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", text)
    assert len(page.ids) == len(set(page.ids))
    # Every reference inside a drawing leads to something in the page.
    for name in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert name in page.ids, name


def test_its_pictures_are_the_picture_prediction_and_truth(run: Path) -> None:
    page = Page(report(run))
    shown = [each for each in page.images if str(each["alt"]).startswith("prediction of p05")]
    assert shown
    content = base64.b64decode(str(shown[0]["src"]).partition(",")[2])
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    label = read_label(run / "predictions" / "p05.png")
    y, x = np.argwhere(label > 0).mean(axis=0) * drawn.shape[0] / label.shape[0]
    # Labels 1 and 2 of VOC's palette are red and green.
    strongest = int(drawn[int(y), int(x)].argmax())
    assert strongest == int(label.max()) - 1
    for kind in ("picture", "prediction", "ground truth"):
        assert any(str(each["alt"]).startswith(kind) for each in page.images)


def test_it_says_what_the_files_say(run: Path) -> None:
    text = report(run)
    cells = Page(text).cells
    assert "Run first" in cells and "55.0 @ 0.3" in cells and "1 min 16 s" in cells
    for place in ("scores", "curves", "classes", "confusion", "tags", "trainings", "pictures"):
        assert f'<h2 id="{place}">' in text
    assert "1 of 4 pictures of val" in text
    assert "segmentation.learning_rate" in cells and "0.02" in cells and "0.005" in cells
    assert "segmentation.momentum" not in cells


@pytest.mark.parametrize(
    ("labels", "purpose"), [("pseudo", "scoring."), ("mixed", "scoring and training.")]
)
def test_it_says_what_masks_were_for(run: Path, labels: str, purpose: str) -> None:
    file = run / "config" / "segmentation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))
    assert f"of them, for {purpose}" in report(run)


def test_without_masks_and_without_a_segmentation(run: Path) -> None:
    data = run.parent.parent
    write_masks({}, data / "masks.csv")
    text = report(run)
    assert 'id="confusion"' not in text and "how well classes and tags agree" in text
    assert not any(str(each["alt"]).startswith("ground") for each in Page(text).images)
    shutil.rmtree(run / "predictions")
    (run / "miou.csv").unlink()
    text = report(run)
    assert 'id="pictures"' not in text and 'id="run"' in text and 'id="curves"' in text


def test_names_with_markup_are_shown_as_they_are(run: Path) -> None:
    data = run.parent.parent
    classes = (data / "classes.txt").read_text().replace("red", "<b>&red")
    (data / "classes.txt").write_text(classes)
    index = (data / "index.csv").read_text().replace(",red,", ",<b>&red,")
    (data / "index.csv").write_text(index)
    text = report(run)
    assert "&lt;b&gt;&amp;red" in text and "<b>&red" not in text


def test_a_folder_without_a_run_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="no run is in this folder"):
        report(run, folder=run.parent)


def test_findings_are_what_a_loop_over_pixels_finds(run: Path) -> None:
    data = run.parent.parent
    index, masks = read_index(data / "index.csv").subset("val"), read_masks(data / "masks.csv")
    found = examine(
        index, labels=run / "predictions", masks=masks, root=data / "data", min_share=0.005
    )
    counts = np.zeros((3, 3), int)
    for each in found.pictures:
        truth = read_label(data / "data" / "masks" / f"{each.record.name}.png")
        label = read_label(run / "predictions" / f"{each.record.name}.png")
        ious = []
        for value in range(3):
            both, either = (
                ((truth == value) & (label == value)),
                ((truth == value) | (label == value)),
            )
            if either.any():
                ious.append(both.sum() / either.sum())
        assert each.iou == pytest.approx(np.mean(ious))
        for one, other in zip(truth.ravel(), label.ravel(), strict=True):
            counts[one, other] += 1
    assert np.array_equal(found.confusion, counts)
    assert [each.record.name for each in found.contradictions] == ["p05"]
    assert found.by_merit[-1].record.name == "p05"
    (wrong,) = found.contradictions
    assert wrong.extra != wrong.missing and wrong.missing == wrong.record.tags
    assert wrong.tag_score == 0


@pytest.mark.parametrize("place", ["results/first/predictions", "data/masks"])
def test_labels_that_do_not_fit_are_named(run: Path, place: str) -> None:
    path = run.parent.parent / place / "p05.png"
    whole = read_label(path)
    for wrong, said in ((whole[:3], "x 3 px"), (np.full_like(whole, 9), "holds the label 9")):
        write_label(path, wrong)
        with pytest.raises(UserError, match=said) as caught:
            report(run)
        assert caught.value.where == str(path) and caught.value.fix is not None


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_settings_that_name_no_set_are_refused(run: Path, text: str) -> None:
    (run / "config" / "prediction.json").write_text(text)
    with pytest.raises(UserError, match=r"this JSON is a list|no image is in the set 'None'"):
        report(run)


def test_tag_score_is_f1() -> None:
    record = ImageRecord("a", ("val",), ("cat", "dog"), 4, 4, "a.png")
    picture = Picture(record, {"dog": 0.5, "cow": 0.1, "hen": 0.1}, None)
    precision, recall = 1 / 3, 1 / 2
    assert picture.tag_score == pytest.approx(2 * precision * recall / (precision + recall))
    assert picture.extra == ("cow", "hen") and picture.missing == ("cat",)


def test_a_prediction_contradicts_tags_by_too_much_or_too_little() -> None:
    def picture(name: str, tags: tuple[str, ...], *predicted: str) -> Picture:
        record = ImageRecord(name, ("val",), tags, 4, 4, f"{name}.png")
        return Picture(record, dict.fromkeys(predicted, 0.5), None)

    pictures = (
        picture("both", ("cat",), "cat"),
        picture("little", ("cat", "dog"), "cat"),
        picture("much", ("cat",), "cat", "dog"),
        picture("untagged", (), "dog"),
    )
    found = Findings(pictures, ("cat", "dog"), None)
    assert [each.record.name for each in found.contradictions] == ["little", "much"]
    cat, dog = found.tag_scores
    assert (cat.tagged, cat.found, cat.both) == (3, 3, 3)
    assert (dog.tagged, dog.found, dog.both) == (1, 1, 0)
    assert (dog.precision, dog.recall) == (0, 0) and (cat.precision, cat.recall) == (1, 1)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 9, 10, 50])
def test_no_picture_is_chosen_twice(count: int) -> None:
    records = [ImageRecord(f"{i:02d}", (), (), 1, 1, "") for i in range(count)]
    ranked = [Picture(record, {}, None) for record in records]
    chosen = representative(ranked, 3)
    names = [each.record.name for pictures in chosen.values() for each in pictures]
    assert names == sorted(set(names)) and len(names) == min(count, 9)
    if count >= 9:
        assert names[:3] == ["00", "01", "02"] and names[-1] == f"{count - 1:02d}"
        assert abs(int(names[4]) - (count - 1) / 2) <= 0.5


def test_only_settings_that_differ_are_listed(run: Path) -> None:
    found = {each.key: (each.value, each.default) for each in differences(run)}
    assert found["prediction.scales"] == ("[1.0]", "[0.5, 0.75, 1.0, 1.25, 1.5]")
    assert not any(key.startswith("evaluation") for key in found)


def test_parts_of_a_stage_are_timed_beside_it(run: Path) -> None:
    parts = run / "benchmarks" / "shards"
    parts.mkdir()
    (parts / "prediction_1-of-2.tsv").write_text("s\th:m:s\n2\t0\n3\t0\n")
    assert times(run) == {"segmentation": 75.5, "shards/prediction_1-of-2": 5.0}


# ----- a browser


class _Counting(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(run: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (_Counting,), {"asked": asked})

    def make(*args: Any) -> Any:
        return handler(*args, directory=str(run))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def browse(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    assert CHROMIUM is not None
    return subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--window-size=1240,2400", f"--user-data-dir={folder}", *options, url),
        ],
        capture_output=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    )


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here (apt-get install chromium)")
def test_in_a_browser(run: Path, served: tuple[str, list[str]], tmp_path: Path) -> None:
    report(run)
    (run / "index.html").write_text(
        (run / "report.html")
        .read_text()
        .replace(
            "</body>",
            "<script>const one = document.querySelector('main img'); one.click();"
            "const opened = dialog.open && large.src === one.src; one.click();"
            "document.body.dataset.clicked = opened && !dialog.open;"
            "document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;"
            "document.body.dataset.broken = [...document.images]"
            ".filter(i => i.getAttribute('src') && !i.naturalWidth).length;</script></body>",
        )
    )
    url, asked = served
    page = browse(f"{url}/index.html", tmp_path / "a", "--dump-dom").stdout.decode()
    assert asked == ["/index.html"], asked
    assert 'data-clicked="true"' in page
    assert 'data-wide="false"' in page and 'data-broken="0"' in page
    means = {}
    for name, option in {"light": "1", "dark": "0"}.items():
        shot = tmp_path / f"{name}.png"
        browse(
            (run / "report.html").as_uri(),
            tmp_path / name,
            f"--screenshot={shot}",
            f"--blink-settings=preferredColorScheme={option}",
        )
        with Image.open(shot) as picture:
            pixels = np.asarray(picture.convert("L")).astype(float)
        means[name] = np.median(pixels)
        # Letters and lines stand out from the page, whichever it is.
        assert np.abs(pixels - means[name]).max() > 150
    assert means["light"] > 235 and means["dark"] < 45


def test_the_command(run: Path) -> None:
    data = run.parent.parent
    words = {
        "--config": run / "config" / "evaluation.json",
        "--folder": run,
        "--index": data / "index.csv",
        "--masks": data / "masks.csv",
        "--root": data / "data",
        "--output": run / "report.html",
    }
    assert main(["report", *(str(word) for pair in words.items() for word in pair)]) == 0
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_picture_without_tags_contradicts_nothing() -> None:
    record = ImageRecord("a", ("val",), (), 4, 4, "a.png")
    assert not Picture(record, {"dog": 1.0}, None).contradicts
    assert Index(("dog",), (record,)).class_indices(record) == ()
