"""The table of results of hand-made run folders, and the training curves."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from engine import curves, results
from engine.curves import draw_curves, read_curves, ticks
from engine.results import MARKERS, table, write_between_markers
from feeder.cli import UserError

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def make_run(root, name, *lines, task="linear", data_set="ntu60", stream="joint", **options):
    folder = root / name
    folder.mkdir(parents=True)
    run = {"task": task, "data_set": data_set, "protocol": "cross_subject", "stream": stream}
    (folder / "options.yaml").write_text(yaml.safe_dump({"run": run, "options": {"seed": 0, "pretrained": "ck"} | options}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def columns(text):
    heading, _, *rows = cells(text)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_the_published_figure_stands_beside_what_it_compares_to(tmp_path):
    result = {"best_acc1": 60.04, "last_acc1": 59.0}
    make_run(tmp_path, "a", {"epoch": 0, "acc1": 1.0}, result)
    make_run(tmp_path, "b", result, stream="bone")
    make_run(tmp_path, "c", result, task="finetune")
    make_run(tmp_path, "d", result, task="finetune", label_fraction=0.01)
    make_run(tmp_path, "f", result, label_fraction=0.1)
    make_run(tmp_path, "e", {"epoch": 0, "acc1": 1.0})
    rows = columns(table(tmp_path))
    found = {row["run"]: (row["task"], row["stream"], row["labels"], row["published"]) for row in rows}
    assert found == {
        "a": ("linear", "joint", "", "86.6"),
        "b": ("linear", "bone", "", ""),
        "c": ("finetune", "joint", "", ""),
        "d": ("finetune", "joint", "1 %", ""),
        "f": ("linear", "joint", "10 %", ""),
    }
    assert all((row["Acc@1"], row["best on test"]) == ("59.0", "60.0") for row in rows)


def test_several_streams_and_neighbours_have_a_line_each(tmp_path):
    lines = [
        {"stream": stream, "knn_neighbours": k, "knn_acc1": acc + k, "recall": 1.0}
        for stream, acc in (("joint", 70.0), ("bone", 60.0), ("fusion", 75.0))
        for k in (1, 5)
    ]
    lines.insert(2, {"stream": "joint", "mean_average_precision": 33.3})
    final = {"knn_acc1": 76.0, "knn_neighbours": 1}
    make_run(tmp_path, "a", *lines, final, task="retrieval", stream="joint+bone")
    make_run(tmp_path, "killed", *lines, task="retrieval", stream="joint+bone")
    make_run(tmp_path, "b", {"knn_acc1": 50.0, "knn_neighbours": 20}, task="retrieval")
    rows = columns(table(tmp_path))
    found = [(row["task"], row["stream"], row["Acc@1"], row["mAP"], row["published"]) for row in rows]
    assert sorted(found) == sorted([
        ("1-NN retrieval", "joint", "71.0", "33.3", "76.2"), ("5-NN retrieval", "joint", "75.0", "33.3", ""),
        ("1-NN retrieval", "bone", "61.0", "", ""), ("5-NN retrieval", "bone", "65.0", "", ""),
        ("1-NN retrieval", "joint+bone", "76.0", "", ""), ("5-NN retrieval", "joint+bone", "80.0", "", ""),
        ("20-NN retrieval", "joint", "50.0", "", ""),
    ])  # fmt: skip
    assert not any(row["run"] == "killed" for row in rows)


def test_repeats_have_a_deviation_of_their_own(tmp_path):
    repeats = [{"stream": "joint", "repeat": i, "last_acc1": 10.0 * i, "best_acc1": 50.0} for i in range(3)]
    final = {"last_acc1": 40.0, "last_acc1_std": 10.04, "best_acc1": 50.0, "best_acc1_std": 0.0}
    make_run(tmp_path, "a", *repeats, final, task="finetune", label_fraction=0.1, repeats=3)
    (row,) = columns(table(tmp_path))
    assert (row["Acc@1"], row["best on test"], row["labels"]) == (f"40.0 {PLUS_MINUS} 10.0", f"50.0 {PLUS_MINUS} 0.0", "10 %")


def test_runs_that_differ_in_the_seed_alone_are_averaged(tmp_path):
    for seed, acc1 in ((0, 70.0), (1, 72.0), (2, 77.0)):
        make_run(tmp_path, f"s{seed}", {"best_acc1": 80.0, "last_acc1": acc1}, seed=seed, pretrained=f"ck/s{seed}", log_dir="x")
    make_run(tmp_path, "s0-before", {"best_acc1": 0.0, "last_acc1": 0.0}, seed=2, pretrained="ck/s2").rename(tmp_path / "s1b")
    make_run(tmp_path, "lr", {"best_acc1": 80.0, "last_acc1": 10.0}, seed=3, lr=9.0, pretrained="ck/s3")
    make_run(tmp_path, "other", {"best_acc1": 80.0, "last_acc1": 20.0}, seed=4, pretrained="other/s4")
    text = table(tmp_path, mean=True)
    found = {row["seed"]: (row["Acc@1"], row["best on test"]) for row in columns(text)}
    deviation = (((70 - 73) ** 2 + (72 - 73) ** 2 + (77 - 73) ** 2) / 2) ** 0.5
    assert found == {
        "0, 1, 2": (f"73.0 {PLUS_MINUS} {deviation:.1f}", f"80.0 {PLUS_MINUS} 0.0"),
        "3": ("10.0", "80.0"),
        "4": ("20.0", "80.0"),
    }
    assert "run" not in cells(text)[0]


def test_encoders_stand_side_by_side(tmp_path):
    for seed, acc1 in ((0, 70.0), (1, 72.0)):
        make_run(tmp_path, f"p{seed}", {"best_acc1": 80.0, "last_acc1": acc1}, seed=seed, pretrained=f"ck/s{seed}")
    make_run(tmp_path, "r", {"best_acc1": 80.0, "last_acc1": 50.0}, random_encoder=True, pretrained=None)
    make_run(tmp_path, "k", {"knn_acc1": 40.0, "knn_neighbours": 1}, task="retrieval", raw_coordinates=True, pretrained=None)
    heading, _, *rows = cells(table(tmp_path, mean=True, beside=True))
    assert heading == ["task", "data set", "protocol", "stream", "none (raw coordinates)", "random", "pre-trained"]
    linear = ["linear", "", "50.0", f"71.0 {PLUS_MINUS} 1.4"]
    assert [[row[0], *row[4:]] for row in rows] == [["1-NN retrieval", "40.0", "", ""], linear]


def test_an_encoders_origin_is_named_where_it_matters(tmp_path):
    paper = {"pre_dataset": "ntu60", "skeleton_representation": "joint", "pairs": ["ti", "si", "it", "is"], "no_masks": False}
    for name, origin in {"a": paper, "b": paper | {"pre_dataset": "ntu120"}, "c": paper | {"no_masks": True}, "e": {},
                         "d": paper | {"pairs": ["tt", "ss", "ii"]}}.items():  # fmt: skip
        make_run(tmp_path, name, {"best_acc1": 60.0, "last_acc1": 59.0}, origins=[origin])
    found = {row["run"]: row["encoder"] for row in columns(table(tmp_path))}
    assert found == {"a": "pre-trained", "b": "pre-trained, on ntu120", "c": "pre-trained, without masks", "e": "pre-trained",
                     "d": "pre-trained, pairs tt ss ii"}  # fmt: skip


def test_the_table_goes_between_the_markers(tmp_path, capsys):
    make_run(tmp_path / "log", "a", {"best_acc1": 60.0, "last_acc1": 59.0})
    page, (start, end) = tmp_path / "page.md", MARKERS
    page.write_text(f"before {start}\n{start}\nold\n{end}\nafter\n")
    results.main([str(tmp_path / "log"), "--write", str(page)])
    assert page.read_text() == f"before {start}\n{start}\n{table(tmp_path / 'log')}\n{end}\nafter\n"
    whole = page.read_text()
    results.main([str(tmp_path / "log"), "--write", str(page)])
    assert page.read_text() == whole, "again is the same"
    for text in ("none", f"{start}\n", f"{end}\n{start}\n", f"{start}\n{start}\n{end}"):
        page.write_text(text)
        with pytest.raises(UserError, match="page.md: the table goes between"):
            write_between_markers(page, "x")
        assert page.read_text() == text
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        results.main([str(tmp_path / "log"), "--write", str(tmp_path / "nowhere.md")])
    assert stop.value.code == 1 and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("low, high", [(0, 1), (22.1, 25.3), (-3, 1e6), (1, 451), (0.00012, 0.00013), (0, 7)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and all(low - 1e-9 <= t <= high + 1e-9 for t in found)
    step = found[1] - found[0]
    assert all(b - a == pytest.approx(step) for a, b in zip(found, found[1:], strict=False))
    assert float(f"{step:.3e}".split("e")[0]) in (1, 2, 5)
    assert found[0] - step < low and found[-1] + step > high, "no tick is left out"


def test_curves_are_drawn_where_they_belong(tmp_path):
    lines = [{"epoch": e, "loss": loss, "acc1": 10.0 * e} for e, loss in enumerate([4.0, float("nan"), 0.0])]
    run = make_run(tmp_path, "a & <b>", *lines, {"last_acc1": 20.0})
    other = make_run(tmp_path, "retrieval", {"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 2.0})
    curves.main([str(run), str(other), "-o", str(tmp_path / "x.svg")])
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"loss", "Acc@1 (%)", "epoch", "a & <b>", "retrieval"} <= set(texts)
    loss, accuracy = root.findall(f"{space}g")
    polylines = [line.get("points") for line in loss.findall(f"{space}polyline")]
    points = [[tuple(map(float, p.split(","))) for p in line.split()] for line in polylines]
    assert [len(line) for line in points] == [2, 2], "the epoch without a finite loss is left out"
    (x0, y0), (x1, y1) = points[0]
    assert (x0, x1) == (0, curves.WIDTH) and y1 == curves.HEIGHT and 0 < y0 < curves.HEIGHT  # 0 at the foot
    assert points[1][0][1] == pytest.approx((y0 + y1) / 2, abs=0.02) and points[1][1][0] == curves.WIDTH / 2
    assert len(accuracy.findall(f"{space}polyline")) == 1
    for line in points:
        assert all(0 <= x <= curves.WIDTH and 0 <= y <= curves.HEIGHT for x, y in line)


def test_a_single_or_constant_point_is_drawn(tmp_path):
    run = make_run(tmp_path, "a", {"epoch": 3, "loss": 2.0})
    picture = draw_curves(read_curves(run))
    assert f'points="{curves.WIDTH / 2},{curves.HEIGHT / 2}"' in picture and "Acc@1" not in picture
    ElementTree.fromstring(picture)


def test_streams_and_repeats_are_curves_of_their_own(tmp_path):
    first = {"epoch": 0, "bone/repeat0/loss": 3.0, "bone/repeat0/acc1": 20.0, "loss/ti": 9.0}
    run = make_run(tmp_path, "a", first, {"epoch": 0, "bone/repeat1/loss": 4.0, "bone/repeat1/acc1": 30.0})
    assert read_curves(run) == {
        "a bone/repeat0": {"loss": [(1, 3.0)], "acc1": [(1, 20.0)]},
        "a bone/repeat1": {"loss": [(1, 4.0)], "acc1": [(1, 30.0)]},
    }


def test_mistakes_in_drawing_curves_are_one_line(tmp_path, capsys):
    make_run(tmp_path, "empty", {"knn_acc1": 3.0})
    make_run(tmp_path, "damaged")
    (tmp_path / "damaged" / "metrics.jsonl").write_text('{"epoch": 0, "lo')
    for name, message in [("nowhere", "no run in"), ("empty", "no loss or accuracy"), ("damaged", "is damaged")]:
        with pytest.raises(SystemExit) as stop:
            curves.main([str(tmp_path / name), "-o", str(tmp_path / "x.svg")])
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 1 and message in line
    assert not (tmp_path / "x.svg").exists()
