"""Retrieval: each test clip takes the class of its nearest training clips, by cosine similarity.

    python action_retrieval.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

With several streams, each is evaluated, then their fusion: the concatenated normalised features.
"""

import numpy as np
import torch
import torch.nn.functional as F

from engine.device import set_up
from engine.encoders import describe_encoder, open_encoders
from engine.evaluation import result_row
from engine.features import extract_features, open_both, save_features
from engine.results import write_rows
from engine.retrieval import knn_predict, mean_average_precision, nearest
from engine.runlog import Run, RunLog
from engine.training import seed_everything
from engine.visualisation import report_classes
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.data_sets import DATA_SETS, PROTOCOL_FOLDERS
from options import flags
from options.parser import Parser, positive_int


def get_parser() -> Parser:
    """Return the argument parser of retrieval."""
    parser = Parser("retrieval", __doc__)
    flags.add_data_flags(parser, "--finetune-dataset", (DATA_SETS, PROTOCOL_FOLDERS, STREAMS), several=True)
    flags.add_encoder_flags(parser, raw=True)
    add = parser.add_argument_group("retrieval").add_argument
    voters = "numbers of neighbours that vote, one or more"
    add("--knn-neighbours", nargs="+", type=positive_int, metavar="k", help=voters)
    add("-b", "--batch-size", type=positive_int, metavar="N", help="clips per batch")
    flags.add_run_flags(parser)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate each stream, then their fusion."""
    # options, data, encoders
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args, raw=True)
    streams, ks = args.finetune_skeleton_representation, args.knn_neighbours
    run = Run("retrieval", args.finetune_dataset, args.protocol, "+".join(streams))
    data_set = DATA_SETS[args.finetune_dataset]
    flags.check_protocol(parser, args.finetune_dataset, args.protocol, data_set.protocols)
    folder = data_set.split_folder(args.data_path, args.protocol)
    device = set_up(args.device, args.gpu, args.threads)
    split = open_both(folder, data_set.num_classes)
    if max(ks) > len(split.train):
        raise UserError(f"--knn-neighbours {max(ks)} is more than the gallery's {len(split.train)} samples")
    seed = seed_everything(args.seed)
    raw = [(None, {"task": "raw", "seed": seed})] * len(streams)
    encoders = raw if args.raw_coordinates else open_encoders(args, seed)
    record = {"seed": seed, "data": split.describe(), "encoders": [origin for _, origin in encoders]}
    record["setup"] = flags.changed_flags(args, get_parser().parse_args([]), incidental=["batch_size"])

    with RunLog(run, args, record) as log:
        log.print(f"{len(split.train)} gallery and {len(split.test)} query samples of {folder}, {device}")
        log.print(f"log in {log.folder}", *split.notes)
        labels = [torch.from_numpy(part.labels).to(device) for part in split]

        # features of each stream
        features = {}
        loaders = split.loaders(args.batch_size, args.workers, device)
        for stream, (encoder, origin) in zip(streams, encoders, strict=True):
            log.print(f"{stream} stream, encoder: {describe_encoder(origin, run, stream)}")
            features[stream] = extract_features(encoder, stream, loaders, device, log, args.print_freq)
            if args.save_features:
                save_features(log.folder, split, stream, features[stream])

        # fusion: the cosine of the concatenated features is the weighted mean of the streams' cosines
        if len(streams) > 1:
            weights = args.stream_weights or [1.0] * len(streams)
            scales = [weight**0.5 for weight in weights]
            features[run.stream] = [
                torch.cat([F.normalize(x, dim=1) * w for x, w in zip(parts, scales, strict=True)], dim=1)
                for parts in zip(*features.values(), strict=True)
            ]

        # neighbours and accuracy, of each stream and the fusion
        rows, predictions = [], {}
        for stream, (gallery, query) in features.items():
            precision = mean_average_precision(gallery, labels[0], query, labels[1]).item()
            log.print(f" * {stream} mean average precision {precision:.3f}")
            for k in ks:
                predictions[stream, k] = knn_predict(gallery, labels[0], query, k)
                acc1 = 100 * (predictions[stream, k] == labels[1]).double().mean().item()
                log.print(f" * {stream} {k}-NN Acc@1 {acc1:.3f}")
                figures = {"acc1": acc1, "mean_average_precision": precision}
                rows.append(result_row(run, log.record, stream, f"{k}-NN retrieval", **figures))

        # report on the fusion, or on the only stream, with the first k
        gallery, query = features[run.stream]
        predicted = predictions[run.stream, ks[0]]
        np.savez(
            log.folder / "predictions.npz",
            names=np.array(split.test.names),
            labels=split.test.labels,
            predictions=predicted.cpu().numpy(),
            neighbours=nearest(gallery, query, max(ks)).cpu().numpy(),
            gallery_names=np.array(split.train.names),
        )
        report_classes(log, split.test, predicted, query)
        acc1 = next(row["acc1"] for row in rows if row["stream"] == run.stream)
        log.metrics(knn_acc1=acc1, knn_neighbours=ks[0])
        write_rows(log.folder, rows)


if __name__ == "__main__":
    main()
