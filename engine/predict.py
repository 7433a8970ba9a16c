"""Print the most probable classes of clips.

    python -m engine.predict --pretrained checkpoints/linear CLIP [CLIP ...]

A CLIP is a `.skeleton` file of any length, a folder of them, or a prepared split, whose test part is used.
The checkpoint is that of a linear evaluation or of fine-tuning; --pretrained can be repeated to add the
scores of several streams. With a checkpoint of pre-training, --gallery FOLDER (a prepared split) prints the
nearest training clips.
"""

import itertools
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.device import set_up
from engine.encoders import open_classifier, open_encoder, stream_of
from engine.features import BATCH_SIZE, crop
from engine.retrieval import knn_predict, nearest
from feeder.cli import CommandLine, UserError, script
from feeder.clips import Clip, read_clips
from feeder.data_sets import DATA_SETS, class_names
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader


def get_parser() -> CommandLine:
    """Return the argument parser."""
    parser = CommandLine("engine.predict", __doc__)
    add = parser.add_argument
    add("clips", nargs="+", type=Path, metavar="CLIP", help="file, folder of files, or prepared split")
    add("--pretrained", action="append", required=True, metavar="CHECKPOINT", help="file or its folder")
    add("--gallery", type=Path, metavar="FOLDER", help="prepared split with the training clips")
    add("--top", type=int, default=5, metavar="K", help="classes or neighbours to print (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="file to write, one line per clip")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    return parser


@script
@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    """Print, and with --json write, the most probable classes of each clip."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.top < 1:
        parser.error("--top must be at least 1")
    device = set_up(args.device)
    lines = []
    for prediction in find_neighbours(args, device) if args.gallery else classify(args, device):
        print(prediction["clip"])
        rows = zip(prediction["probabilities"], prediction["labels"], prediction["classes"], strict=True)
        for share, label, name in rows:
            print(f"  {100 * share:5.1f} %  {label} {name}")
        for name in prediction.get("neighbours", ()):
            print(f"           {name}")
        lines.append(json.dumps(prediction) + "\n")
    if args.json:
        args.json.write_text("".join(lines), encoding="utf-8")


def classify(args: Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the most probable classes of each clip, by the softmax of the scores summed over checkpoints."""
    found = [open_classifier(path) for path in args.pretrained]
    data_set, outputs = found[0][1]["run"][1], found[0][0].fc.out_features
    for path, (model, origin) in zip(args.pretrained, found, strict=True):
        if (origin["run"][1], model.fc.out_features) != (data_set, outputs):
            raise UserError(f"{path} and {args.pretrained[0]} have different classes")
        model.to(device)
    names = class_names(data_set, outputs)
    for clips, batch in batches(args.clips):
        scores = sum(m(crop(batch, m.encoder, stream_of(origin), device)) for m, origin in found)
        for clip, softmax in zip(clips, scores.softmax(dim=1), strict=True):
            shares, labels = softmax.topk(min(args.top, outputs))
            top = {"labels": labels.tolist(), "classes": [names[label] for label in labels.tolist()]}
            probabilities = [round(share, 6) for share in shares.tolist()]
            yield {"clip": clip.name, **top, "probabilities": probabilities}


def find_neighbours(args: Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the majority class of the nearest training clips, its share of them, and their names."""
    if len(args.pretrained) > 1:
        raise UserError("--gallery takes one --pretrained")
    encoder, origin = open_encoder(args.pretrained[0])
    stream = stream_of(origin)
    gallery = SkeletonDataset(args.gallery, "train")
    if args.top > len(gallery):
        raise UserError(f"--top {args.top} is more than the {len(gallery)} training clips of {args.gallery}")
    loader = make_loader(gallery, Batches(len(gallery), BATCH_SIZE), workers=0)
    encoder = encoder.to(device).eval()
    features = torch.cat([encoder.features(crop(batch, encoder, stream, device)) for batch in loader])
    labels = torch.from_numpy(gallery.labels).to(device)
    folders = {data_set.folder: name for name, data_set in DATA_SETS.items()}
    names = class_names(folders.get(args.gallery.absolute().parent.name, ""), int(labels.max()) + 1)
    for clips, batch in batches(args.clips):
        query = encoder.features(crop(batch, encoder, stream, device))
        votes = knn_predict(features, labels, query, args.top)
        for clip, vote, rows in zip(clips, votes, nearest(features, query, args.top), strict=True):
            share = (labels[rows] == vote).double().mean().item()
            found = {"labels": [int(vote)], "classes": [names[vote]], "probabilities": [share]}
            yield {"clip": clip.name} | found | {"neighbours": [gallery.names[row] for row in rows.tolist()]}


def batches(paths: Sequence[Path]) -> Iterator[tuple[list[Clip], Batch]]:
    """Yield the clips of the paths in batches, each as a list and as a `Batch` without labels."""
    clips = read_clips(paths)
    while some := list(itertools.islice(clips, BATCH_SIZE)):
        x, num_frames = np.stack([clip.x for clip in some]), torch.tensor([clip.num_frames for clip in some])
        yield some, Batch(torch.from_numpy(x), num_frames, torch.empty(0))


if __name__ == "__main__":
    main()
