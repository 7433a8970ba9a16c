"""Retrieval: each test clip takes the class of its nearest training clips, by cosine similarity.

    python action_retrieval.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

With several streams, each is evaluated, then their fusion: their normalised features, concatenated.
"""

import numpy as np
import torch
import torch.nn.functional as F

from engine.device import set_up
from engine.evaluation import describe_encoder, result_row
from engine.features import both_features, open_encoders, open_task, record, save_features
from engine.files import save_npz
from engine.results import write_rows
from engine.retrieval import knn_predict, mean_average_precision, nearest
from engine.runlog import Run, RunLog
from engine.training import seed_everything
from engine.visualisation import report_classes
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.data_sets import DATA_SETS
from options import flags
from options.parser import Parser, positive_int


def get_parser() -> Parser:
    """Return the command line of retrieval."""
    parser = Parser("retrieval", __doc__)
    flags.add_data_flags(parser, "--finetune-dataset", STREAMS, several=True)
    flags.add_encoder_flags(parser, raw=True)
    add = parser.add_argument_group("retrieval").add_argument
    voters = "number of neighbours that vote, one or several values"
    add("--knn-neighbours", nargs="+", type=positive_int, metavar="k", help=voters)
    add("-b", "--batch-size", type=positive_int, metavar="N", help="clips at a time")
    flags.add_run_flags(parser)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate each stream, then their fusion."""
    # options, data, encoders
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args)
    folder, streams = (
        flags.given_folder(parser, args, args.finetune_dataset),
        args.finetune_skeleton_representation,
    )
    run, ks = Run("retrieval", args.finetune_dataset, args.protocol, "+".join(streams)), args.knn_neighbours
    task = open_task(run, folder, DATA_SETS[args.finetune_dataset].num_classes, set_up(args))
    if max(ks) > len(task.train):
        raise UserError(f"--knn-neighbours {max(ks)} is more than the gallery's {len(task.train)} samples")
    seed = seed_everything(args.seed)
    encoders = open_encoders(args, seed)
    about = record(task, args, get_parser().parse_args([]), seed, [origin for _, origin in encoders])

    with RunLog(run, args, about) as log:
        log.print(f"{len(task.train)} gallery and {len(task.test)} query samples of {folder}, {task.device}")
        log.print(f"log in {log.folder}", *task.notes)
        labels = [torch.from_numpy(part.labels).to(task.device) for part in (task.train, task.test)]

        # features of each stream
        features = {}
        for stream, (encoder, origin) in zip(streams, encoders, strict=True):
            log.print(f"{stream} stream, encoder: {describe_encoder(origin, run, stream)}")
            features[stream] = both_features(encoder, task, stream, args, log)
            if args.save_features:
                save_features(log.folder, task, stream, features[stream])

        # fusion: the cosine of the concatenated features is the weighted mean of the streams' cosines
        if len(streams) > 1:
            weights = args.stream_weights or [1.0] * len(streams)
            scaled = [
                [F.normalize(x, dim=1) * w**0.5 for x in features[s]]
                for s, w in zip(streams, weights, strict=True)
            ]
            features[run.stream] = [torch.cat(parts, dim=1) for parts in zip(*scaled, strict=True)]

        # neighbours and accuracy
        rows, predictions = [], {}
        for name, (gallery, query) in features.items():
            precision = mean_average_precision(gallery, labels[0], query, labels[1]).item()
            log.print(f" * {name} mean average precision {precision:.3f}")
            for k in ks:
                predictions[name, k] = knn_predict(gallery, labels[0], query, k)
                acc1 = 100 * (predictions[name, k] == labels[1]).double().mean().item()
                log.print(f" * {name} {k}-NN Acc@1 {acc1:.3f}")
                figures = {"acc1": acc1, "mean_average_precision": precision}
                rows.append(result_row(run, log.about, name, f"{k}-NN retrieval", **figures))

        # report on the fusion, or on the only stream, with the first k
        gallery, query = features[run.stream]
        predicted, neighbours = predictions[run.stream, ks[0]], nearest(gallery, query, max(ks))
        arrays = dict(
            names=np.array(task.test.names), labels=task.test.labels, predictions=predicted.cpu().numpy()
        )
        arrays |= dict(neighbours=neighbours.cpu().numpy(), gallery_names=np.array(task.train.names))
        save_npz(log.folder / "predictions.npz", **arrays)
        report_classes(log, task, predicted, query)
        acc1 = next(row["acc1"] for row in rows if row["stream"] == run.stream)
        log.metrics(knn_acc1=acc1, knn_neighbours=ks[0])
        write_rows(log.folder, rows)


if __name__ == "__main__":
    main()
