"""Downstream scripts in two processes (gloo, on the CPU): the features, accuracies and files of one process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, failure
from test_scripts import SIZES

import action_classification
import action_retrieval
from engine import downstream
from engine.checkpoint import load_checkpoint

SCRIPTS = {"linear": action_classification, "retrieval": action_retrieval}
MORE = {"linear": ["--epochs", "3", "--batch-size", "8"], "retrieval": ["--batch-size", "5", "--knn-neighbours", "1", "3"]}


def flags(data, task, name):
    where = ["--data-path", str(data), "--log-dir", f"{name}/log", "--feature-cache", f"{name}/cache"]
    if task == "linear":
        where += ["--checkpoint-path", f"{name}/ck"]
    run = ["--save-features", "--workers", "0", "--device", "cpu", "--seed", "3"]
    return [*where, "--random-encoder", *SIZES, *MORE[task], *run]


def run_two(script, *flags):
    """The finished script under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, str(ROOT / script), *flags], env=environment, capture_output=True, text=True, timeout=300)


def outcome(here, name):
    """Metrics and arrays of the only run."""
    (folder,) = (here / name / "log").iterdir()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines, {path.name: dict(np.load(path, allow_pickle=False)) for path in sorted(folder.glob("*.npz"))}


@pytest.mark.parametrize("task", SCRIPTS)
def test_two_processes_find_what_one_finds(data, here, task, capsys):
    result = run_two(f"action_{'classification' if task == 'linear' else 'retrieval'}.py", *flags(data, task, "two"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("log in ") == 1 and len(os.listdir("two/cache")) == 2
    SCRIPTS[task].main(flags(data, task, "one"))
    (lines, arrays), (expected_lines, expected_arrays) = outcome(here, "two"), outcome(here, "one")
    assert list(arrays) == list(expected_arrays) == ["features_joint_train.npz", "features_joint_val.npz", "predictions.npz"]
    for name, expected in expected_arrays.items():
        assert list(arrays[name]) == list(expected)
        for key, values in expected.items():
            if values.dtype.kind == "f":  # batches of other sizes round otherwise
                np.testing.assert_allclose(arrays[name][key], values, rtol=1e-4, atol=1e-4)
            else:
                np.testing.assert_array_equal(arrays[name][key], values)
    assert len(lines) == len(expected_lines)
    for line, expected in zip(lines, expected_lines, strict=True):
        assert line.pop("stream", None) == expected.pop("stream", None) and line == pytest.approx(expected, rel=1e-4)
    if task == "linear":
        one, two = (load_checkpoint(f"{name}/ck")["state_dict"] for name in ("one", "two"))
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-4)
    capsys.readouterr()
    SCRIPTS[task].main([*flags(data, task, "one"), "--feature-cache", "two/cache"])
    assert capsys.readouterr().out.count(f"features of train: two{os.sep}cache") == 1, "one process takes what rank 0 kept"


def test_what_several_processes_cannot_do_is_said_in_one_line(data, here, monkeypatch, capsys):
    monkeypatch.setattr(downstream, "world_size", lambda: 17)
    for script, task in ((action_classification, "linear"), (action_retrieval, "retrieval")):
        code, line = failure(capsys, script.main, flags(data, task, "x"))
        assert code == 1 and "val has 16 clips for 17 processes: start fewer" in line
    monkeypatch.setenv("WORLD_SIZE", "2")
    for flag in ("--finetune", "--no-feature-cache"):
        code, line = failure(capsys, action_classification.main, ["--data-path", str(data), "--random-encoder", *SIZES, flag])
        assert code == 2 and "--finetune and --no-feature-cache are for one process" in line
    assert not os.listdir(here)
