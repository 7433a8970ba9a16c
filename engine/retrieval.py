"""Retrieval by cosine similarity: nearest neighbours, recall and mean average precision from one similarity product."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.metrics import vote

MIB = 2**20


class Retrieval(NamedTuple):
    """What `retrieve` found."""

    neighbours: Tensor  # (n_query, max k) ints, gallery samples, the most similar first
    predictions: dict[int, Tensor]  # k -> (n_query,) labels
    recall: dict[int, float]  # k -> percent
    mean_average_precision: float | None  # percent


def retrieve(
    gallery: Tensor,
    gallery_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    ks: Sequence[int],
    memory: int = 512 * MIB,
    mean_average_precision: bool = True,
) -> Retrieval:
    """Return the k nearest gallery samples of each query for all `ks`, their votes, and how well the gallery is ranked.

    Similarity is the cosine. With s the similarities of a query to the gallery, and "relevant" what has its label:

    - prediction: the label that most of the k nearest have; ties go to the smallest label (`engine.metrics.vote`).
    - recall at k: the share of queries with at least one relevant sample among the k nearest (Recall@k of image retrieval;
      at k = 1 it is the accuracy of 1-NN).
    - average precision: the mean over the relevant samples r of
      (number of relevant samples with s >= s_r) / (number of samples with s >= s_r), over the whole gallery; equal
      similarities share a rank, so that no order among them counts. Its mean is over queries; one whose label the gallery
      lacks counts 0.

    Args:
        gallery: features (n_gallery, D); need not be normalised.
        gallery_labels: (n_gallery,) ints.
        query: features (n_query, D).
        query_labels: (n_query,) ints.
        ks: numbers of neighbours, each 1 .. n_gallery.
        memory: bytes that the similarities of a chunk of queries may take, with what is computed from them; at least one
            query is compared at a time. The features and a normalised copy of them are beside it.
        mean_average_precision: False leaves it out. It sorts all similarities, which a GPU does slower than it multiplies.

    Raises:
        ValueError: a k is outside 1 .. n_gallery.
    """
    if not 1 <= min(ks) <= max(ks) <= len(gallery):
        raise ValueError(f"k = {', '.join(map(str, ks))} neighbours asked of a gallery of {len(gallery)}")
    gallery, query = F.normalize(gallery, dim=1), F.normalize(query, dim=1)
    order, starts, counts = _by_label(gallery_labels, query_labels)
    per_query = len(gallery) * (4 if not mean_average_precision else 8 if gallery.device.type == "cpu" else 16)
    chunk = max(1, memory // per_query)
    nearest, precision = [], 0.0
    for first in range(0, len(query), chunk):
        rows = slice(first, first + chunk)
        similarity = query[rows] @ gallery.T  # (chunk, n_gallery)
        nearest.append(similarity.topk(max(ks), dim=1).indices)  # (chunk, max k)
        if mean_average_precision:
            precision += _average_precision(similarity, order, starts[rows], counts[rows]).sum().item()
    neighbours = torch.cat(nearest)
    hits = gallery_labels[neighbours] == query_labels[:, None]  # (n_query, max k)
    return Retrieval(
        neighbours,
        {k: vote(gallery_labels, neighbours[:, :k]) for k in ks},
        {k: hits[:, :k].any(dim=1).double().mean().item() * 100 for k in ks},
        precision / len(query) * 100 if mean_average_precision else None,
    )


def _by_label(gallery_labels: Tensor, query_labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gallery's order by label (n_gallery,); where in it each query's label starts; how often it is there."""
    ordered, order = gallery_labels.sort(stable=True)
    starts = torch.searchsorted(ordered, query_labels.contiguous())
    ends = torch.searchsorted(ordered, query_labels.contiguous(), right=True)
    return order, starts, ends - starts


def _average_precision(similarity: Tensor, order: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
    """Return the average precision (n,), float64 in 0 .. 1, of similarities (n, n_gallery); see `retrieve`.

    Only values are sorted, and only once: what is at least as similar as a relevant sample is then counted by bisection.
    """
    most = int(counts.max())
    if most == 0:
        return torch.zeros(len(similarity), dtype=torch.float64)
    place = torch.arange(most, device=order.device)
    valid = place < counts[:, None]  # (n, most)
    relevant = similarity.gather(1, order[(starts[:, None] + place).clamp(max=len(order) - 1)])
    relevant = _sort(relevant.masked_fill(~valid, torch.inf))  # (n, most), ascending, then as many infinities as are not valid
    everything = _sort(similarity)
    at_least = everything.shape[1] - torch.searchsorted(everything, relevant)
    relevant_at_least = counts[:, None] - torch.searchsorted(relevant, relevant)
    ratio = (relevant_at_least / at_least.clamp(min=1).double()).masked_fill(~valid, 0.0)
    return ratio.sum(dim=1) / counts.clamp(min=1)


def _sort(x: Tensor) -> Tensor:
    """Return the rows of x (n, m) in ascending order; on CPUs by NumPy, 30 times faster than torch, which sorts indices too."""
    return torch.from_numpy(np.sort(x.numpy(), axis=1)) if x.device.type == "cpu" else x.sort(dim=1).values
