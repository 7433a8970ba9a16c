"""Retrieval: each test clip takes the class of its nearest training clips, by cosine.

    python action_retrieval.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

With several streams each is evaluated, then their fusion: the normalised features side by side.
Started by torchrun, N processes share the computation of the features.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from engine.device import pick_device
from engine.distributed import process_group, rank
from engine.downstream import Features, Task, open_task, origin_notes, save_features
from engine.fuse import PREDICTIONS
from engine.report import report_classes
from engine.retrieval import MIB, Retrieval, retrieve
from engine.runlog import NoLog, Run, RunLog
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from model import Encoder
from options.datasets import DATA_SETS
from options.flags import (
    DOWNSTREAM_REPRESENTATION,
    add_data_flags,
    add_encoder_flags,
    add_run_flags,
    check_encoder_flags,
    given_folder,
    given_sizes,
)
from options.parser import OneOrMore, Parser, listed, positive_int


def get_parser() -> Parser:
    """Return the command line of retrieval."""
    parser = Parser(recipe="retrieval", description=__doc__)
    add_data_flags(parser, "--finetune-dataset", DOWNSTREAM_REPRESENTATION, STREAMS)
    add_encoder_flags(parser, raw=True)
    group = parser.add_argument_group("retrieval")
    group.add_argument("--knn-neighbours", action=OneOrMore, type=positive_int, metavar="k", help="voting neighbours; "
                       "several are evaluated one by one (%(default)s)")  # fmt: skip
    group.add_argument("--knn-memory", type=positive_int, default=512, metavar="MIB", help="of the similarities that are in "
                       "memory at a time (%(default)s)")  # fmt: skip
    group.add_argument("--no-map", action="store_true", help="leave out mean average precision, which sorts the gallery for "
                       "each query")  # fmt: skip
    group.add_argument("-b", "--batch-size", type=positive_int, metavar="N", help="clips at a time (%(default)s)")
    add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate as the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    check_encoder_flags(parser, args)
    folder = given_folder(parser, args, args.finetune_dataset)
    device = pick_device(args.device, args.gpu)
    with process_group(device):
        evaluate(args, folder, device)


def evaluate(args: Namespace, folder: Path, device: torch.device) -> None:
    """Evaluate on the arrays in `folder`; of several processes all rank the gallery alike, and rank 0 writes."""
    streams, ks = listed(args.finetune_skeleton_representation), listed(args.knn_neighbours)

    # data and encoders
    num_classes = DATA_SETS[args.finetune_dataset].num_classes
    task = open_task(folder, num_classes, streams, listed(args.pretrained), given_sizes(args), device, args.seed,
                     raw=args.raw_coordinates)  # fmt: skip
    args.seed, args.origins = task.seed, task.origins
    train, test = task.parts
    if max(ks) > len(train):
        raise UserError(f"--knn-neighbours {max(ks)} is more than the gallery's {len(train)} samples")

    run = Run("retrieval", args.finetune_dataset, args.protocol, "+".join(streams))
    with NoLog() if rank() else RunLog(args.log_dir, run, args) as log:
        log.print(f"{len(train)} gallery and {len(test)} query samples of {folder}, {task.device}; log in {log.folder}")
        for note in train.notes + test.notes + origin_notes(run, streams, listed(args.pretrained), task.origins):
            log.print(note)

        labels = [torch.from_numpy(part.labels).to(device) for part in task.parts]

        def search(name: str, gallery: torch.Tensor, query: torch.Tensor) -> Retrieval:
            found = retrieve(gallery, labels[0], query, labels[1], ks, args.knn_memory * MIB, not args.no_map)
            report_ranking(log, name, f" * {name}" if len(streams) > 1 else " *", found, labels[1])
            return found

        features_of = Features(task, log, args.feature_cache, args.workers, args.batch_size)
        joined = []
        encoders: Sequence[Encoder | None] = task.encoders or [None] * len(streams)
        weights = args.stream_weights or [1.0] * len(streams)
        for stream, encoder, weight in zip(streams, encoders, weights, strict=True):
            (gallery, _), (query, _) = features_of(stream, encoder)
            found = search(stream, gallery, query)
            if args.save_features:
                save_features(log, stream, train, gallery)
                save_features(log, stream, test, query, found.predictions[ks[0]])
            if len(streams) > 1:  # scaled so that the cosine of the concatenation is the weighted mean of the cosines
                joined.append([F.normalize(x, dim=1) * weight**0.5 for x in (gallery, query)])
        if joined:
            found = search("fusion", *(torch.cat(parts, dim=1) for parts in zip(*joined, strict=True)))
        save_predictions(log, task, found, ks[0])
        if not rank():
            shown = None if joined else query  # a fusion's predictions are of no single stream's features
            report_classes(log, run.data_set, num_classes, test.names, labels[1], found.predictions[ks[0]], shown)
        log.metrics(knn_acc1=acc1(found, ks[0], labels[1]), knn_neighbours=ks[0])


def acc1(found: Retrieval, k: int, labels: torch.Tensor) -> float:
    """Return in percent how often k neighbours vote for the label (n_query,)."""
    return (found.predictions[k] == labels).float().mean().item() * 100


def report_ranking(log: RunLog, name: str, start: str, found: Retrieval, labels: torch.Tensor) -> None:
    """Print, in lines with that start, and keep the figures of a stream or of the fusion: of each k, of the whole ranking."""
    for k in found.predictions:
        figures = {"knn_acc1": acc1(found, k, labels), "recall": found.recall[k]}
        log.print(f"{start} {k}-NN Acc@1 {figures['knn_acc1']:.3f} Recall@{k} {figures['recall']:.3f}")
        log.metrics(stream=name, knn_neighbours=k, **figures)
    if found.mean_average_precision is not None:
        log.print(f"{start} mean average precision {found.mean_average_precision:.3f}")
        log.metrics(stream=name, mean_average_precision=found.mean_average_precision)


def save_predictions(log: RunLog, task: Task, found: Retrieval, k: int) -> None:
    """Write predictions.npz: of each test clip name, label, prediction by k neighbours, nearest training clips (N, max k)."""
    train, test = task.parts
    log.arrays(
        PREDICTIONS,
        names=np.array(test.names),
        labels=test.labels,
        predictions=found.predictions[k].cpu().numpy(),
        neighbours=found.neighbours.cpu().numpy(),
        gallery_names=np.array(train.names),
    )


if __name__ == "__main__":
    main()
