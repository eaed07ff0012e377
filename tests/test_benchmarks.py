"""The benchmarks' harness, and each benchmark at the smallest size that goes through all of it."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks are run from the repository's root."""
    monkeypatch.syspath_prepend(ROOT)


def harness() -> Any:
    return importlib.import_module("benchmarks.harness")


def row(**changes: Any) -> Any:
    h = harness()
    values = {"stage": "walk", "case": "10x10", "ours": h.Timing(0.02, 0.01), "same": "equal"}
    return h.Row(**(values | changes))


def test_a_row_says_how_much_quicker_and_how_near_the_floor() -> None:
    h = harness()
    cells = row(naive=h.Timing(1.0, 0.6), images=4, floor_s=0.005, floor="bytes").cells()
    assert cells["ratio"] == "50" and cells["ratio, processor time"] == "60"
    assert cells["images/s"] == "200" and cells["of the floor"] == "25%"
    assert cells["naive"] == "1 s" and cells["ours"] == "20 ms"
    assert row().cells()["ratio"] == "-"


def test_columns_without_content_are_left_out() -> None:
    first, rule, second = harness().markdown([row()]).splitlines()
    assert "ratio" not in first and "stage" in first and "walk" in second
    assert len(first) == len(rule) == len(second)


def test_forms_are_timed_in_turn() -> None:
    calls: list[str] = []
    forms = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = harness().interleave(forms, repeats=2, warm_up=1)
    assert "".join(calls) == "ababab"
    assert set(times) == {"a", "b"} and times["a"].wall_s >= 0


def test_rows_survive_their_file_and_differing_results_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h = harness()
    options = argparse.Namespace(rows=tmp_path / "rows.jsonl", save=None)
    good, bad = row(naive=h.Timing(1, 1)), row(agrees=False)
    assert h.finish([good], options) == 0
    assert h.finish([bad], options) == 1
    assert "NO: equal" in capsys.readouterr().out
    assert h.load_rows(options.rows) == [good, bad]
    path = h.save([good, bad], "try", folder=tmp_path)
    assert path.name == f"{h.machine().slug}_try.md"
    assert h.machine().processor in path.read_text(encoding="utf-8")
    with path.with_suffix(".csv").open(newline="") as file:
        numbers = list(csv.DictReader(file))
    assert [n["ours_s"] for n in numbers] == ["0.02", "0.02"]
    assert [n["naive_s"] for n in numbers] == ["1", ""]


def measured_here(prepare: Callable[..., Callable[[], Any]], **arguments: Any) -> Any:
    """What `measure` does, without the process of its own."""
    result = json.loads(json.dumps(prepare(**json.loads(json.dumps(arguments)))()))
    return harness().Measured(result, 0.5, 0.5, 2.0, 1.0)


def run(name: str, words: str, monkeypatch: pytest.MonkeyPatch, rows: Path) -> list[Any]:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(module, "measure", measured_here, raising=False)
    for rate in ("copy_rate", "product_rate"):
        monkeypatch.setattr(module, rate, lambda *_: 1e10, raising=False)
    threads = str(torch.get_num_threads())
    arguments = [name, *words.split(), "--rows", str(rows), "--threads", threads]
    monkeypatch.setattr(sys, "argv", arguments)
    assert module.main() == 0
    return list(harness().load_rows(rows))


def test_the_sweeps_are_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run("threshold_sweep", "--images 1", monkeypatch, tmp_path / "rows")
    assert [one.agrees and "equal" in one.same for one in found] == [True, True]


def test_loading_takes_the_same_crops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (found,) = run("loading", "--images 2", monkeypatch, tmp_path / "rows")
    assert found.agrees and found.images == 2


@pytest.mark.slow
def test_the_walks_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (found,) = run("random_walk", "", monkeypatch, tmp_path / "rows")
    assert found.agrees and found.naive.wall_s > found.ours.wall_s


@pytest.mark.slow
def test_both_forms_export_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = "--network lite0 --size 128 96 --repeats 1 --warm-up 0"
    found = run("cam_export", words, monkeypatch, tmp_path / "rows")
    assert len(found) == 2 and found[0].precision == "float32"
    assert all(one.naive is not None and one.floor_s > 0 for one in found)


@pytest.mark.slow
def test_both_forms_take_the_same_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = "--small --batch 1 --steps 1 --warm-up 0"
    found = run("acr_step", words, monkeypatch, tmp_path / "rows")
    assert [one.precision for one in found] == ["float32", "bfloat16"]


@pytest.mark.slow
def test_a_lighter_training_step_has_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "--crop 64 --batch 2 --steps 1 --rounds 1"
    found = run("lite_step", words, monkeypatch, tmp_path / "rows")
    assert [one.agrees for one in found] == [True, True]


@pytest.mark.slow
def test_scaling_measures_every_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The stand-in says half a second whatever the number of images.
    found = run("scaling", "--sizes 3 6", monkeypatch, tmp_path / "rows")
    assert [one.stage.split(": ")[1] for one in found] == list(
        importlib.import_module("benchmarks.scaling").STAGES
    )


