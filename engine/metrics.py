"""Accuracies and the nearest-neighbour vote."""

import torch
import torch.nn.functional as F
from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the top-k accuracy in percent of scores (N, classes) and labels (N,); k is cut to the number of classes."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices  # (N, k)
    return (top == labels[:, None]).any(dim=1).float().mean().item() * 100


def knn_predict(gallery: Tensor, gallery_labels: Tensor, query: Tensor, k: int, chunk: int = 1024) -> Tensor:
    """Return the label (n_query,) that most of each query's k nearest gallery features have, by cosine similarity.

    Every neighbour has one vote; a tied vote goes to the smallest label. `chunk` queries are compared at a time, so
    memory is bounded by chunk x n_gallery similarities.

    Args:
        gallery: features (n_gallery, D); need not be normalised.
        gallery_labels: (n_gallery,) ints.
        query: features (n_query, D).
        k: neighbours, 1 .. n_gallery.
        chunk: queries at a time.

    Raises:
        ValueError: k is outside 1 .. n_gallery.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} neighbours asked of a gallery of {len(gallery)}")
    gallery = F.normalize(gallery, dim=1)
    parts = F.normalize(query, dim=1).split(chunk)
    return vote(gallery_labels, torch.cat([(part @ gallery.T).topk(k, dim=1).indices for part in parts]))


def vote(gallery_labels: Tensor, neighbours: Tensor) -> Tensor:
    """Return the label (n_query,) that most neighbours have, the smallest of several.

    Args:
        gallery_labels: (n_gallery,) ints.
        neighbours: (n_query, k) samples of the gallery.
    """
    classes, votes_for = gallery_labels.unique(return_inverse=True)  # sorted, so the first maximum is the smallest label
    votes = torch.zeros(len(neighbours), len(classes), dtype=torch.long, device=neighbours.device)
    votes.scatter_add_(1, votes_for[neighbours], torch.ones_like(neighbours))
    return classes[votes.argmax(dim=1)]
