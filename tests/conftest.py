"""Shared by the tests: the goldens, measured on the reference, and small inputs."""

import itertools
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
import action_classification  # noqa: E402  the root is on the path by now
import action_retrieval  # noqa: E402
import pretraining  # noqa: E402

GOLDENS = ROOT / "tests" / "goldens"
torch.set_num_threads(1)  # small tensors: threads wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # the same in the processes that tests start

SMALL = dict(hidden_size=16, num_head=2, num_layer=1, channels=4, frames=16)  # of an encoder
SIZES = "--hidden-size 16 --num-head 2 --channels 4 --frames 16"
FIXED = "--workers 0 --device cpu --seed 1"
CONTRAST = f"{SIZES} {FIXED} --encoder-dim 8 --encoder-k 24 --batch-size 8 --checkpoint-path ck"


class Golden:
    """A golden file: arrays by key, `meta` decoded, weights and inputs that follow from name and seed."""

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
            return (1 + 0.5 * u).float()
        if len(shape) >= 2 and leaf != "alpha":
            return (u * np.sqrt(3 / np.prod(shape[1:]))).float()
        centre = {"alpha": 0.5, "weight": 1.0}.get(leaf, 0.0)
        return (centre + 0.1 * u).float()


def pretrain(data, flags=""):
    """Pre-train a small network in the current folder: 4 steps per epoch, one epoch unless set."""
    pretraining.main(f"--data-path {data} {CONTRAST} --epochs 1 {flags}".split())


def classify(data, flags=""):
    """Train a classifier in the current folder."""
    fixed = f"--data-path {data} {FIXED} --batch-size 8 --checkpoint-path ck"
    action_classification.main(f"{fixed} {flags}".split())


def retrieve(data, flags=""):
    """Evaluate retrieval in the current folder."""
    action_retrieval.main(f"--data-path {data} {FIXED} {flags}".split())


def at_step(patch, number, act):
    """Call `act` in the pre-training step of that number, counted from 0 over all epochs of this process."""
    inside, count = pretraining.train_step, itertools.count()

    def train_step(*args):
        if next(count) == number:
            act()
        return inside(*args)

    patch.setattr(pretraining, "train_step", train_step)


def newest():
    """The run folder in ./log that was written last."""
    return max(Path("log").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)


def metrics(folder):
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows_of(folder):
    """The rows of a run's result.json."""
    return json.loads((folder / "result.json").read_text())


def failure(capsys, run, *args):
    """The exit status of `run` and the one line that it leaves on standard error."""
    with pytest.raises(SystemExit) as stop:
        run(*args)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return stop.value.code, lines[0]


def saved(path):
    """The checkpoint in a folder, or the file at a path: tensors and plain types."""
    path = Path(path)
    return torch.load(path / "checkpoint.pth.tar" if path.is_dir() else path, weights_only=True)


def assert_same(one, other):
    """Tensors and numbers, also in dicts and lists, are equal bit for bit."""
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def assert_same_training(one, other):
    """Two checkpoints have the same weights, buffers, momentum, generators and position."""
    one, other = saved(one), saved(other)
    for name in ("epoch", "step", "state_dict", "optimizer", "random"):
        assert_same(one.get(name), other.get(name))


@pytest.fixture(scope="session")
def model_golden() -> Golden:
    return Golden("model")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A root of array folders: NTU-60 with 32 and 16 clips of 4 classes, also as PKU-MMD I and II."""
    import ntu_gendata
    from feeder.synthetic import write_ntu

    root = tmp_path_factory.mktemp("root")
    write_ntu(root / "raw", classes=4, subjects=6, repetitions=2)
    out = root / "data" / "NTU-RGB-D-60-AGCN"
    paths = f"--data-path {root / 'raw'} --out-folder {out}"
    ntu_gendata.main(f"{paths} --benchmark xsub --workers 1".split())
    for folder in ("pku_v1/xsub", "pku_v1/xview", "pku_v2/xsub"):
        path = root / "data" / folder
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(out / "xsub")
    return root / "data"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted pre-training of 3 epochs: its ck/ and log/."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain(data, f"--epochs 3 --checkpoint-path {folder / 'ck'} --log-dir {folder / 'log'}")
    return folder
