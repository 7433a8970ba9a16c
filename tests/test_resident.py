"""A data set held in memory gives the batches of the one on disk."""

import pickle

import numpy as np
import pytest
import torch

from feeder import resident
from feeder.augmentations import PretrainingViews
from feeder.cli import UserError
from feeder.dataset import Batches, SkeletonDataset, make_loader
from feeder.resident import ResidentDataset

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 301, 40)
    np.save(tmp_path / "train_data_joint.npy", rng.normal(0, 1, (40, 3, 300, 25, 2)).astype(np.float32))
    np.save(tmp_path / "train_num_frame.npy", lengths)
    names = [f"S001C001P001R001A{i + 1:03d}.skeleton" for i in range(40)]
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((names, rng.integers(0, 5, 40).tolist())))
    return SkeletonDataset(tmp_path, "train")


def test_views_labels_and_lengths_are_those_of_the_memmap(dataset, monkeypatch):
    monkeypatch.setattr(resident, "_CHUNK", 7)
    held, views = ResidentDataset(dataset, CPU), PretrainingViews()
    batches = Batches(len(dataset), 16, seed=3)
    for ours, theirs in zip(make_loader(held, batches, 0), make_loader(dataset, batches, 0), strict=True):
        assert torch.equal(ours.num_frames, theirs.num_frames) and torch.equal(ours.labels, theirs.labels)
        a = views(ours.x, ours.num_frames, torch.Generator().manual_seed(1))
        b = views(theirs.x, theirs.num_frames, torch.Generator().manual_seed(1))
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_only_valid_frames_are_held(dataset):
    held = ResidentDataset(dataset, CPU)
    assert len(held) == len(dataset) and held.frames.shape == (int(dataset.num_frame.sum()), 3, 25, 2)


def test_a_data_set_that_does_not_fit_is_refused(dataset, monkeypatch):
    need = 4 * int(dataset.num_frame.sum()) * 3 * 25 * 2
    monkeypatch.setattr(resident, "_free_memory", lambda device: int(need / resident._SHARE) - 10)
    with pytest.raises(UserError, match="leave --resident out"):
        ResidentDataset(dataset, CPU)
    monkeypatch.setattr(resident, "_free_memory", lambda device: int(need / resident._SHARE) + 10)
    ResidentDataset(dataset, CPU)


def test_free_memory_is_some():
    assert 2**20 < resident._free_memory(CPU) < 2**50
