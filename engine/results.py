"""`python -m engine.results log`: one Markdown table of every evaluation in a log folder, beside the published figures.

`--mean` takes runs that differ in the seed alone together, `--beside` gives each encoder a column; `--write README.md` puts
the table between two marker lines.
"""

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import NamedTuple

import yaml

from engine.files import write_text
from feeder.cli import CommandLine, UserError, script
from model.contrast import PAIRS

# Top-1 in percent as SCD-Net's paper has it; joint stream. The linear figure is the best test epoch.
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
HEADER = ("task", "data set", "protocol", "stream", "encoder", "labels", "seed", "Acc@1", "best on test", "mAP", "published",
          "run")  # fmt: skip
OPTIONAL = ("labels", "best on test", "mAP", "published", "run")  # left out where no run has them
MARKERS = ("<!-- results -->", "<!-- /results -->")
# Options that change where and how fast a run computes, not what.
INCIDENTAL = {"seed", "config", "data_path", "log_dir", "checkpoint_path", "pretrained", "resume", "save_freq",
              "print_freq", "workers", "device", "gpu", "feature_cache", "no_feature_cache", "knn_memory",
              "save_features"}  # fmt: skip


class Row(NamedTuple):
    """One result of a run: a run has several where it evaluates several streams or several k."""

    about: tuple[str, ...]  # the cells from task to labels
    key: str  # equal where runs differ in nothing but the seed
    seed: str
    figures: tuple[tuple[float | None, float | None], ...]  # (mean, standard deviation) of Acc@1, best on test, mAP; percent
    published: str
    run: str


def read_run(folder: Path) -> dict | None:
    """Return {"run", "options", "results"} of a run's folder, None where it has no result (pre-training, or unfinished).

    `results` are the lines of metrics.jsonl that are of no epoch. The last is the whole run's; a run of several streams
    or several k has lines of each before it.
    """
    try:
        record = yaml.safe_load((folder / "options.yaml").read_text())
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        results = [line for line in lines if "epoch" not in line]
        known = {"task", "data_set", "protocol", "stream"} <= record["run"].keys() and "seed" in record["options"]
        whole = bool(results) and lines[-1] is results[-1] and "stream" not in results[-1]
        finished = whole and _acc1(results[-1])[0] is not None
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return None  # another program's file, or a run that was killed
    return record | {"results": results} if known and finished else None


def rows(folder: Path, record: dict) -> list[Row]:
    """Return the rows of a run that `read_run` gave."""
    *parts, whole = record["results"]
    parts = [part for part in parts if "stream" in part and "repeat" not in part and _acc1(part)[0] is not None]
    return [_row(folder, record, result) for result in parts or [whole]]


def table(log_dir: Path, mean: bool = False, beside: bool = False) -> str:
    """Return the Markdown table of all finished evaluations below `log_dir`, sorted by task and data.

    Args:
        log_dir: folder of runs.
        mean: one line for all runs that differ in the seed alone, with mean and standard deviation (n - 1).
        beside: a column for each encoder, of Acc@1 alone.

    Raises:
        UserError: there are none.
    """
    folders = sorted(path.parent for path in log_dir.rglob("options.yaml"))
    found = [row for folder in folders if (record := read_run(folder)) for row in rows(folder, record)]
    if not found:
        raise UserError(f"no finished evaluation in {log_dir}")
    groups = [(group, "") for group in _by_seed(found)] if mean else [([row], row.run) for row in found]
    lines = sorted(_cells(*group) for group in groups)
    header, lines = _side_by_side(lines) if beside else (HEADER, lines)
    empty = {i for i, name in enumerate(header) if name in OPTIONAL and not any(line[i] for line in lines)}
    kept = [[cell for i, cell in enumerate(line) if i not in empty] for line in [header, *lines]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [kept[0], ["---"] * len(kept[0]), *kept[1:]])


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the two lines of `MARKERS` in a file, which is written aside and renamed.

    Raises:
        UserError: the file has no such pair, or several.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    start, end = ([i for i, line in enumerate(lines) if line.strip() == marker] for marker in MARKERS)
    if len(start) != 1 or len(end) != 1 or start > end:
        raise UserError(f"{path}: the table goes between one line {MARKERS[0]} and one line {MARKERS[1]} below it; add them")
    write_text(path, "\n".join([*lines[: start[0] + 1], text, *lines[end[0] :]]))


