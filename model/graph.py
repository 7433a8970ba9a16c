"""Adjacency matrices of the skeleton."""

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_SUBSETS = 3


def adjacency(num_joints: int, links: Sequence[tuple[int, int]]) -> Tensor:
    """Return the three adjacency subsets (3, V, V): self, inward, outward, with columns that sum to 1 or 0.

    Args:
        num_joints: V.
        links: pairs (joint, parent), 0-based; inward goes from a joint to its parent.
    """
    inward = torch.zeros(num_joints, num_joints)
    for joint, parent in links:
        if not (0 <= joint < num_joints and 0 <= parent < num_joints):
            raise ValueError(f"link ({joint}, {parent}) is outside a skeleton of {num_joints} joints")
        inward[parent, joint] = 1
    return torch.stack([torch.eye(num_joints), *(a / a.sum(dim=0).clamp(min=1) for a in (inward, inward.T))])
