"""Retrieval by cosine similarity: nearest neighbours, majority vote, mean average precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # queries compared with the gallery at a time: 40 MB of similarities for NTU RGB+D 60


def normalise(features: Tensor) -> Tensor:
    """Return L2-normalised features (N, D), in at least float32: bfloat16 ranks neighbours differently."""
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=1)


def nearest(gallery: Tensor, query: Tensor, k: int) -> Tensor:
    """Return indices (Q, k) of the gallery rows (G, D) most similar to each query row (Q, D), best first."""
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} is not in 1 .. {len(gallery)}, the size of the gallery")
    gallery, query = normalise(gallery), normalise(query)
    return torch.cat([(part @ gallery.T).topk(k, dim=1).indices for part in query.split(CHUNK)])


def knn_predict(gallery: Tensor, gallery_labels: Tensor, query: Tensor, k: int) -> Tensor:
    """Return the majority label (n_query,) of the k nearest gallery samples by cosine similarity.

    Every neighbour has one vote; ties go to the smallest label.

    Args:
        gallery: features (n_gallery, D); need not be normalised.
        gallery_labels: (n_gallery,) ints.
        query: features (n_query, D).
        k: neighbours, 1 .. n_gallery.
    """
    labels = gallery_labels[nearest(gallery, query, k)].sort(dim=1).values  # (n_query, k)
    counts = torch.searchsorted(labels, labels, right=True) - torch.searchsorted(labels, labels)
    first = counts.argmax(dim=1, keepdim=True)  # the first maximum has the smallest label
    return labels.gather(1, first)[:, 0]


def mean_average_precision(
    gallery: Tensor, gallery_labels: Tensor, query: Tensor, query_labels: Tensor
) -> Tensor:
    """Return the mean average precision in percent, as a 0-d tensor; ties are ranked in gallery order.

    The average precision of a query is the mean, over the gallery samples with its label, of the precision at
    the rank of the sample; it is 0 if there are none.
    """
    gallery, query = normalise(gallery), normalise(query)
    rank = torch.arange(1, len(gallery) + 1, device=gallery.device)
    total = torch.zeros((), dtype=torch.float64, device=gallery.device)
    for part, labels in zip(query.split(CHUNK), query_labels.split(CHUNK), strict=True):
        order = (part @ gallery.T).argsort(dim=1, descending=True, stable=True)  # (chunk, n_gallery)
        relevant = gallery_labels[order] == labels[:, None]
        precision = relevant.cumsum(dim=1) / rank * relevant
        total += (precision.sum(dim=1) / relevant.sum(dim=1).clamp(min=1)).sum()
    return total / len(query) * 100
