"""Retrieval by cosine similarity: nearest neighbours, their vote, mean average precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # queries compared with the gallery at a time: 40 MB of similarities for NTU RGB+D 60


def nearest(gallery: Tensor, query: Tensor, k: int) -> Tensor:
    """Return the k most similar gallery samples of each query, (n_query, k) ints, the most similar first.

    Args:
        gallery: features (n_gallery, D); need not be normalised.
        query: features (n_query, D).
        k: neighbours, 1 .. n_gallery.

    Raises:
        ValueError: k is outside 1 .. n_gallery.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} is not in 1 .. {len(gallery)}, the size of the gallery")
    gallery, query = F.normalize(gallery, dim=1), F.normalize(query, dim=1)
    return torch.cat([(part @ gallery.T).topk(k, dim=1).indices for part in query.split(CHUNK)])


def vote(labels: Tensor) -> Tensor:
    """Return the most frequent label (N,) of each row of labels (N, k), the smallest of several."""
    ordered = labels.sort(dim=1).values
    counts = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)  # (N, k)
    first = counts.argmax(dim=1, keepdim=True)  # the first maximum has the smallest label
    return ordered.gather(1, first)[:, 0]


def knn_predict(gallery: Tensor, gallery_labels: Tensor, query: Tensor, k: int) -> Tensor:
    """Return the label (n_query,) that most of the k nearest gallery samples have, by cosine similarity.

    Every neighbour has one vote; ties go to the smallest label.

    Args:
        gallery: features (n_gallery, D).
        gallery_labels: (n_gallery,) ints.
        query: features (n_query, D).
        k: neighbours, 1 .. n_gallery.
    """
    return vote(gallery_labels[nearest(gallery, query, k)])


def recall(gallery_labels: Tensor, neighbours: Tensor, query_labels: Tensor) -> Tensor:
    """Return in percent how many queries have a sample with their label among their neighbours (n_query, k); a 0-d tensor."""
    return (gallery_labels[neighbours] == query_labels[:, None]).any(dim=1).float().mean() * 100


def mean_average_precision(gallery: Tensor, gallery_labels: Tensor, query: Tensor, query_labels: Tensor) -> Tensor:
    """Return the mean average precision in percent, as a 0-d tensor.

    The gallery is ranked by cosine similarity, equal ones in the order of the gallery. The average precision of a query is
    the mean, over the samples with its label, of the share of such samples from the first rank down to that of the sample;
    it is 0 if the gallery lacks the label.

    Args:
        gallery: features (n_gallery, D).
        gallery_labels: (n_gallery,) ints.
        query: features (n_query, D).
        query_labels: (n_query,) ints.
    """
    gallery, query = F.normalize(gallery, dim=1), F.normalize(query, dim=1)
    rank = torch.arange(1, len(gallery) + 1, device=gallery.device)
    total = torch.zeros((), dtype=torch.float64, device=gallery.device)
    for part, labels in zip(query.split(CHUNK), query_labels.split(CHUNK), strict=True):
        order = (part @ gallery.T).argsort(dim=1, descending=True, stable=True)  # (chunk, n_gallery)
        relevant = gallery_labels[order] == labels[:, None]
        precision = relevant.cumsum(dim=1) / rank * relevant
        total += (precision.sum(dim=1) / relevant.sum(dim=1).clamp(min=1)).sum()
    return total / len(query) * 100
