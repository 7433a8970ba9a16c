"""The table of results, how runs become its rows, and the fusion of runs."""

import dataclasses
import json
import re

import pytest
import torch
from conftest import ROOT, classify, newest, retrieve, rows_of, saved

from engine import results
from feeder.data_sets import DATA_SETS

PAPER = dict(task="linear", data_set="ntu60", protocol="cross_subject", stream="joint", labels=1.0, setup="")
PAPER |= dict(encoder="pre-trained on ntu60", seed=0, comparable=True, acc1=59.0, best_acc1=60.04)


def write(folder, *rows):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps([PAPER | row for row in rows]))


@pytest.fixture
def table(capsys):
    """Return the lines of the table of a folder, each as a dict of its columns, and the text below it."""

    def run(folder, *flags):
        capsys.readouterr()
        results.main([str(folder), *flags])
        return lines_of(text := capsys.readouterr().out), text.rpartition("|\n")[2].strip()

    return run


def lines_of(text):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_the_published_figure_is_shown_only_where_it_compares(tmp_path, table):
    write(tmp_path / "a", {}, {"comparable": False}, {"task": "finetune"}, {"data_set": "ui_prmd"})
    write(tmp_path / "b", *({"task": f"{k}-NN retrieval", "best_acc1": None} for k in (1, 5)))
    lines, _ = table(tmp_path)
    shown = [(line["run"], line["task"], line["published"]) for line in lines if line["published"]]
    assert shown == [("b", "1-NN retrieval", "76.2"), ("a", "linear", "86.6")] and len(lines) == 6
    assert all(line["Acc@1"] == "59.0" for line in lines) and lines[0]["best on test"] == ""
    assert lines[-1]["best on test"] == "60.0" and "labels" not in lines[0]


def test_mean_takes_together_what_differs_only_in_the_seed(tmp_path, table):
    for i, (seed, acc1) in enumerate(((0, 70.0), (1, 72.0), (2, 0.0), (2, 77.0))):  # of seed 2 the last
        write(tmp_path / f"run{i}", {"seed": seed, "acc1": acc1})
    other = dict(task="finetune", data_set="ntu120", protocol="cross_view", stream="bone", labels=0.1)
    other |= dict(setup="--lr 9", encoder="random", comparable=False)
    for name, value in other.items():
        write(tmp_path / name, {name: value, "seed": 3, "acc1": 10.0})
    for weights, acc1 in (("a", 70.0), ("b", 80.0), ("c", 90.0), ("c", 90.0)):  # several encoders, one seed
        write(
            tmp_path / f"{weights}{acc1}{len(list(tmp_path.iterdir()))}",
            dict(stream="motion", weights=weights, acc1=acc1),
        )
    lines, _ = table(tmp_path, "--mean")
    seeds = {line["seed"]: (line["Acc@1"], line["best on test"]) for line in lines if line["seed"] != "3"}
    assert seeds == {"0, 1, 2": ("73.0 ± 3.6", "60.0 ± 0.0"), "0, 0, 0": ("80.0 ± 10.0", "60.0 ± 0.0")}
    assert len(lines) == 2 + len(other) and "run" not in lines[0]


def test_setups_are_numbered(tmp_path, table):
    write(tmp_path / "a", {"setup": "--lr 9"}, {"setup": "--lr 9", "seed": 1})
    lines, legend = table(tmp_path)
    assert "setup" not in lines[0] and legend == "- setup: --lr 9"
    write(tmp_path / "b", {})
    lines, legend = table(tmp_path)
    assert [line["setup"] for line in lines] == ["[1]", "[2]", "[2]"]
    assert legend == "- setup [1]: as in the paper\n- setup [2]: --lr 9"


def test_repeats_have_a_deviation_of_their_own(tmp_path, table):
    row = dict(labels=0.1, acc1=40.0, acc1_std=10.04, best_acc1_std=0.0, mean_average_precision=33.33)
    text = json.dumps(PAPER | row) + "\n" + json.dumps(PAPER | {"seed": 1}) + "\n"
    (tmp_path / "results.jsonl").write_text(text)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.jsonl").write_text(text)  # is read only if there is nothing else
    repeats, single = table(tmp_path)[0]
    assert (repeats["Acc@1"], repeats["best on test"]) == ("40.0 ± 10.0", "60.0 ± 0.0")
    assert (repeats["mAP"], repeats["labels"], single["mAP"], single["seed"]) == ("33.3", "10 %", "", "1")
    (tmp_path / "results.jsonl").unlink()
    assert len(table(tmp_path)[0]) == 2