def _row(folder: Path, record: dict, result: dict) -> Row:
    run, options = record["run"], record["options"]
    stream = run["stream"] if result.get("stream") in (None, "fusion") else result["stream"]
    k, fraction = result.get("knn_neighbours"), options.get("label_fraction")
    task = f"{k}-NN retrieval" if run["task"] == "retrieval" else run["task"]
    kinds = {"random_encoder": "random", "raw_coordinates": "none (raw coordinates)"}
    encoder = next((kind for flag, kind in kinds.items() if options.get(flag)), None) or _pretrained(run, options)
    comparable = encoder == "pre-trained" and stream == "joint" and k in (None, 1) and fraction in (None, 1)
    paper = PUBLISHED.get((run["task"], run["data_set"], run["protocol"])) if comparable else None
    labels = "" if fraction in (None, 1) else f"{100 * fraction:g} %"
    about = (task, run["data_set"], run["protocol"], stream, encoder, labels)
    figures = (_acc1(result), _figure(result, "best_acc1"), (_average_precision(record, result), None))
    published = "" if paper is None else f"{paper:.1f}"
    return Row(about, repr((about, _essential(options))), str(options["seed"]), figures, published, folder.name)


def _side_by_side(lines: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heading and lines with a column for each encoder, of lines under `HEADER`; of several figures all."""
    about = [HEADER.index(name) for name in ("task", "data set", "protocol", "stream", "labels")]
    encoder, acc1 = HEADER.index("encoder"), HEADER.index("Acc@1")
    encoders = sorted({line[encoder] for line in lines}, key=lambda name: (name.startswith("pre-trained"), name))
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for line in lines:
        found.setdefault(tuple(line[i] for i in about), {}).setdefault(line[encoder], []).append(line[acc1])
    rows = [(*key, *("; ".join(cells.get(name, [])) for name in encoders)) for key, cells in found.items()]
    return (*(HEADER[i] for i in about), *encoders), sorted(rows)


def _pretrained(run: dict, options: dict) -> str:
    """Return "pre-trained" and what sets its pre-training apart, as far as it is known: another data set, an ablation."""
    words = ["pre-trained"]
    for origin in options.get("origins") or []:
        if origin.get("pre_dataset", run["data_set"]) != run["data_set"]:
            words.append(f"on {origin['pre_dataset']}")
        if origin.get("no_masks"):
            words.append("without masks")
        if set(origin.get("pairs", PAIRS)) != set(PAIRS):
            words.append(f"pairs {' '.join(origin['pairs'])}")
    return ", ".join(dict.fromkeys(words))


def _essential(options: dict) -> list[tuple]:
    """Return the options that a result depends on; in the checkpoint's path the seed is "#"."""
    seed = re.compile(rf"(?<!\d){options['seed']}(?!\d)")
    paths = seed.sub("#", str(options.get("pretrained")))
    return [("pretrained", paths), *sorted((name, value) for name, value in options.items() if name not in INCIDENTAL)]


def _acc1(result: dict) -> tuple[float | None, float | None]:
    found = _figure(result, "last_acc1")
    return _figure(result, "knn_acc1") if found[0] is None else found


def _figure(result: dict, name: str) -> tuple[float | None, float | None]:
    """Return a figure, of several repeats their mean, and their standard deviation, which a single training does not have."""
    return result.get(name), result.get(f"{name}_std")


def _average_precision(record: dict, result: dict) -> float | None:
    """Return what any line of the same stream says."""
    lines = [line for line in record["results"] if line.get("stream") == result.get("stream")]
    return next((line["mean_average_precision"] for line in lines if "mean_average_precision" in line), None)


def _by_seed(found: list[Row]) -> list[list[Row]]:
    """Return groups of rows that differ in the seed alone; of runs with the same seed, the last."""
    groups: dict[str, dict[str, Row]] = {}
    for row in found:
        groups.setdefault(row.key, {})[row.seed] = row
    return [sorted(group.values(), key=lambda row: int(row.seed)) for group in groups.values()]


def _cells(group: list[Row], run: str) -> tuple[str, ...]:
    """Return the cells under `HEADER` of rows that are one line of the table."""
    first = group[0]
    figures = [_joint([row.figures[i] for row in group]) for i in range(len(first.figures))]
    return (*first.about, ", ".join(row.seed for row in group), *figures, first.published, run)


def _joint(values: list[tuple[float | None, float | None]]) -> str:
    """Return "80.0" of one value, "80.0 \N{PLUS-MINUS SIGN} 1.2" of several or of one with a deviation of its own."""
    means = [mean for mean, _ in values if mean is not None]
    if not means:
        return ""
    deviation = values[0][1] if len(means) == 1 else statistics.stdev(means)
    return f"{statistics.fmean(means):.1f}" + ("" if deviation is None else f" \N{PLUS-MINUS SIGN} {deviation:.1f}")


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="python -m engine.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log_dir", nargs="?", type=Path, default=Path("log"), help="folder of runs (%(default)s)")
    parser.add_argument("--mean", action="store_true", help="one line for runs that differ in the seed alone: mean, deviation")
    parser.add_argument("--beside", action="store_true", help="a column for each encoder, of Acc@1 alone")
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
