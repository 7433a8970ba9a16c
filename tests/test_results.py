"""The table of results, how runs become its rows, and the fusion of runs, from hand-made files."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT, failure

import action_classification
from engine import fuse, results
from engine.evaluation import changed_flags, describe_encoder, result_row
from engine.results import table, write_rows
from engine.runlog import Run
from feeder.cli import UserError

PAPER = dict(task="linear", data_set="ntu60", protocol="cross_subject", stream="joint", labels=1.0, setup="")
PAPER |= dict(encoder="pre-trained on ntu60", seed=0, comparable=True, acc1=59.0, best_acc1=60.04)


def write(folder, *rows):
    folder.mkdir(parents=True)
    write_rows(folder, [PAPER | row for row in rows])


def lines_of(text):
    """Return the lines of a Markdown table, each as a dict of its columns."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_the_published_figure_is_shown_only_where_it_compares(tmp_path):
    write(tmp_path / "a", {}, {"comparable": False}, {"task": "finetune"}, {"data_set": "ui_prmd"})
    write(tmp_path / "b", *({"task": f"{k}-NN retrieval", "best_acc1": None} for k in (1, 5)))
    lines = lines_of(table(tmp_path))
    shown = [(line["run"], line["task"], line["published"]) for line in lines if line["published"]]
    assert shown == [("b", "1-NN retrieval", "76.2"), ("a", "linear", "86.6")] and len(lines) == 6
    assert all(line["Acc@1"] == "59.0" for line in lines) and lines[0]["best on test"] == ""
    assert lines[-1]["best on test"] == "60.0" and "labels" not in lines[0]


def test_mean_takes_together_what_differs_only_in_the_seed(tmp_path):
    for i, (seed, acc1) in enumerate(((0, 70.0), (1, 72.0), (2, 0.0), (2, 77.0))):  # of seed 2 the last
        write(tmp_path / f"run{i}", {"seed": seed, "acc1": acc1})
    other = dict(task="finetune", data_set="ntu120", protocol="cross_view", stream="bone", labels=0.1)
    other |= dict(setup="--lr 9", encoder="random", comparable=False)
    for name, value in other.items():
        write(tmp_path / name, {name: value, "seed": 3, "acc1": 10.0})
    lines = lines_of(table(tmp_path, mean=True))
    (mean,) = [line for line in lines if line["seed"] != "3"]
    assert (mean["seed"], mean["Acc@1"], mean["best on test"]) == ("0, 1, 2", "73.0 ± 3.6", "60.0 ± 0.0")
    assert len(lines) == 1 + len(other) and {line["Acc@1"] for line in lines} == {"73.0 ± 3.6", "10.0"}
    assert "run" not in mean


def test_encoders_of_several_seeds_evaluated_with_one_seed_all_count(tmp_path):
    for weights, acc1 in (("a", 70.0), ("b", 80.0), ("c", 90.0), ("c", 90.0)):
        write(tmp_path / f"{weights}{len(list(tmp_path.iterdir()))}", {"weights": weights, "acc1": acc1})
    (line,) = lines_of(table(tmp_path, mean=True))
    assert line["Acc@1"] == "80.0 ± 10.0"


def test_setups_are_numbered(tmp_path):
    write(tmp_path / "a", {"setup": "--lr 9"}, {"setup": "--lr 9", "seed": 1})
    assert "setup" not in lines_of(table(tmp_path))[0] and table(tmp_path).endswith("- setup: --lr 9")
    write(tmp_path / "b", {})
    assert [line["setup"] for line in lines_of(table(tmp_path))] == ["[1]", "[2]", "[2]"]
    assert table(tmp_path).endswith("\n\n- setup [1]: as in the paper\n- setup [2]: --lr 9")


