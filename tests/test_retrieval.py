"""Retrieval against the golden votes and plain NumPy; balanced subsets."""

import numpy as np
import pytest
import torch
from conftest import Golden

from engine.evaluation import balanced_subset, repeat_seed
from engine.retrieval import knn_predict, mean_average_precision, nearest


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_votes_are_the_goldens(k, monkeypatch):
    golden = Golden("knn")
    for chunk in (7, 256):
        monkeypatch.setattr("engine.retrieval.CHUNK", chunk)
        found = knn_predict(golden["gallery"], golden["gallery_labels"], golden["query"], k)
        assert torch.equal(found, golden[f"pred_k{k}"])


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_against_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    gallery, query = rng.normal(size=(40, 4)), rng.normal(size=(13, 4))
    gallery_labels, labels = rng.integers(0, 5, 40), rng.integers(0, 5, 13)
    labels[0] = 9  # a class that the gallery lacks
    averages, votes, rankings = [], [], []
    for q, label in zip(query, labels, strict=True):
        ranking = np.argsort([-g @ q / np.linalg.norm(g) for g in gallery])
        hits = gallery_labels[ranking] == label
        terms = [hits[: r + 1].mean() for r in np.flatnonzero(hits)]
        averages.append(100 * np.mean(terms) if terms else 0.0)
        votes.append(np.bincount(gallery_labels[ranking[:7]]).argmax())
        rankings.append(ranking[:9].tolist())
    *tensors, labels = map(torch.from_numpy, (gallery, gallery_labels, query, labels))
    assert nearest(tensors[0], tensors[2], 9).tolist() == rankings
    assert mean_average_precision(*tensors, labels).item() == pytest.approx(np.mean(averages))
    assert knn_predict(*tensors, 7).tolist() == votes


def test_tied_votes_go_to_the_smallest_label_and_equal_similarities_keep_the_order_of_the_gallery():
    for votes, winner in (([5, 2, 5, 2], 2), ([9, 3, 1, 7], 1), ([4, 4, 0, 0], 0), ([3, 1, 3, 2], 3)):
        assert knn_predict(torch.ones(4, 1), torch.tensor(votes), torch.ones(1, 1), 4).tolist() == [winner]
    gallery, labels = torch.tensor([[1.0, 0], [2, 0], [0, 1]]), torch.tensor([7, 8, 8])
    for wanted, expected in ((7, 1), (8, (1 / 2 + 2 / 3) / 2)):
        found = mean_average_precision(gallery, labels, torch.tensor([[1.0, 0]]), torch.tensor([wanted]))
        assert found.item() == pytest.approx(100 * expected)
    perfect = torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 2, 0, 1, 2]), torch.eye(3), torch.arange(3)
    assert mean_average_precision(*perfect) == 100
    for k in (0, 7):
        with pytest.raises(ValueError, match="size of the gallery"):
            knn_predict(torch.eye(6), torch.arange(6), torch.eye(6), k)


def test_runs_with_repeats_share_no_subset():
    labels = np.repeat(np.arange(10), 30)
    seeds = [repeat_seed(seed, repeat) for seed in range(3) for repeat in range(5)]
    assert len({tuple(balanced_subset(labels, 0.1, seed)) for seed in seeds}) == 15 and repeat_seed(7, 0) == 7


def test_a_subset_is_seeded_and_as_balanced_as_its_classes_allow():
    labels = np.repeat([0, 1, 2, 5], [40, 100, 3, 57])
    for fraction in (0.02, 0.05, 0.1, 0.333, 0.5, 0.9, 1):
        rows = balanced_subset(labels, fraction, seed=1)
        assert np.array_equal(rows, balanced_subset(labels, fraction, seed=1))
        assert len(set(rows)) == len(rows) == round(200 * fraction) and (np.diff(rows) > 0).all()
        counts = {label: (labels[rows] == label).sum() for label in (0, 1, 2, 5)}
        whole = [label for label, n in counts.items() if n == (labels == label).sum()]
        assert all(n >= max(counts.values()) - 1 or label in whole for label, n in counts.items()), counts
