"""Kill a pre-training at random moments; check that its checkpoint is intact and that it continues.

    python tests/kill_pretraining.py DATA_PATH KILLS

Works in the current folder, which should be empty. Every step is saved, so at most one may be lost. A forked
child trains, because it starts at once. Half of the kills come at any moment after its start, the others
shortly after it first saved.
"""

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401  imported by the first optimiser: otherwise seconds in each child
from conftest import pretrain

from engine.checkpoint import load_checkpoint

CHECKPOINT = Path("ck/checkpoint.pth.tar")


def start(data: str, flags: str) -> int:
    """Return the id of a new process that trains."""
    if pid := os.fork():
        return pid
    try:
        sys.stdout = open(os.devnull, "w")
        pretrain(data, flags)
        os._exit(0)
    except BaseException as error:
        print("the training failed:", repr(error), file=sys.stderr)
    finally:
        os._exit(1)


def written() -> int:
    """Return when the checkpoint was written, 0 if there is none."""
    return CHECKPOINT.stat().st_mtime_ns if CHECKPOINT.exists() else 0


def position() -> tuple[int, int]:
    """Return the number of steps in the checkpoint and in the log."""
    text = "".join(path.read_text() for path in Path("log").glob("*/log.txt"))
    found = re.findall(r"^Epoch: \[(\d+)\]\[ *(\d+)/(\d+)\]\t.*\n", text, re.M)
    lines, checkpoint = [list(map(int, numbers)) for numbers in found], load_checkpoint(CHECKPOINT)
    logged = max(epoch * steps + step + 1 for epoch, step, steps in lines)
    return checkpoint["epoch"] * lines[0][2] + checkpoint["step"], logged


def main(data: str, kills: int) -> None:
    """Kill, check, repeat."""
    flags = "--epochs 60 --resume auto --print-freq 1 --save-minutes 1e-9"
    rng, done, ended = random.Random(0), 0, os.WEXITED | os.WNOHANG | os.WNOWAIT
    for kill in range(kills):
        before, pid = written(), start(data, flags)
        # every second time, wait until the child saves or ends
        while kill % 2 and written() == before and os.waitid(os.P_PID, pid, ended) is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3 if kill % 2 else 1.0))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert status in (signal.SIGKILL, 0), f"kill {kill}: the training ended by itself, {status}"
        if done or CHECKPOINT.exists():
            saved, logged = position()
            assert saved >= max(done, logged - 1), f"kill {kill}: steps are lost"
            done = saved
    assert done, "no kill came late enough for a step"
    print(f"{kills} kills, no broken checkpoint, {done} steps done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
