"""`python -m engine.results log`: one Markdown table of every evaluation in a log folder, next to the published figures.

`--mean` averages runs that differ only in the seed, `--beside` gives each kind of encoder a column, and `--write README.md`
puts the table between two marker lines.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.files import write_text
from engine.records import read_run
from feeder.cli import CommandLine, UserError, script
from feeder.preparation.ntu import SAMPLE_COUNTS as NTU
from feeder.preparation.pku import SAMPLE_COUNTS as PKU
from model.contrast import PAIRS

# Top-1 in percent in SCD-Net's paper, joint stream; the linear figure is that of the best test epoch.
PUBLISHED = {
    ("linear", "ntu60", "cross_subject"): 86.6,
    ("linear", "ntu60", "cross_view"): 91.7,
    ("linear", "ntu120", "cross_subject"): 76.9,
    ("linear", "ntu120", "cross_setup"): 80.1,
    ("linear", "pku_part1", "cross_subject"): 91.9,
    ("linear", "pku_part2", "cross_subject"): 54.0,
    ("retrieval", "ntu60", "cross_subject"): 76.2,
    ("retrieval", "ntu60", "cross_view"): 86.8,
    ("retrieval", "ntu120", "cross_subject"): 59.8,
    ("retrieval", "ntu120", "cross_setup"): 65.7,
}
# Training and test samples of the whole data sets. PKU-MMD's depend a little on the script that prepares them.
FULL = {
    ("ntu60", "cross_subject"): NTU["ntu60", "xsub"],
    ("ntu60", "cross_view"): NTU["ntu60", "xview"],
    ("ntu120", "cross_subject"): NTU["ntu120", "xsub"],
    ("ntu120", "cross_setup"): NTU["ntu120", "xsetup"],
    ("pku_part1", "cross_subject"): PKU[1, "xsub"],
    ("pku_part2", "cross_subject"): PKU[2, "xsub"],
}
TOLERANCE = 0.002  # of these numbers
HEADER = (
    "task",
    "data set",
    "protocol",
    "stream",
    "encoder",
    "labels",
    "seed",
    "Acc@1",
    "best on test",
    "mAP",
    "published",
    "run",
)
OPTIONAL = ("labels", "best on test", "mAP", "published", "run")  # left out if no run has them
MARKERS = ("<!-- results -->", "<!-- /results -->")
# Options that change where and how fast a run computes, not what. `pretrained` is a path: `origins` identify the encoders.
INCIDENTAL = {"seed", "config", "data_path", "log_dir", "checkpoint_path", "pretrained", "resume", "save_freq", "print_freq",
              "save_minutes", "workers", "device", "gpu", "compile", "save_features"}  # fmt: skip


class Row(NamedTuple):
    """One result of a run; a run with several streams or several k has several."""

    about: tuple[str, ...]  # the cells from task to labels
    key: str  # equal for runs that differ only in the seed
    seed: int
    figures: tuple[tuple[float | None, float | None], ...]  # (mean, standard deviation) of Acc@1, best on test, mAP; percent
    published: str
    run: str


def table(log_dir: Path, mean: bool = False, beside: bool = False) -> str:
    """Return the Markdown table of all finished evaluations below `log_dir`, sorted; name damaged ones on stderr.

    Args:
        log_dir: folder of runs.
        mean: one line for all runs that differ only in the seed, with mean and standard deviation (n - 1).
        beside: a column for each kind of encoder, with Acc@1 alone.

    Raises:
        UserError: there are none.
    """
    found: list[Row] = []
    for folder in sorted({path.parent for path in log_dir.rglob("options.yaml")}):
        try:
            record = read_run(folder)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found += _rows(folder.name, record) if record else []
    if not found:
        raise UserError(f"no finished evaluation in {log_dir}")
    groups = [(group, "") for group in _by_seed(found)] if mean else [([row], row.run) for row in found]
    lines = sorted(_cells(*group) for group in groups)
    header, lines = _side_by_side(lines) if beside else (HEADER, lines)
    empty = {i for i, name in enumerate(header) if name in OPTIONAL and not any(line[i] for line in lines)}
    kept = [[cell for i, cell in enumerate(line) if i not in empty] for line in [header, *lines]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [kept[0], ["---"] * len(kept[0]), *kept[1:]])


def write_between_markers(path: Path, text: str) -> None:
    """Replace the text between the two lines of `MARKERS` in a file, atomically.

    Raises:
        UserError: the file is not text, or has no such pair of lines, or several.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file in UTF-8") from None
    start, end = ([i for i, line in enumerate(lines) if line.strip() == marker] for marker in MARKERS)
    if len(start) != 1 or len(end) != 1 or start > end:
        raise UserError(f"{path}: the table goes between one line {MARKERS[0]} and one line {MARKERS[1]} below it; add them")
    write_text(path, "\n".join([*lines[: start[0] + 1], text, *lines[end[0] :]]))


