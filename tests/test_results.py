"""The table of results and the fusion of runs, from hand-made and from damaged files; rows of results from hand-made runs."""

import io
import json

import numpy as np
import pytest
from conftest import failure

from engine import fuse, results
from engine.evaluation import describe_encoder, result_row
from engine.results import MARKERS, RESULT, read_rows, table, write_between_markers, write_rows
from engine.runlog import Run
from feeder.cli import UserError

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
PAPER = {"task": "pretraining", "pre_dataset": "ntu60", "protocol": "cross_subject", "skeleton_representation": "joint",
         "pairs": ["ti", "si", "it", "is"], "no_masks": False, "digest": "a", "seed": 0}  # fmt: skip
FULL = {"train": 40091, "test": 16487, "digest": "d"}


def new_row(stream="joint", streams=None, task="linear", kind=None, acc1=59.0, best_acc1=60.04, **options):
    run = Run(task, "ntu60", "cross_subject", streams or stream)
    options = {
        "seed": 0,
        "pretrained": "ck",
        "origins": [PAPER] * len(run.stream.split("+")),
        "data": FULL,
    } | options
    return result_row(run, options, stream, kind or task, acc1=acc1, best_acc1=best_acc1)


def write(root, name, *rows):
    (root / name).mkdir(parents=True)
    write_rows(root / name, rows)


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def columns(text):
    heading, _, *rows = cells(text)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_the_published_figure_is_shown_only_where_it_compares(tmp_path):
    other = {"bone": dict(stream="bone"), "finetune": dict(task="finetune"), "labels": dict(label_fraction=0.1),
             "subset": dict(data={**FULL, "train": 600}), "random": dict(origins=[{"task": "random"}]),
             "unknown": dict(origins=[{}])}  # fmt: skip
    origins = {"task": "supervised", "pre_dataset": "ntu120", "protocol": "cross_view", "skeleton_representation": "motion",
               "pairs": ["tt"], "no_masks": True}  # fmt: skip
    other |= {f"origin {name}": dict(origins=[PAPER | {name: value}]) for name, value in origins.items()}
    for name, options in other.items():
        write(tmp_path, name, new_row(**options))
    write(tmp_path, "paper", new_row())
    write(tmp_path, "paper 5-NN", *(new_row(task="retrieval", kind=f"{k}-NN retrieval") for k in (1, 5)))
    rows = columns(table(tmp_path))
    assert [(row["run"], row["task"], row["published"]) for row in rows if row["published"]] == [
        ("paper 5-NN", "1-NN retrieval", "76.2"), ("paper", "linear", "86.6")]  # fmt: skip
    assert {row["run"] for row in rows} == {"paper", "paper 5-NN", *other}
    assert all((row["Acc@1"], row["best on test"]) == ("59.0", "60.0") for row in rows)
    assert next(row["labels"] for row in rows if row["run"] == "labels") == "10 %"


def test_the_encoder_column_says_how_the_encoder_was_made():
    linear = {"task": "linear", "finetune_dataset": "pku_part1", "origins": [PAPER]}
    for expected, origin in [
        ("pre-trained on ntu60", PAPER),
        ("pre-trained on ntu60", linear),
        ("pre-trained on ntu120", PAPER | {"pre_dataset": "ntu120"}),
        ("pre-trained on ntu60, cross_view: may have seen test clips", PAPER | {"protocol": "cross_view"}),
        ("pre-trained on ntu60, unfinished: epoch 30 of 451", PAPER | {"epoch": 30, "epochs": 451}),
        ("pre-trained on ntu60", PAPER | {"epoch": 451, "epochs": 451}),
        ("pre-trained on ntu60, bone stream", PAPER | {"skeleton_representation": "bone"}),
        (
            "pre-trained on ntu60, without masks, pairs tt ss",
            PAPER | {"no_masks": True, "pairs": ["tt", "ss"]},
        ),
        ("supervised on ntu60", {"task": "supervised", "finetune_dataset": "ntu60"}),
        ("fine-tuned on ntu60", {"task": "finetune", "finetune_dataset": "ntu60", "origins": [PAPER]}),
        ("reference", {"task": "reference"}),
        ("random", {"task": "random"}),
        ("none (raw coordinates)", {"task": "raw"}),
        *(
            ("unknown", wrong)
            for wrong in (
                {"digest": "x"},
                {"task": "linear", "origins": 3},
                PAPER | {"pairs": 3},
                {"task": []},
            )
        ),
    ]:
        assert describe_encoder(origin, "cross_subject", "joint") == expected
    bone = PAPER | {"skeleton_representation": "bone"}
    assert new_row("joint+bone", origins=[PAPER, bone])["encoder"] == "pre-trained on ntu60"
    assert new_row("bone", "joint+bone", origins=[PAPER, bone])["encoder"] == "pre-trained on ntu60"
    assert new_row("joint+bone", origins=[PAPER, {}])["encoder"] == "pre-trained on ntu60; unknown"


