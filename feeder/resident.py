"""A part of a split held in memory, of the CPU or a GPU, so that a step waits for no disk and no worker."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import trange

from feeder.cli import UserError
from feeder.dataset import Batch, SkeletonDataset

_SHARE = 0.8  # of the free memory that the frames may take: training needs some too
_CHUNK = 256  # clips read at a time


class ResidentDataset(Dataset[Batch]):
    """The valid frames of a data set on a device; indexed by whole batches of sample numbers, like the data set.

    NTU RGB+D 60 takes some 2 GB.

    Args:
        dataset: what to hold.
        device: where.

    Raises:
        feeder.cli.UserError: the frames do not fit into four fifths of the memory that is free there.
    """

    def __init__(self, dataset: SkeletonDataset, device: torch.device):
        self.num_frame, self.labels, self.rows = dataset.num_frame, dataset.labels, dataset.rows
        n, c, _, v, m = dataset.data.shape
        total = int(self.num_frame.sum())
        need, free = 4 * total * c * v * m, _free_memory(device)
        if need > _SHARE * free:
            raise UserError(f"{dataset.folder}: {dataset.part} takes {need / 2**30:.1f} GiB and {device} has "
                            f"{free / 2**30:.1f} GiB free: leave --resident out")  # fmt: skip
        self.frames = torch.empty(total, c, v, m, device=device)
        self.first = torch.from_numpy(np.cumsum(self.num_frame) - self.num_frame)  # (N,), a clip's place in `frames`
        for start in trange(0, n, _CHUNK, desc=f"{dataset.part} into memory", unit="chunk", leave=False, disable=None):
            clips = range(start, min(start + _CHUNK, n))
            frames = np.concatenate([dataset.data[i, :, : self.num_frame[i]].transpose(1, 0, 2, 3) for i in clips])
            self.frames[self.first[start] :][: len(frames)] = torch.from_numpy(frames)

    def __len__(self) -> int:
        return len(self.num_frame)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        num_frames = torch.from_numpy(self.num_frame[indices])
        # What lies behind a clip's end is its last frame again: no crop reaches it.
        mine = num_frames[self.rows]
        within = torch.minimum(torch.arange(int(mine.max())), mine[:, None] - 1)  # (N, T)
        frames = self.frames[(self.first[indices[self.rows]][:, None] + within).to(self.frames.device)]  # (N, T, C, V, M)
        return Batch(frames.transpose(1, 2), num_frames, torch.from_numpy(self.labels[indices]))


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of the CPU's, those that the system and the control group leave."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])  # cached files make room
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):
        pass  # not Linux, or no limit
    return free