@pytest.mark.slow
def test_labels_of_two_processes_are_those_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "--images 2 --side 64 --repeats 1"
    found = run("core_scaling", words, monkeypatch, tmp_path / "rows")
    assert [one.stage for one in found] == list(
        importlib.import_module("benchmarks.core_scaling").STAGES
    )
    assert all(one.same == "same bytes" for one in found)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_gradients_of_a_convolution_count_as_two_of_it(layer: type, groups: int) -> None:
    convolution = layer(8, 16, 3, groups=groups, bias=False)
    image = torch.rand(2, 8, 10, 10, requires_grad=True)
    flop_counter = importlib.import_module("benchmarks.machine").flop_counter
    with flop_counter() as forward:
        result = convolution(image)
    with flop_counter() as backward:
        result.sum().backward()
    places = result if layer is nn.Conv2d else image
    expected = 2 * places[:, 0].numel() * 9 * 8 * 16 // groups
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected


def gpu(name: str) -> Any:
    return importlib.import_module(f"benchmarks.gpu.{name}")


def test_without_a_gpu_each_part_of_its_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main = gpu("__main__")
    assert main.main(["--output", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count("not run: no GPU") == len(main.PARTS)
    assert json.loads((tmp_path / "report.json").read_text())["parts"].keys() == main.PARTS.keys()


def test_a_part_that_cannot_run_is_a_line_of_the_report(tmp_path: Path) -> None:
    main = gpu("__main__")
    # Nothing to be had on a CPU: the part says so itself and ends well.
    words = ["--device", "cpu", "--parts", "fits", "--output", str(tmp_path)]
    assert main.main(words) == 0
    assert "not run: no GPU" in (tmp_path / "fits.jsonl").read_text(encoding="utf-8")

    def fails() -> Any:
        raise ValueError("no such kernel")

    line = gpu("part").guarded("a step", fails)
    assert line.holds is False and "no such kernel" in line.found and "test_bench" in line.found


def test_the_largest_batch_follows_from_two_measured_ones() -> None:
    # 1 GB and 0.5 GB an image: a card of 8 GiB has 8.16 GB less 0.7, so 12 images.
    fits = gpu("fits").largest_batches({2: int(2e9), 6: int(4e9)})
    assert fits[8] == 12 and fits[80] > 100
    assert gpu("fits").largest_batches({1: int(20e9), 2: int(30e9)})[11] == 0


def test_what_a_case_measures_is_what_the_run_trains(tmp_path: Path) -> None:
    cases = gpu("cases")
    for case in cases.CASES:
        config = case.settings(**case.small)
        # Nothing that would need a file.
        for part in ("backbone", "vit"):
            assert getattr(getattr(config, part, None), "weights", "none") in ("none", "package")
    case = cases.case("cam, Lite0")
    config = case.settings(crop_px=64, batch_size=2, precision="float32")
    device = torch.device("cpu")
    runs = []
    for _ in range(2):
        task = cases.without_dropout(case.task(config, device))
        before = {name: p.detach().clone() for name, p in cases.trained(task)}
        runs.append(cases.steps(case, config, task, device, 2))
        assert any(not torch.equal(p, before[name]) for name, p in cases.trained(task))
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_clip_es_in_both_orders_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    words = "--network tiny --size 64 96 --classes 2"
    (found,) = run("clip_es", words, monkeypatch, tmp_path / "rows")
    assert found.agrees and found.naive.wall_s > 0 and "differ by" in found.same


@pytest.fixture
def few_photographs(voc_root: Path, tmp_path: Path) -> Path:
    """A VOC devkit of three real pictures, and CAMs that are their true masks, blunted."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    from wsss.data.build import build_index
    from wsss.data.formats.registry import FORMATS
    from wsss.data.images import read_label
    from wsss.maps.map_store import MapStoreWriter, map_size

    root = tmp_path / "voc"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "cls_labels.npy"):
        (root / name).symlink_to(voc_root / name)
    names = (voc_root / "ImageSets/Segmentation/train.txt").read_text().split()[:3]
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names) + "\n")
    index = build_index(FORMATS.parse({"format": "voc"}, where="index"), root)
    with MapStoreWriter(tmp_path / "cams.h5", classes=index.classes, attributes={}) as store:
        for record in index.records:
            label = read_label(root / "SegmentationClass" / f"{record.name}.png")
            height, width = map_size(record.height, record.width)
            indices = index.class_indices(record)
            maps = [
                gaussian_filter((label == i + 1).astype(np.float32), 20)[::4, ::4] for i in indices
            ]
            maps = [m[:height, :width] / max(float(m.max()), 1e-6) for m in maps]
            store.add(record.name, indices, np.stack(maps), (record.height, record.width))
    return root


def test_masks_without_classes_improve_cams(
    few_photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = f"--cams {tmp_path / 'cams.h5'} --root {few_photographs}"
    found = run("imported_masks", words, monkeypatch, tmp_path / "rows")
    assert [row.agrees for row in found] == [True] * 5
    before, after = found[0].same.split(", ")[0].removeprefix("configured ").split(" -> ")
    assert float(after) > 95 > float(before)


@pytest.mark.slow
def test_pseudo_labels_in_two_ways(
    few_photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = f"--cams {tmp_path / 'cams.h5'} --root {few_photographs} --images 2 --workers 0"
    found = run("pseudo_labels", words, monkeypatch, tmp_path / "rows")
    assert ["crf" in row.case and row.images for row in found] == [2, 2]
    assert all("labels" in row.same for row in found)
