"""Retrieval: each test clip takes the class of its nearest training clips, by cosine similarity.

    python action_retrieval.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

With several streams each is evaluated, then their fusion: their normalised features, concatenated.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.device import pick_device
from engine.features import extract_both, notes_of, open_task, save_features
from engine.records import PREDICTIONS
from engine.retrieval import knn_predict, mean_average_precision, nearest, recall
from engine.runlog import Run, RunLog
from engine.visualisation import report_classes
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from options import flags
from options.datasets import DATA_SETS
from options.parser import OneOrMore, Parser, listed, positive_int


def get_parser() -> Parser:
    """Return the command line of retrieval."""
    parser = Parser(recipe="retrieval", description=__doc__)
    flags.add_data_flags(parser, "--finetune-dataset", flags.DOWNSTREAM_REPRESENTATION, STREAMS)
    flags.add_encoder_flags(parser, raw=True)
    group = parser.add_argument_group("retrieval")
    group.add_argument("--knn-neighbours", action=OneOrMore, type=positive_int, metavar="k", help="voting neighbours; "
                       "several are evaluated one by one (%(default)s)")  # fmt: skip
    group.add_argument("-b", "--batch-size", type=positive_int, metavar="N", help="clips at a time (%(default)s)")
    flags.add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate each stream, then their fusion."""
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args)
    folder, num_classes = flags.given_folder(parser, args, args.finetune_dataset), DATA_SETS[args.finetune_dataset].num_classes
    streams, ks = listed(args.finetune_skeleton_representation), listed(args.knn_neighbours)
    task = open_task(folder, num_classes, streams, listed(args.pretrained), flags.given_sizes(args),
                     pick_device(args.device, args.gpu), args.seed, raw=args.raw_coordinates)  # fmt: skip
    args.seed, args.data, args.origins = task.seed, task.data, task.origins
    train, test = task.train, task.test
    if max(ks) > len(train):
        raise UserError(f"--knn-neighbours {max(ks)} is more than the gallery's {len(train)} samples")

    run = Run("retrieval", args.finetune_dataset, args.protocol, "+".join(streams))
    with RunLog(args.log_dir, run, args) as log:
        log.print(f"{len(train)} gallery and {len(test)} query samples of {folder}, {task.device}; log in {log.folder}")
        for note in notes_of(task, run, streams, listed(args.pretrained)):
            log.print(note)
        labels = [torch.from_numpy(part.labels).to(task.device) for part in (train, test)]

        # each stream: features, neighbours, accuracies
        scaled: list[list[Tensor]] = []
        weights, several = args.stream_weights or [1.0] * len(streams), len(streams) > 1
        for stream, encoder, weight in zip(streams, task.encoders or [None] * len(streams), weights, strict=True):
            gallery, query = extract_both(task, encoder, stream, args.workers, args.batch_size)
            neighbours, predictions = evaluate(log, stream, several, gallery, labels[0], query, labels[1], ks)
            if args.save_features:
                save_features(log, stream, train, gallery, None)
                save_features(log, stream, test, query, predictions)
            if several:
                scaled.append([F.normalize(x, dim=1) * weight**0.5 for x in (gallery, query)])

        # fusion: the cosine of the concatenated features is the weighted mean of the streams' cosines
        if several:
            gallery, query = (torch.cat(parts, dim=1) for parts in zip(*scaled, strict=True))
            neighbours, predictions = evaluate(log, "fusion", several, gallery, labels[0], query, labels[1], ks)

        log.arrays(PREDICTIONS, names=np.array(test.names), labels=test.labels, predictions=predictions.cpu().numpy(),
                   neighbours=neighbours.cpu().numpy(), gallery_names=np.array(train.names))  # fmt: skip
        report_classes(log, run.data_set, num_classes, test.names, labels[1], predictions, None if several else query)
        log.metrics(knn_acc1=percent(predictions == labels[1]), knn_neighbours=ks[0])


def evaluate(
    log: RunLog,
    name: str,
    several: bool,
    gallery: Tensor,
    gallery_labels: Tensor,
    query: Tensor,
    labels: Tensor,
    ks: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Print and log the figures of a stream; return neighbours (n_query, max k) and predictions (n_query,) for the first k."""
    start = f" * {name}" if several else " *"
    neighbours = nearest(gallery, query, max(ks))
    predictions = {k: knn_predict(gallery, gallery_labels, query, k) for k in ks}
    for k in ks:
        found = {"knn_acc1": percent(predictions[k] == labels)}
        found["recall"] = recall(gallery_labels, neighbours[:, :k], labels).item()
        log.print(f"{start} {k}-NN Acc@1 {found['knn_acc1']:.3f} Recall@{k} {found['recall']:.3f}")
        log.metrics(stream=name, knn_neighbours=k, **found)
    precision = mean_average_precision(gallery, gallery_labels, query, labels).item()
    log.print(f"{start} mean average precision {precision:.3f}")
    log.metrics(stream=name, mean_average_precision=precision)
    return neighbours, predictions[ks[0]]


def percent(correct: Tensor) -> float:
    """Return the share of true entries."""
    return correct.float().mean().item() * 100


if __name__ == "__main__":
    main()
