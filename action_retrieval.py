"""Retrieval: each test clip takes the class of its nearest training clips, by cosine similarity.

    python action_retrieval.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

With several streams each is evaluated, then their fusion: their normalised features, concatenated.
"""

import numpy as np
import torch
import torch.nn.functional as F

from engine.device import pick_device, set_threads
from engine.evaluation import describe_encoder, result_row
from engine.features import extract_features, open_task, save_features
from engine.files import save_npz
from engine.results import write_rows
from engine.retrieval import knn_predict, mean_average_precision, nearest
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
    flags.add_data_flags(parser, "--finetune-dataset", STREAMS, several=True)
    flags.add_encoder_flags(parser, raw=True)
    add = parser.add_argument_group("retrieval").add_argument
    voters = "number of neighbours that vote, one or several values (%(default)s)"
    add("--knn-neighbours", action=OneOrMore, type=positive_int, metavar="k", help=voters)
    add("-b", "--batch-size", type=positive_int, metavar="N", help="clips at a time (%(default)s)")
    flags.add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate each stream, then their fusion."""
    # options, data, encoders
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args)
    folder, num_classes = (
        flags.given_folder(parser, args, args.finetune_dataset),
        DATA_SETS[args.finetune_dataset].num_classes,
    )
    streams, ks = listed(args.finetune_skeleton_representation), listed(args.knn_neighbours)
    run = Run("retrieval", args.finetune_dataset, args.protocol, "+".join(streams))
    device, sizes = pick_device(args.device, args.gpu), flags.given_sizes(args)
    set_threads(args.threads)
    task = open_task(
        run, folder, num_classes, listed(args.pretrained), sizes, device, args.seed, args.raw_coordinates
    )
    vars(args).update(task.record)
    train, test = task.train, task.test
    if max(ks) > len(train):
        raise UserError(f"--knn-neighbours {max(ks)} is more than the gallery's {len(train)} samples")

    with RunLog(args.log_dir, run, args) as log:
        log.print(
            f"{len(train)} gallery and {len(test)} query samples of {folder}, {device}; log in {log.folder}"
        )
        for note in (*train.notes, *test.notes):
            log.print(note)
        gallery_labels, labels = (torch.from_numpy(part.labels).to(device) for part in (train, test))

        # features of each stream
        features = {}
        for stream, encoder, origin in zip(streams, task.encoders, task.record["origins"], strict=True):
            log.print(f"{stream} stream, encoder: {describe_encoder(origin, args.protocol, stream)}")
            features[stream] = extract_features(task, encoder, stream, args.workers, args.batch_size)
            if args.save_features:
                save_features(log.folder, task, stream, features[stream])

        # fusion: the cosine of the concatenated features is the weighted mean of the streams' cosines
        if len(streams) > 1:
            weights = args.stream_weights or [1.0] * len(streams)
            scaled = [
                [F.normalize(x, dim=1) * w**0.5 for x in features[s]]
                for s, w in zip(streams, weights, strict=True)
            ]
            features[run.stream] = tuple(torch.cat(parts, dim=1) for parts in zip(*scaled, strict=True))

        # neighbours and accuracy
        rows = []
        for name, (gallery, query) in features.items():
            precision = mean_average_precision(gallery, gallery_labels, query, labels).item()
            log.print(f" * {name} mean average precision {precision:.3f}")
            predictions = {k: knn_predict(gallery, gallery_labels, query, k) for k in ks}
            for k in ks:
                acc1 = 100 * (predictions[k] == labels).double().mean().item()
                log.print(f" * {name} {k}-NN Acc@1 {acc1:.3f}")
                figures = {"acc1": acc1, "mean_average_precision": precision}
                rows.append(result_row(run, vars(args), name, f"{k}-NN retrieval", **figures))

        # report on the fusion, or on the only stream, with the first k
        predicted, neighbours = predictions[ks[0]], nearest(gallery, query, max(ks))
        arrays = dict(names=np.array(test.names), labels=test.labels, predictions=predicted.cpu().numpy())
        arrays |= dict(neighbours=neighbours.cpu().numpy(), gallery_names=np.array(train.names))
        save_npz(log.folder / "predictions.npz", **arrays)
        report_classes(log, task, predicted, query)
        log.metrics(knn_acc1=rows[-len(ks)]["acc1"], knn_neighbours=ks[0])
        write_rows(log.folder, rows)


if __name__ == "__main__":
    main()
