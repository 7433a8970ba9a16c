"""Measure data preparation: time, CPU time per clip next to a bare read of its columns, and peak memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_gendata.py [--samples 3000]

The run writes 0.5 GB for each 3,000 samples and protocol to a temporary folder, which it removes.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from raw_files import random_bodies, sample_names, skeleton_text  # noqa: E402

CLIPS = ((84, 1), (71, 1), (103, 1), (62, 2), (118, 1), (48, 1), (90, 2))  # (frames, bodies), about NTU's mix


def write_ntu(folder: Path, count: int) -> Path:
    """Write a few templates and link them under `count` sample names; return the folder of the links."""
    links, rng = folder / "ntu", np.random.default_rng(0)
    links.mkdir()
    for number, clip in enumerate(CLIPS):
        (folder / f"template{number}").write_text(skeleton_text(random_bodies(rng, *clip)))
    for number, name in enumerate(sample_names(count)):
        (links / f"{name}.skeleton").symlink_to(folder / f"template{number % len(CLIPS)}")
    return links


def column_read(folder: Path) -> float:
    """Return the mean CPU seconds of a bare read of a template's coordinates."""
    texts = [(folder / f"template{number}").read_text().splitlines() for number in range(len(CLIPS))]
    start = time.process_time()
    for text in texts:
        np.loadtxt([line for line in text if line.count(" ") == 11], usecols=(0, 1, 2))
    return (time.process_time() - start) / len(CLIPS)


def prepare(raw: Path) -> float:
    """Run ntu_gendata.py, print the memory of its largest process, and return the CPU seconds of all."""
    command = [sys.executable, str(ROOT / "ntu_gendata.py"), "--workers", "2", "--data-path", str(raw)]
    start = time.perf_counter()
    subprocess.run([*command, "--out-folder", f"{raw}.out"], stdout=subprocess.DEVNULL, check=True)
    seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"two workers: {seconds:.1f} s, peak memory {usage.ru_maxrss / 2**10:.0f} MiB")
    return usage.ru_utime + usage.ru_stime


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=3000, help="of NTU, at most 7200 (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    return parser


if __name__ == "__main__":
    args = get_parser().parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        raw = write_ntu(Path(name), args.samples)
        clip, bare = prepare(raw) / args.samples, column_read(Path(name))
        print(
            f"CPU per clip: {1e3 * clip:.3f} ms, {clip / bare:.2f} times a column read of {1e3 * bare:.3f} ms"
        )