def test_the_figures_in_the_documents_are_those_of_the_logs(table):
    page = (ROOT / "docs" / "results.md").read_text()
    logged, shown = {}, {}
    columns = {("1-NN retrieval", ""): "1-NN", ("linear", ""): "linear", ("linear", "10 %"): "linear, 10 %"}
    for name in ("ui_prmd", "nw_ucla"):
        for line in table(ROOT / "log" / name, "--mean")[0]:
            encoder = line["encoder"].removeprefix(f"pre-trained on {name}").removeprefix(", ")
            column = columns.get((line["task"], line["labels"]), "linear, one label per class")
            if line["task"] != "finetune":
                logged[name, line["stream"], encoder or "pre-trained", column] = line["Acc@1"]
        for line in lines_of(re.search(rf"(?m)^\| {name} \|.*\n(\|.*\n)+", page)[0]):
            about = (name, line.pop(name), line.pop("encoder"))
            shown |= {(*about, column): text for column, text in line.items() if text}
    assert shown == logged


def test_a_damaged_result_is_left_out_in_one_line(tmp_path, capsys):
    write(tmp_path / "whole", {})
    write(tmp_path / "run", {})
    path = tmp_path / "run" / "result.json"
    for content in (b"", b"null", b"[3]", b"[{}]", json.dumps([PAPER])[:90].encode(), b"\xff"):
        path.write_bytes(content)
        results.main([str(tmp_path), "--mean"])
        out, err = capsys.readouterr()
        assert out.count("| linear |") == 1 and err.startswith(f"skipped: {path} is damaged")
        assert err.count("\n") == 1, content


@pytest.fixture(scope="module")
def finished(whole):
    """The checkpoint of a pre-training that is complete and has the paper's options."""
    return saved(whole / "ck") | {"setup": ""}


@pytest.mark.parametrize(
    "entries, options, encoder",
    [
        ({}, {}, "pre-trained on ntu60"),
        ({}, {"protocol": "cross_view"}, "pre-trained on ntu60, cross_view: may have seen test clips"),
        ({}, {"epochs": 451}, "pre-trained on ntu60, unfinished: epoch 3 of 451"),
        ({}, {"skeleton_representation": "bone"}, "pre-trained on ntu60, bone stream"),
        ({}, dict(no_masks=True, pairs=["tt"]), "pre-trained on ntu60, without masks, pairs tt"),
        ({}, dict(pre_dataset="pku_part1", protocol="cross_view"), "pre-trained on pku_part1"),
        ({"run": "supervised"}, {}, "supervised on ntu60"),
        (
            {"run": "finetune"},
            {"protocol": "cross_view"},
            "fine-tuned on ntu60, cross_view: may have seen test clips",
        ),
        (None, {}, "unknown"),
    ],
)
def test_a_row_says_how_its_encoder_was_made(data, here, monkeypatch, finished, entries, options, encoder):
    """Only the paper's method on the whole data set is comparable with the published figure."""
    content = {"state_dict": finished["state_dict"]}
    if entries is not None:
        options = finished["options"] | options
        names = ("pre_dataset", "protocol", "skeleton_representation")
        run = [entries.get("run", "pretraining"), *(options[name] for name in names)]
        content = finished | entries | {"options": options, "run": run}
    torch.save(content, "x.tar")
    comparable = []
    for counts in ((32, 16), (40091, 16487)):
        row = dataclasses.replace(DATA_SETS["ntu60"], protocols={"cross_subject": counts})
        monkeypatch.setitem(DATA_SETS, "ntu60", row)
        retrieve(data, "--pretrained x.tar")
        (row,) = rows_of(newest())
        comparable.append(row["comparable"])
        assert row["encoder"] == encoder
    assert comparable == [encoder == "pre-trained on ntu60", False]


def test_a_row_tells_experiments_apart(data, here, finished):
    """By the flags of both trainings, the data, and digests of weights."""
    torch.save(finished | {"setup": "--lr 9.0"}, "x.tar")
    classify(data, "--pretrained x.tar --schedule 1 --cos --label-fraction 0.5 --save-freq 1")
    (row,), digest = rows_of(newest()), r"[0-9a-f]{8}"
    pattern = rf"--lr 9\.0; --batch-size 8 --schedule 1 --cos; 32 \+ 16 clips {digest}"
    assert re.fullmatch(pattern, row["setup"]) and re.fullmatch(digest, row["weights"])
    assert (row["seed"], row["labels"], row["comparable"]) == (1, 0.5, False)
