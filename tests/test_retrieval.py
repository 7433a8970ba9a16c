"""Retrieval against the golden votes and plain NumPy; balanced subsets."""

import numpy as np
import pytest
import torch
from conftest import Golden

from engine.retrieval import retrieve
from engine.subset import balanced_subset, describe_subset
from feeder.cli import UserError


def slow(gallery, gallery_labels, query, query_labels, k):
    """Return recall at k and mean average precision in percent, term by term as the docstring of `retrieve` has them."""
    recalls, averages = [], []
    for q, label in zip(query, query_labels, strict=True):
        s = np.array([g @ q / np.linalg.norm(g) / np.linalg.norm(q) for g in gallery]).round(6)
        relevant = gallery_labels == label
        recalls.append(relevant[np.argsort(-s, kind="stable")[:k]].any())
        terms = [(relevant & (s >= s[r])).sum() / (s >= s[r]).sum() for r in np.flatnonzero(relevant)]
        averages.append(np.mean(terms) if terms else 0.0)
    return 100 * np.mean(recalls), 100 * np.mean(averages)


@pytest.mark.parametrize("memory", [1, 1000, 10**9])
def test_votes_are_the_goldens_whatever_the_memory(memory):
    golden = Golden("knn")
    arrays = golden["gallery"], golden["gallery_labels"], golden["query"]
    found = retrieve(*arrays, torch.zeros(len(golden["query"]), dtype=torch.long), (20, 1, 5, 2), memory)
    assert found.neighbours.shape == (len(golden["query"]), 20)
    for k in (1, 2, 5, 20):
        assert torch.equal(found.predictions[k], golden[f"pred_k{k}"]), k


@pytest.mark.parametrize("seed", range(5))
def test_recall_and_average_precision_against_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(40, 4)), rng.integers(0, 5, 40), rng.normal(size=(13, 4)), rng.integers(0, 5, 13)
    arrays[3][0] = 9  # a class that the gallery lacks
    found = retrieve(*map(torch.from_numpy, arrays), ks=(1, 3, 40), memory=8 * 40 * 5)
    for k in (1, 3, 40):
        recall, average = slow(*arrays, k)
        assert found.recall[k] == pytest.approx(recall) and found.mean_average_precision == pytest.approx(average)


def test_equal_similarities_share_a_rank():
    # the query's similarities: 1 for three samples of which one is relevant, 0 for a relevant one
    gallery = torch.tensor([[1.0, 0], [2, 0], [3, 0], [0, 1]])
    for order in ([0, 1, 2, 3], [2, 0, 1, 3], [3, 2, 1, 0]):
        labels = torch.tensor([7, 8, 8, 7])[order]
        found = retrieve(gallery[order], labels, torch.tensor([[1.0, 0]]), torch.tensor([7]), (1,))
        assert found.mean_average_precision == pytest.approx(100 * (1 / 3 + 2 / 4) / 2)


def test_a_perfect_ranking_has_average_precision_1_and_without_it_there_is_none():
    gallery, labels = torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    found = retrieve(gallery, labels, torch.eye(3), torch.arange(3), (1, 2))
    assert found.mean_average_precision == 100 and found.recall == {1: 100, 2: 100}
    assert retrieve(gallery, labels, torch.eye(3), torch.arange(3), (1,), mean_average_precision=False)[3] is None


@pytest.mark.parametrize("ks", [(0,), (1, 7)])
def test_a_k_beyond_the_gallery_is_refused(ks):
    with pytest.raises(ValueError, match="gallery of 6"):
        retrieve(torch.eye(6), torch.arange(6), torch.eye(6), torch.arange(6), ks)


def test_a_subset_is_seeded_and_as_balanced_as_its_classes_allow():
    labels = np.repeat([0, 1, 2, 5], [40, 100, 3, 57])
    for fraction in (0.02, 0.05, 0.1, 0.333, 0.5, 0.9, 1):
        rows = balanced_subset(labels, fraction, seed=1)
        assert len(set(rows)) == len(rows) == round(200 * fraction) and (np.diff(rows) > 0).all()
        counts = {label: (labels[rows] == label).sum() for label in (0, 1, 2, 5)}
        largest = max(counts.values())
        assert all(n >= largest - 1 or n == (labels == label).sum() for label, n in counts.items()), (fraction, counts)
    assert np.array_equal(balanced_subset(labels, 0.1, 1), balanced_subset(labels, 0.1, 1))
    assert not np.array_equal(balanced_subset(labels, 0.1, 1), balanced_subset(labels, 0.1, 2))
    line = describe_subset(labels, balanced_subset(labels, 0.02, 1), 1)
    assert line == "4 of 200 labels, drawn with seed 1; samples of each class: 0:1 1:1 2:1 5:1"


def test_every_sample_has_the_same_chance():
    labels = np.repeat([0, 1], 10)
    drawn = np.concatenate([balanced_subset(labels, 0.25, seed) for seed in range(400)])  # 5 of 20, 400 times
    counts = np.bincount(drawn, minlength=20)
    assert counts.sum() == 2000 and abs(counts - 100).max() < 45, "five standard deviations"


def test_a_fraction_that_empties_a_class_is_refused():
    with pytest.raises(UserError, match="0.01 of 200 samples is 2, which leaves some of the 4 classes empty: at least 0.02 is"):
        balanced_subset(np.repeat([0, 1, 2, 5], [40, 100, 3, 57]), 0.01, 0)