def test_repeats_have_a_deviation_of_their_own(tmp_path):
    row = dict(labels=0.1, acc1=40.0, acc1_std=10.04, best_acc1_std=0.0, mean_average_precision=33.33)
    text = json.dumps(PAPER | row) + "\n" + json.dumps(PAPER | {"seed": 1}) + "\n"
    (tmp_path / "results.jsonl").write_text(text)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.jsonl").write_text(text)  # is read only if there is nothing else
    repeats, single = lines_of(table(tmp_path))
    assert (repeats["Acc@1"], repeats["best on test"]) == ("40.0 ± 10.0", "60.0 ± 0.0")
    assert (repeats["mAP"], repeats["labels"], single["mAP"], single["seed"]) == ("33.3", "10 %", "", "1")
    (tmp_path / "results.jsonl").unlink()
    assert len(lines_of(table(tmp_path))) == 2


def test_the_figures_in_the_documents_are_those_of_the_logs():
    logged = {
        (line["task"], line["stream"], line["labels"], line["encoder"]): line["Acc@1"]
        for line in lines_of(table(ROOT / "log" / "ui_prmd", mean=True))
    }
    page = (ROOT / "docs" / "results.md").read_text()
    lines = lines_of(re.search(r"(?m)^\| task \|.*\n(\|.*\n)+", page)[0])
    encoders = ("none (raw coordinates)", "random", "pre-trained on ui_prmd")
    cells = {
        (line["task"], line["stream"], line["labels"], name): line[name]
        for line in lines
        for name in encoders
    }
    assert {key: text for key, text in cells.items() if text} == logged


@pytest.mark.parametrize(
    "text", ["", "x", "null", "3", "[3]", "{}", "[{}]", json.dumps([PAPER])[:90], "\udcff"]
)
def test_a_damaged_result_is_left_out_in_one_line(tmp_path, capsys, text):
    write(tmp_path / "whole", {})
    write(tmp_path / "run", {})
    path = tmp_path / "run" / "result.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    results.main([str(tmp_path), "--mean"])
    out, err = capsys.readouterr()
    assert "| linear |" in out and "result.json" not in out
    assert text == "{}" or err.startswith(f"skipped: {path} is damaged") and err.count("\n") == 1
    with pytest.raises(UserError, match="nowhere: no such folder"):
        table(tmp_path / "nowhere")


OPTIONS = dict(pre_dataset="ntu60", protocol="cross_subject", skeleton_representation="joint", epochs=451)
OPTIONS |= dict(pairs=["ti", "si", "it", "is"], no_masks=False)


RUN = Run("linear", "ntu60", "cross_subject", "joint")


def origin(task="pretraining", epoch=451, **options):
    """The origin of an encoder that was made by the paper's pre-training, but for these options."""
    return dict(task=task, epoch=epoch, seed=0, digest="a" * 64, setup="", options=OPTIONS | options)


def test_a_row_is_comparable_with_the_papers_method_on_the_whole_data_set():
    def comparable(stream="joint", encoder=None, train=40091, **options):
        about = dict(seed=0, setup="", encoders=[encoder or origin()], options=options)
        about["data"] = dict(train=train, test=16487, digest="d" * 32)
        run = Run("linear", "ntu60", "cross_subject", stream)
        return result_row(run, about, stream, "linear", acc1=1.0)["comparable"]

    assert comparable() and not comparable("bone") and not comparable(label_fraction=0.1)
    assert not comparable(train=600) and not comparable(encoder=origin(epoch=30))
    for name, value in dict(pre_dataset="ntu120", protocol="cross_view", pairs=["tt"], no_masks=True).items():
        assert not comparable(encoder=origin(**{name: value})), name
    for task in ("random", "reference", "unknown"):
        assert not comparable(encoder={"task": task, "seed": 0}), task


def test_the_setup_tells_experiments_apart():
    recipe = action_classification.get_parser().parse_args([])
    args = action_classification.get_parser().parse_args("--lr 3 --schedule 9 --seed 4 --workers 0".split())
    assert (changed_flags(recipe, recipe), changed_flags(args, recipe)) == ("", "--lr 3.0 --schedule 9")
    about = dict(seed=0, setup="--lr 3", encoders=[origin() | {"setup": "--epochs 9"}], options={})
    about["data"] = dict(train=2, test=1, digest="d" * 32)
    row = result_row(Run("linear", "ntu60", "cross_subject", "joint"), about, "joint", "linear", acc1=1.0)
    assert row["setup"] == "--epochs 9; --lr 3; 2 + 1 clips dddddddd"