def test_mean_takes_together_what_differs_only_in_the_seed(tmp_path):
    def add(acc1, seed, **options):
        write(tmp_path, f"{len(list(tmp_path.iterdir())):02}", new_row(acc1=acc1, seed=seed, **options))

    for seed, acc1 in ((0, 70.0), (1, 72.0), (2, 0.0), (2, 77.0)):  # of seed 2 the last
        origin = PAPER | {"digest": f"weights {seed}", "seed": seed, "checkpoint_path": f"ck/s{seed}"}
        add(acc1, seed, pretrained=f"anywhere{seed}", log_dir="x", origins=[origin])
    for seed in (10, 11):
        add(70.0, seed, origins=[{"task": "random", "seed": seed, "digest": f"weights {seed}"}])
    others = [
        dict(lr=9.0),
        dict(changes=["note: resumed with lr 5.0, was 9.0"]),
        dict(data=FULL | {"digest": "e"}),
        *(dict(origins=[PAPER | {"encoder_k": K}]) for K in (16, 32)),
        *(dict(origins=[{"digest": weights}]) for weights in ("one", "two")),
        *(dict(origins=[{"task": "linear", "seed": 0, "origins": [PAPER | {"epochs": n}]}]) for n in (1, 2)),
    ]
    for seed, options in enumerate(others, start=20):
        add(float(seed), seed, **options)
    text = table(tmp_path, mean=True)
    found = {row["seed"]: row["Acc@1"] for row in columns(text)}
    singles = {str(seed): f"{seed}.0" for seed, _ in enumerate(others, start=20)}
    assert found == {"0, 1, 2": f"73.0 {PLUS_MINUS} 3.6", "10, 11": f"70.0 {PLUS_MINUS} 0.0"} | singles
    assert "run" not in cells(text)[0]


def test_repeats_have_a_deviation_of_their_own(tmp_path):
    row = new_row(label_fraction=0.1) | {
        "acc1": 40.0,
        "acc1_std": 10.04,
        "best_acc1_std": 0.0,
        "mean_average_precision": 33.33,
    }
    text = json.dumps(row) + "\n" + json.dumps(new_row(seed=1)) + "\n"
    (tmp_path / "results.jsonl").write_text(text)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.jsonl").write_text(text)  # is read only if there is nothing else
    repeats, single = columns(table(tmp_path))[::-1]
    assert (
        repeats["Acc@1"] == f"40.0 {PLUS_MINUS} 10.0" and repeats["best on test"] == f"60.0 {PLUS_MINUS} 0.0"
    )
    assert (repeats["mAP"], repeats["labels"], single["mAP"], single["seed"]) == ("33.3", "10 %", "", "1")
    (tmp_path / "results.jsonl").unlink()
    assert len(columns(table(tmp_path))) == 2


def test_encoders_have_a_column_each(tmp_path):
    write(tmp_path, "p", *(new_row(acc1=acc1, seed=seed) for seed, acc1 in ((0, 70.0), (1, 72.0))))
    write(tmp_path, "r", new_row(acc1=50.0, origins=[{"task": "random"}]))
    write(
        tmp_path, "k", new_row(acc1=40.0, task="retrieval", kind="1-NN retrieval", origins=[{"task": "raw"}])
    )
    heading, _, *rows = cells(table(tmp_path, mean=True, by_encoder=True))
    assert heading == [
        "task",
        "data set",
        "protocol",
        "stream",
        "none (raw coordinates)",
        "random",
        "pre-trained on ntu60",
    ]
    linear = ["linear", "", "50.0", f"71.0 {PLUS_MINUS} 1.4"]
    assert [[row[0], *row[4:]] for row in rows] == [["1-NN retrieval", "40.0", "", ""], linear]


