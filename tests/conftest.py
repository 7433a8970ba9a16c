"""Shared by the tests: the goldens, measured on the reference implementation, and small inputs."""

import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.checkpoint import load_checkpoint  # noqa: E402  the root is on the path by now

GOLDENS = ROOT / "tests" / "goldens"
torch.set_num_threads(1)  # small tensors: threads wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # the same in the processes that tests start

SIZES = "--hidden-size 16 --num-head 2 --channels 4".split()


class Golden:
    """A golden file: arrays by key, `meta` decoded, and the weights and inputs that follow from name, shape and seed."""

    def __init__(self, name: str):
        self.arrays = np.load(GOLDENS / f"{name}.npz")
        self.meta = json.loads(bytes(self.arrays["meta"])) if "meta" in self.arrays.files else {}

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def uniform(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return uniform numbers in [-1, 1) that follow from seed, name and shape."""
        rng = np.random.default_rng([self.meta["seed"], zlib.crc32(name.encode())])
        return torch.from_numpy((rng.random(int(np.prod(shape))) * 2 - 1).reshape(shape))

    def weight(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the tensor of that name of the golden network."""
        u, leaf = self.uniform(name, shape), name.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            return torch.zeros(shape, dtype=torch.long)
        if leaf == "running_var":
            u = 1 + 0.5 * u
        elif leaf == "running_mean":
            u = 0.1 * u
        elif leaf == "alpha":
            u = 0.5 + 0.1 * u
        elif len(shape) >= 2:
            u = u * np.sqrt(3 / np.prod(shape[1:]))
        elif leaf == "weight":
            u = 1 + 0.1 * u
        else:
            u = 0.1 * u
        return u.float()


def failure(capsys, run, *args):
    """The exit status of `run` and the one line that it leaves on standard error."""
    with pytest.raises(SystemExit) as stop:
        run(*args)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return stop.value.code, lines[0]


def assert_same_training(a, b):
    """Two checkpoints of pre-training are equal bit for bit: weights, buffers, momentum, generators, position."""
    a, b = load_checkpoint(a), load_checkpoint(b)
    assert (a["epoch"], a["step"]) == (b["epoch"], b["step"])
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    for number, state in a["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], b["optimizer"]["state"][number]["momentum_buffer"]), (
            number
        )
    for ours, theirs in zip(a["random"], b["random"], strict=True):
        assert torch.equal(ours["torch"], theirs["torch"]) and torch.equal(
            ours["generator"], theirs["generator"]
        )


@pytest.fixture(scope="session")
def model_golden() -> Golden:
    return Golden("model")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A root of array folders in the NTU-60 layout: 4 classes, 6 subjects, made by the generator script."""
    import ntu_gendata  # the root is on the path by now
    from feeder.synthetic import write_ntu

    root = tmp_path_factory.mktemp("root")
    write_ntu(root / "raw", classes=4, subjects=6, repetitions=2)
    out = root / "data" / "NTU-RGB-D-60-AGCN"
    ntu_gendata.main(
        ["--data-path", str(root / "raw"), "--out-folder", str(out), "--benchmark", "xsub", "--workers", "1"]
    )
    return root / "data"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