def test_the_encoder_column_says_how_the_encoder_was_made():
    finetuned = dict(finetune_dataset="ntu60")
    other = Run("linear", "pku_part2", "cross_view", "joint")
    assert describe_encoder(origin(), other, "joint") == "pre-trained on ntu60", "other recordings"
    for expected, made in [
        ("pre-trained on ntu60", origin()),
        ("pre-trained on ntu60", {"task": "linear", "encoders": [origin()]}),
        ("pre-trained on ntu60, cross_view: may have seen test clips", origin(protocol="cross_view")),
        ("pre-trained on ntu60, unfinished: epoch 30 of 451", origin(epoch=30)),
        ("pre-trained on ntu60, bone stream", origin(skeleton_representation="bone")),
        ("pre-trained on ntu60, without masks, pairs tt", origin(no_masks=True, pairs=["tt"])),
        ("supervised on ntu60", {"task": "supervised", "options": finetuned}),
        ("fine-tuned on ntu60", {"task": "finetune", "options": finetuned, "encoders": [origin()]}),
        ("reference", {"task": "reference"}),
        ("random", {"task": "random"}),
        ("none (raw coordinates)", {"task": "raw"}),
        ("unknown", {"task": "unknown", "digest": "x"}),
    ]:
        assert describe_encoder(made, RUN, "joint") == expected


def test_fusion_takes_samples_by_name(tmp_path, capsys):
    scores = np.array([[[2.0, 1, 0], [0, 3, 1], [0, 2, 1]], [[0, 1, 5], [0, 0, 1], [0, 1, 5]]], np.float32)
    run = dict(names=np.array(["a", "b", "c"]), labels=np.array([0, 1, 2]))
    for name, part, order in (("joint", scores[:1], [0, 1, 2]), ("bone", scores[1:], [2, 0, 1])):
        found = {key: value[order] for key, value in run.items()} | {"streams": np.array([name])}
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "predictions.npz", **found, scores=part[:, order], best_scores=part[:, order]
        )
    paths = [str(tmp_path / "joint"), str(tmp_path / "bone" / "predictions.npz")]
    fuse.main([*paths, "--stream-weights", "1", "0.3"])
    accuracies = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[:3]]
    assert accuracies == ["66.667", "33.333", "100.000"]


def test_runs_that_cannot_be_fused_are_refused_in_one_line(tmp_path, capsys):
    eye = np.eye(3, dtype=np.float32)[None]
    good = dict(names=np.array(["a", "b", "c"]), labels=np.array([0, 1, 1]), streams=np.array(["joint"]))
    good |= dict(scores=eye, best_scores=eye)
    path, other = tmp_path / "predictions.npz", tmp_path / "other.npz"
    np.savez(path, **good)
    for weights in (["nan"], ["inf"], ["0"], ["-1"], ["x"], ["1", "2"]):
        assert "--stream-weights" in failure(capsys, fuse.main, [str(path), "--stream-weights", *weights])[1]
    assert "No such file" in failure(capsys, fuse.main, [str(path), str(tmp_path / "no.npz")])[1]
    wide = dict(scores=np.eye(4)[None, :3], best_scores=np.eye(4)[None, :3])
    for change in (dict(names=np.array(["a", "b", "d"])), dict(labels=np.array([0, 1, 0])), wide):
        np.savez(other, **good | change)
        assert "different test samples or classes" in failure(capsys, fuse.main, [str(path), str(other)])[1]
    np.savez(other, **{name: good[name] for name in ("names", "labels")})  # of retrieval
    np.save(tmp_path / "array.npy", eye)
    np.savez(tmp_path / "object.npz", **good | {"names": np.array([print] * 3)})
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:500])
    (tmp_path / "text.npz").write_text("x")
    (tmp_path / "empty.npz").touch()
    for wrong in ("other.npz", "array.npy", "object.npz", "cut.npz", "text.npz", "empty.npz"):
        code, line = failure(capsys, fuse.main, [str(tmp_path / wrong)])
        assert code == 1 and f"{wrong} is damaged or not the predictions.npz of a classification run" in line