def test_the_table_goes_between_the_markers(tmp_path, capsys):
    write(tmp_path / "log", "a", new_row())
    page, (start, end) = tmp_path / "page.md", MARKERS
    page.write_text(f"before {start}\n{start}\nold\n{end}\nafter\n")
    for _ in range(2):  # the second time nothing changes
        results.main([str(tmp_path / "log"), "--write", str(page)])
        assert page.read_text() == f"before {start}\n{start}\n{table(tmp_path / 'log')}\n{end}\nafter\n"
    for text in ("none", f"{start}\n", f"{end}\n{start}\n", f"{start}\n{start}\n{end}"):
        page.write_text(text)
        with pytest.raises(UserError, match="page.md: the table goes between"):
            write_between_markers(page, "x")
        assert page.read_text() == text
    page.write_bytes(f"{start}\n{end}\n".encode() + b"\xff")
    write_between_markers(page, "x")
    assert page.read_bytes() == f"{start}\nx\n{end}\n".encode() + b"\xff", "another encoding"
    capsys.readouterr()
    assert (
        failure(capsys, results.main, [str(tmp_path / "log"), "--write", str(tmp_path / "nowhere.md")])[0]
        == 1
    )


WRONG = (
    None,
    "x",
    "",
    -1,
    10**400,
    float("nan"),
    float("inf"),
    1e308,
    True,
    [],
    ["x"],
    {},
    1.5,
    "a\nb",
    "\ud800",
)


def test_damaged_results_are_left_out_in_one_line(tmp_path, capsys):
    write(tmp_path, "whole", new_row(seed=5))
    write(tmp_path, "run", new_row())
    row, other, path = new_row(), new_row(seed=1), tmp_path / "run" / RESULT
    changed = [
        content
        for wrong in WRONG
        for content in (wrong, [row, wrong], *([row, other | {k: wrong}] for k in other))
    ]
    changed += [[{key: value for key, value in row.items() if key != name}] for name in row]
    texts = [json.dumps(content) for content in changed]
    texts += [json.dumps([row, other])[:cut] for cut in range(0, 700, 20)] + ["[" * 5000, "\x00", "\udcff"]
    refused = 0
    for text in texts:
        path.write_bytes(text.encode(errors="surrogateescape"))
        results.main([str(tmp_path), "--mean", "--by-encoder"])  # any traceback fails the test
        out, err = capsys.readouterr()
        assert "| linear |" in out and (
            not err or err.startswith(f"skipped: {path} is damaged: ") and err.count("\n") == 1
        )
        refused += bool(err)
    assert refused > len(texts) / 2
    with pytest.raises(UserError, match="Is a directory"):
        read_rows(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        table(tmp_path / "nowhere")


def test_damaged_scores_are_refused_in_one_line(tmp_path, capsys):
    eye = np.eye(3, dtype=np.float32)[None]
    good = {"names": np.array(["a", "b", "c"]), "labels": np.array([0, 1, 1]), "streams": np.array(["joint"])}
    good |= {"scores": eye, "best_scores": eye}
    path, other = tmp_path / "predictions.npz", tmp_path / "other.npz"
    np.savez(path, **good)
    fuse.main([str(tmp_path)])
    assert "last epoch: fusion Acc@1 66.667" in capsys.readouterr().out
    for weights in (["nan"], ["inf"], ["0"], ["-1"], ["x"], ["1", "2"]):
        assert "--stream-weights" in failure(capsys, fuse.main, [str(path), "--stream-weights", *weights])[1]

    # runs on other samples
    for change in (
        {"names": np.array(["a", "b", "d"])},
        {"labels": np.array([0, 1, 0])},
        {"scores": np.eye(4)[None, :3]},
    ):
        np.savez(other, **good | change | {"best_scores": change.get("scores", eye)})
        assert "different test samples or classes" in failure(capsys, fuse.main, [str(path), str(other)])[1]
    assert "No such file" in failure(capsys, fuse.main, [str(path), str(tmp_path / "no.npz")])[1]

    # other contents, missing and truncated ones
    nan, many, wrong_type = np.full_like(eye, np.nan), np.zeros((2, 3, 3), np.float32), eye.astype(complex)
    broken = []
    for field, value in good.items():
        for wrong in (np.array(3), value[:0], value[:-1], np.array([b"x"] * 3), np.arange(3) - 5, np.arange(3) + 5, nan, many,
                      np.array(["x"] * 4), wrong_type, eye[..., :0], np.array([print], dtype=object)):  # fmt: skip
            broken.append(good | {field: wrong})
        broken.append({name: array for name, array in good.items() if name != field})
    contents = []
    for arrays in broken:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        contents.append(buffer.getvalue())
    contents += [path.read_bytes()[:cut] for cut in range(0, path.stat().st_size, 97)]
    for content in contents:
        path.write_bytes(content)
        code, line = failure(capsys, fuse.main, [str(path)])
        assert code == 1 and "not the predictions.npz of a classification run" in line