def _rows(name: str, record: dict) -> list[Row]:
    """Return the rows of a run: of each stream and k if it has lines of them, else of the whole."""
    *parts, whole = record["results"]
    parts = [part for part in parts if "stream" in part and "repeat" not in part and _acc1(part)[0] is not None]
    return [_row(name, record, result) for result in parts or [whole]]


def _row(name: str, record: dict, result: dict) -> Row:
    run, options = record["run"], record["options"]
    stream = run["stream"] if result.get("stream") in (None, "fusion") else result["stream"]
    k, fraction, origins = result.get("knn_neighbours"), options.get("label_fraction"), options.get("origins") or []
    origins = dict(zip(run["stream"].split("+"), origins, strict=False))
    task = f"{k}-NN retrieval" if run["task"] == "retrieval" else run["task"]
    labels = "" if fraction in (None, 1) else f"{100 * fraction:g} %"
    about = (task, run["data_set"], run["protocol"], stream, _encoder(run, options, stream, origins), labels)
    comparable = k in (None, 1) and not labels and stream == "joint" and _as_in_paper(run, options, origins.get("joint", {}))
    published = PUBLISHED.get((run["task"], run["data_set"], run["protocol"])) if comparable else None
    precision = [line for line in record["results"] if line.get("stream") == result.get("stream")]
    precision = next((line["mean_average_precision"] for line in precision if "mean_average_precision" in line), None)
    key = repr((about, [_essential(options) for options in record["history"]]))
    figures = (_acc1(result), _figure(result, "best_acc1"), (precision, None))
    return Row(about, key, options["seed"], figures, "" if published is None else f"{published:.1f}", name)


def _as_in_paper(run: dict, options: dict, origin: dict) -> bool:
    """Return whether a run used the whole data set, and an encoder that the paper's method pre-trained on it."""
    full, data = FULL.get((run["data_set"], run["protocol"])), options.get("data")
    if full is None or not data:
        return False
    return (
        all(abs(data[part] - n) <= TOLERANCE * n for part, n in zip(("train", "test"), full, strict=True))
        and not options.get("random_encoder")
        and _made_by(origin) == "pretraining"
        and (origin.get("pre_dataset"), origin.get("protocol")) == (run["data_set"], run["protocol"])
        and origin.get("skeleton_representation") == "joint"
        and set(origin.get("pairs", [])) == set(PAIRS)
        and origin.get("no_masks") is False
    )


def _made_by(origin: dict) -> Any:
    """Return the task that made an encoder; our first checkpoints of pre-training do not name it."""
    return origin.get("task", "pretraining" if "pre_dataset" in origin else None)


def _encoder(run: dict, options: dict, stream: str, origins: dict[str, dict]) -> str:
    """Return how the encoders of these streams were made."""
    if options.get("random_encoder"):
        return "random"
    if options.get("raw_coordinates"):
        return "none (raw coordinates)"
    found = [_describe(origins.get(name, {}), run["protocol"], name) for name in stream.split("+")]
    return "; ".join(dict.fromkeys(found))


def _describe(origin: dict, protocol: str, stream: str) -> str:
    """Return how an encoder was made, and what sets it apart from pre-training under this protocol on this stream."""
    task = _made_by(origin)
    if task == "linear":  # its encoder was frozen
        return "random" if origin.get("random_encoder") else _describe((origin.get("origins") or [{}])[0], protocol, stream)
    if task in ("finetune", "supervised"):
        return f"{'fine-tuned' if task == 'finetune' else 'supervised'} on {origin.get('finetune_dataset')}"
    if task != "pretraining":
        return "reference" if task == "reference" else "unknown"
    words = [f"pre-trained on {origin.get('pre_dataset')}"]
    if origin.get("protocol", protocol) != protocol:
        words.append(str(origin["protocol"]))
    if origin.get("skeleton_representation", stream) != stream:
        words.append(f"{origin['skeleton_representation']} stream")
    if origin.get("no_masks"):
        words.append("without masks")
    if set(origin.get("pairs", PAIRS)) != set(PAIRS):
        words.append(f"pairs {' '.join(origin['pairs'])}")
    return ", ".join(words)


