"""The table of results and the fusion of runs, from hand-made and from damaged run folders."""

import copy
import io
import json

import numpy as np
import pytest
import yaml

from engine import fuse, results
from engine.results import MARKERS, table, write_between_markers
from feeder.cli import UserError

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
RESULT = {"best_acc1": 60.04, "last_acc1": 59.0}
PAPER = {"task": "pretraining", "pre_dataset": "ntu60", "protocol": "cross_subject", "skeleton_representation": "joint",
         "pairs": ["ti", "si", "it", "is"], "no_masks": False, "digest": "a"}  # fmt: skip
FULL = {"train": 40091, "test": 16487, "digest": "d"}


def make_run(root, name, *lines, task="linear", data_set="ntu60", stream="joint", **options):
    folder = root / name
    folder.mkdir(parents=True)
    run = {"task": task, "data_set": data_set, "protocol": "cross_subject", "stream": stream}
    defaults = {"seed": 0, "pretrained": "ck", "origins": [PAPER], "data": FULL}
    (folder / "options.yaml").write_text(yaml.safe_dump({"run": run, "options": defaults | options}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def columns(text):
    heading, _, *rows = cells(text)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_the_published_figure_is_shown_only_where_it_compares(tmp_path):
    other = {"b": dict(stream="bone"), "c": dict(task="finetune"), "d": dict(label_fraction=0.1),
             "e": dict(data={**FULL, "train": 600}), "f": dict(data=None), "g": dict(random_encoder=True),
             "h": dict(origins=[])}  # fmt: skip
    origins = {"task": "supervised", "pre_dataset": "ntu120", "protocol": "cross_view", "skeleton_representation": "motion",
               "pairs": ["tt"], "no_masks": True}  # fmt: skip
    other |= {f"origin {name}": dict(origins=[PAPER | {name: value}]) for name, value in origins.items()}
    for name, options in other.items():
        make_run(tmp_path, name, RESULT, **options)
    make_run(tmp_path, "paper", {"epoch": 0, "acc1": 1.0}, RESULT)
    make_run(tmp_path, "first checkpoints", RESULT, origins=[{k: v for k, v in PAPER.items() if k != "task"}])
    make_run(tmp_path, "unfinished", {"epoch": 0, "acc1": 1.0})
    rows = {row["run"]: row for row in columns(table(tmp_path))}
    assert {name for name, row in rows.items() if row["published"]} == {"paper", "first checkpoints"}
    assert rows.keys() == {"paper", "first checkpoints", *other} and rows["paper"]["published"] == "86.6"
    assert all((row["Acc@1"], row["best on test"]) == ("59.0", "60.0") for row in rows.values())
    assert rows["d"]["labels"] == "10 %"


def test_the_encoder_column_says_how_the_encoder_was_made(tmp_path):
    linear = {"task": "linear", "finetune_dataset": "pku_part1", "origins": [PAPER]}
    cases = {
        "pre-trained on ntu60": PAPER,
        "pre-trained on ntu120": PAPER | {"pre_dataset": "ntu120"},
        "pre-trained on ntu60, cross_view": PAPER | {"protocol": "cross_view"},
        "pre-trained on ntu60, bone stream": PAPER | {"skeleton_representation": "bone"},
        "pre-trained on ntu60, without masks, pairs tt ss": PAPER | {"no_masks": True, "pairs": ["tt", "ss"]},
        "supervised on ntu60": {"task": "supervised", "finetune_dataset": "ntu60"},
        "fine-tuned on ntu60": {"task": "finetune", "finetune_dataset": "ntu60", "origins": [PAPER]},
        "reference": {"task": "reference"},
        "unknown": {"digest": "x"},
    }
    for name, origin in cases.items():
        make_run(tmp_path, name, RESULT, origins=[origin])
    make_run(tmp_path, "pre-trained on ntu60 ", RESULT, origins=[linear])
    make_run(tmp_path, "random", RESULT, random_encoder=True, origins=[{"digest": "x"}])
    make_run(tmp_path, "none (raw coordinates)", {"knn_acc1": 1.0}, task="retrieval", raw_coordinates=True, origins=[])
    rows = columns(table(tmp_path))
    assert len(rows) == len(cases) + 3 and all(row["encoder"] == row["run"].strip() for row in rows)


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


def test_mean_takes_together_what_differs_only_in_the_seed(tmp_path):
    def add(name, acc1, seed, **options):
        make_run(tmp_path, name, {"best_acc1": 80.0, "last_acc1": acc1}, seed=seed, **options)

    for seed, acc1 in ((0, 70.0), (1, 72.0), (2, 77.0)):
        origin = PAPER | {"digest": f"weights {seed}", "seed": seed, "checkpoint_path": f"ck/s{seed}"}
        add(f"s{seed}", acc1, seed, pretrained=f"anywhere{seed}", log_dir="x", origins=[origin])
    add("s1b-again", 0.0, 2, pretrained="ck/s2")
    add("lr", 10.0, 3, lr=9.0)
    add("data", 20.0, 4, data=FULL | {"digest": "e"})
    add("k_5", 30.0, 5, pretrained="k_5", origins=[PAPER | {"encoder_k": 16}])
    add("k_6", 40.0, 6, pretrained="k_6", origins=[PAPER | {"encoder_k": 32}])
    add("unknown", 50.0, 7, origins=[{"digest": "one"}])
    add("another", 50.0, 8, origins=[{"digest": "two"}])
    for seed in (12, 13):
        add(f"no origin {seed}", 50.0, seed, origins=[{}], pretrained=f"x{seed}")
    add("resumed", 60.0, 9)
    record = yaml.safe_load((tmp_path / "resumed" / "options.yaml").read_text())
    record["options"]["lr"] = 5.0
    (tmp_path / "resumed" / "options-2.yaml").write_text(yaml.safe_dump(record))
    for seed in (10, 11):
        add(f"random{seed}", 70.0, seed, random_encoder=True, origins=[{"digest": f"weights {seed}"}])
    text = table(tmp_path, mean=True)
    found = {row["seed"]: row["Acc@1"] for row in columns(text)}
    singles = {
        "3": "10.0",
        "4": "20.0",
        "5": "30.0",
        "6": "40.0",
        "7": "50.0",
        "8": "50.0",
        "12": "50.0",
        "13": "50.0",
        "9": "60.0",
    }
    assert found == {"0, 1, 2": f"73.0 {PLUS_MINUS} 3.6", "10, 11": f"70.0 {PLUS_MINUS} 0.0"} | singles
    assert "run" not in cells(text)[0]


def test_encoders_stand_side_by_side(tmp_path):
    for seed, acc1 in ((0, 70.0), (1, 72.0)):
        make_run(tmp_path, f"p{seed}", {"best_acc1": 80.0, "last_acc1": acc1}, seed=seed)
    make_run(tmp_path, "r", {"best_acc1": 80.0, "last_acc1": 50.0}, random_encoder=True)
    make_run(tmp_path, "k", {"knn_acc1": 40.0, "knn_neighbours": 1}, task="retrieval", raw_coordinates=True, origins=[])
    heading, _, *rows = cells(table(tmp_path, mean=True, beside=True))
    assert heading == ["task", "data set", "protocol", "stream", "none (raw coordinates)", "random", "pre-trained on ntu60"]
    linear = ["linear", "", "50.0", f"71.0 {PLUS_MINUS} 1.4"]
    assert [[row[0], *row[4:]] for row in rows] == [["1-NN retrieval", "40.0", "", ""], linear]


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
    page.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not a text file"):
        write_between_markers(page, "x")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        results.main([str(tmp_path / "log"), "--write", str(tmp_path / "nowhere.md")])
    assert stop.value.code == 1 and len(capsys.readouterr().err.splitlines()) == 1


WRONG = (None, "x", "", -1, 10**400, float("nan"), float("inf"), True, [], ["x"], [None], {}, {"train": "x"}, [[1]], 1.5)


def entries(value, path=()):
    """The path of every entry of nested dicts and lists."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path + (key,) for key, _ in children] + [p for key, child in children for p in entries(child, path + (key,))]


def test_damaged_run_folders_are_left_out_in_one_line(tmp_path, capsys):
    folder = make_run(tmp_path / "log", "run", {"epoch": 0, "acc1": 1.0}, RESULT, label_fraction=1.0)
    make_run(tmp_path / "log", "whole", RESULT, seed=5)
    content = {"options": yaml.safe_load((folder / "options.yaml").read_text())}
    content["lines"] = [{"epoch": 0}, {"stream": "joint", **RESULT, "knn_neighbours": 1}, RESULT]
    files = [folder / "options.yaml", folder / "metrics.jsonl"]

    def check(options, metrics, what):
        for path, text in zip(files, (options, metrics), strict=True):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        results.main([str(tmp_path / "log"), "--mean", "--beside"])  # any traceback fails the test
        out, err = capsys.readouterr()
        assert err.count("\n") <= 1 and (not err or err.startswith(f"left out: {folder} is damaged: ")), what
        assert "59.0" in out

    for path in entries(content):
        for wrong in WRONG:
            changed = copy.deepcopy(content)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = wrong
            lines = changed["lines"] if isinstance(changed["lines"], list) else [changed["lines"]]
            check(yaml.safe_dump(changed["options"]), "\n".join(map(json.dumps, lines)), (path, wrong))
    options, metrics = yaml.safe_dump(content["options"]), "\n".join(map(json.dumps, content["lines"]))
    for cut in range(0, len(options), 40):
        check(options[:cut], metrics, cut)
    for cut in range(0, len(metrics), 10):
        check(options, metrics[:cut], cut)
    for text in (b"\xff\xfe\x00", "a: [", "[" * 5000, "&a [*a]", "\x00"):
        check(text, metrics, text)
        check(options, text + "\n{}" if isinstance(text, str) else text + b"\n{}", text)


def test_damaged_scores_are_refused_in_one_line(tmp_path, capsys):
    good = {"names": np.array(["a", "b", "c"]), "labels": np.array([0, 1, 1]), "streams": np.array(["joint"]),
            "scores": np.eye(3, dtype=np.float32)[None], "best_scores": np.eye(3, dtype=np.float32)[None]}  # fmt: skip
    path = tmp_path / "predictions.npz"

    def refused(*flags):
        with pytest.raises(SystemExit) as stop:
            fuse.main([str(path), *flags])
        error = capsys.readouterr().err
        assert stop.value.code in (1, 2) and error.count("\n") == 1, error
        return error

    np.savez(path, **good)
    fuse.main([str(tmp_path)])
    assert "last epoch: fusion Acc@1 66.667" in capsys.readouterr().out
    for weights in (["nan"], ["inf"], ["0"], ["-1"], ["x"], ["1", "2"]):
        assert "--stream-weights" in refused("--stream-weights", *weights)
    nan, many = np.full((1, 3, 3), np.nan, np.float32), np.zeros((2, 3, 3), np.float32)
    for field, value in good.items():
        for wrong in (np.array(3), value[:0], value[:-1], np.array([b"x"] * 3), np.arange(3) - 5, np.arange(3) + 5, nan, many,
                      np.array(["x"] * 4), np.zeros((1, 3, 3), complex), np.zeros((1, 3, 0), np.float32)):  # fmt: skip
            np.savez(path, **good | {field: wrong})
            assert "not those of a run" in refused(), (field, wrong)
        np.savez(path, **{name: array for name, array in good.items() if name != field})
        refused()
        np.savez(path, **good | {field: np.array([print], dtype=object)})
        refused()
    buffer = io.BytesIO()
    np.savez(buffer, **good)
    for cut in range(0, len(buffer.getvalue()), 97):
        path.write_bytes(buffer.getvalue()[:cut])
        refused()


def test_only_runs_on_the_same_samples_are_fused(tmp_path, capsys):
    fields = {"names": ["a", "b"], "labels": [0, 1], "streams": ["joint"], "scores": np.eye(2)[None]}
    changes = {"one": {}, "two": {"names": ["a", "c"]}, "three": {"labels": [1, 0]}, "four": {"scores": np.eye(3)[None, :2]}}
    for name, change in changes.items():
        arrays = {field: np.array(value) for field, value in (fields | change).items()}
        np.savez(tmp_path / f"{name}.npz", best_scores=arrays["scores"], **arrays)
    for name, message in (
        ("two", "has other names"),
        ("three", "has other labels"),
        ("four", "has 3 classes"),
        ("no", "no file"),
    ):
        with pytest.raises(SystemExit) as stop:
            fuse.main([str(tmp_path / "one.npz"), str(tmp_path / f"{name}.npz")])
        assert stop.value.code == 1 and message in capsys.readouterr().err
