"""Measure data preparation: CPU time of NTU files against NumPy's text reader, and the peak memory of both scripts.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_gendata.py [--files 1000] [--samples 20000] [--videos 40] [--folder /tmp]

The memory run writes 3.6 GB for each of both protocols at 20,000 samples to a temporary folder, removed at the end.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from feeder.preparation import generate, ntu  # noqa: E402

CLIPS = ((84, 1), (71, 1), (103, 1), (62, 2), (118, 1), (48, 1), (90, 2))  # (frames, bodies), about NTU's mix


def raw_text(frames: int, bodies: int, rng: np.random.Generator) -> str:
    """Return a `.skeleton` file with numbers as long as the real ones."""
    lines = [str(frames)]
    walk = rng.normal(0, 0.01, (frames, bodies, 25, 11)).cumsum(0) + rng.normal(0.5, 0.5, (bodies, 25, 11))
    for frame in walk:
        lines.append(str(bodies))
        for place, joints in enumerate(frame):
            lines += [f"7205759403793{place:04d} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            lines += [" ".join(f"{number:.7g}" for number in joint) + " 2" for joint in joints]
    return "\n".join(lines) + "\n"


def write_ntu(folder: Path, count: int) -> Path:
    """Write a few templates and link them under `count` sample names; return the folder of the links."""
    links = folder / f"raw{count}"
    links.mkdir()
    for number, clip in enumerate(CLIPS):
        (folder / f"template{number}").write_text(raw_text(*clip, np.random.default_rng(number)))
    names = (f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}.skeleton"
             for r in (1, 2) for s in range(1, 18) for p in range(1, 41) for a in range(1, 61) for c in (1, 2, 3))  # fmt: skip
    wanted = (name for name in names if name[:20] not in ntu.missing_samples("ntu60"))
    for number in range(count):
        (links / next(wanted)).symlink_to(folder / f"template{number % len(CLIPS)}")
    return links


def write_pku(folder: Path, videos: int) -> Path:
    """Write a download of part 1 with videos of 7,000 frames and 34 segments each."""
    walk = np.random.default_rng(0).normal(0, 0.01, (7000, 150)).cumsum(0)
    skeleton = "\n".join(" ".join(f"{number:.6f}" for number in frame) for frame in walk)
    label = "".join(f"{row + 1},{row * 200},{row * 200 + 190},2\n" for row in range(34))
    names = [f"{number:04d}-L" for number in range(2, videos + 2)]
    for kind, text in (("skeleton", skeleton), ("label", label)):
        (folder / "pku" / kind).mkdir(parents=True)
        for name in names:
            (folder / "pku" / kind / f"{name}.txt").write_text(text)
    (folder / "pku/cross-subject.txt").write_text(
        f"Training videos:\n{', '.join(names)}\nValidataion videos:\n"
    )
    return folder / "pku"


def bench_cpu(folder: Path, count: int) -> None:
    """Print the CPU time per file for both protocols and what np.loadtxt takes for the joint lines of the same files."""
    sources, _ = ntu.list_sources(ntu.list_files(write_ntu(folder, count)), "ntu60", ["xsub", "xview"])
    texts = [source.path.read_text().split("\n") for source in sources[: len(CLIPS)]]
    lines = [[line for line in text if line.count(" ") == 11] for text in texts]
    for _ in range(5):
        start = time.process_time()
        generate.generate(sources, ntu.read_clips, folder / "cpu", ["xsub", "xview"])
        middle = time.process_time()
        for number in range(count):
            np.loadtxt(lines[number % len(lines)], usecols=(0, 1, 2))
        ours, theirs = middle - start, time.process_time() - middle
        print(
            f"CPU per file: {1e3 * ours / count:.3f} ms, np.loadtxt {1e3 * theirs / count:.3f} ms, ratio {ours / theirs:.2f}"
        )


def bench_memory(script: str, raw: Path, *flags: str) -> None:
    """Print the peak memory of the process tree of a script, shared pages counted once for each process."""
    command = [
        sys.executable,
        str(ROOT / script),
        "--data-path",
        str(raw),
        "--out-folder",
        str(raw.parent / "out"),
        *flags,
    ]
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError, KeyError):
                fields = dict(
                    line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line
                )
                if process.pid in (int(fields["Pid"]), int(fields["PPid"])):
                    total += int(fields["VmRSS"].split()[0]) * 1024
        peak = max(peak, total)
        time.sleep(0.05)
    print(
        f"{script} {' '.join(flags)}: {time.perf_counter() - start:.1f} s, peak memory {peak / 2**20:.0f} MiB"
    )


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000, help="of NTU, for CPU time")
    parser.add_argument("--samples", type=int, default=20000, help="of NTU, for memory; 0 leaves it out")
    parser.add_argument("--videos", type=int, default=40, help="of PKU-MMD, for memory; 0 leaves it out")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    return parser


if __name__ == "__main__":
    args = get_parser().parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        bench_cpu(Path(name), args.files)
        if args.samples:
            bench_memory("ntu_gendata.py", write_ntu(Path(name), args.samples), "--workers", "2")
        if args.videos:
            bench_memory(
                "pku_gendata.py", write_pku(Path(name), args.videos), "--benchmark", "xsub", "--workers", "12"
            )