def _essential(options: dict) -> list[tuple[str, Any]]:
    """Return the options that a result depends on; encoders by how they were made, or by their weights if that is unknown."""
    kept = {name: value for name, value in options.items() if name not in INCIDENTAL}
    if options.get("random_encoder"):
        kept.pop("origins", None)
    elif not all(kept.get("origins") or [None]):  # our first logs know some encoders only by their path
        kept["pretrained"] = options.get("pretrained")
    else:
        kept["origins"] = [_essential(origin) for origin in kept["origins"]]
    if _made_by(kept) is not None:
        kept.pop("digest", None)  # another seed gives other weights
    return sorted(kept.items(), key=lambda item: str(item[0]))


def _acc1(result: dict) -> tuple[float | None, float | None]:
    return _figure(result, "last_acc1" if "last_acc1" in result else "knn_acc1")


def _figure(result: dict, name: str) -> tuple[float | None, float | None]:
    """Return a figure, and its standard deviation if it is the mean of repeats."""
    return result.get(name), result.get(f"{name}_std")


def _by_seed(found: Sequence[Row]) -> list[list[Row]]:
    """Return groups of rows that differ only in the seed; of runs with the same seed, the last."""
    groups: dict[str, dict[int, Row]] = {}
    for row in found:
        groups.setdefault(row.key, {})[row.seed] = row
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]


def _cells(group: Sequence[Row], run: str) -> tuple[str, ...]:
    """Return the cells under `HEADER` of rows that are one line of the table."""
    first = group[0]
    figures = [_joint([row.figures[i] for row in group]) for i in range(len(first.figures))]
    return (*first.about, ", ".join(str(row.seed) for row in group), *figures, first.published, run)


def _joint(values: Sequence[tuple[float | None, float | None]]) -> str:
    """Return "80.0" for one value, "80.0 \N{PLUS-MINUS SIGN} 1.2" for several or for one with a deviation of its own."""
    means = [mean for mean, _ in values if mean is not None]
    if not means:
        return ""
    deviation = values[0][1] if len(means) == 1 else statistics.stdev(means)
    return f"{statistics.fmean(means):.1f}" + ("" if deviation is None else f" \N{PLUS-MINUS SIGN} {deviation:.1f}")


def _side_by_side(lines: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and lines with a column for each kind of encoder, from lines under `HEADER`."""
    about = [HEADER.index(name) for name in ("task", "data set", "protocol", "stream", "labels")]
    encoder, acc1 = HEADER.index("encoder"), HEADER.index("Acc@1")
    encoders = sorted({line[encoder] for line in lines}, key=lambda name: (name.startswith("pre-trained"), name))
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for line in lines:
        found.setdefault(tuple(line[i] for i in about), {}).setdefault(line[encoder], []).append(line[acc1])
    rows = [(*key, *("; ".join(cells.get(name, [])) for name in encoders)) for key, cells in found.items()]
    return (*(HEADER[i] for i in about), *encoders), sorted(rows)


def get_parser() -> CommandLine:
    """Return the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = CommandLine(prog="python -m engine.results", description=__doc__, formatter_class=formatter)
    parser.add_argument("log_dir", nargs="?", type=Path, default=Path("log"), help="folder of runs (%(default)s)")
    parser.add_argument("--mean", action="store_true", help="one line for runs that differ only in the seed: mean, deviation")
    parser.add_argument("--beside", action="store_true", help="a column for each kind of encoder, with Acc@1 alone")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the table between {MARKERS[0]} and {MARKERS[1]} there")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print or write the table."""
    args = get_parser().parse_args(argv)
    text = table(args.log_dir, args.mean, args.beside)
    if args.write:
        write_between_markers(args.write, text)
        print(f"written to {args.write}")
    else:
        print(text)


if __name__ == "__main__":
    main()
