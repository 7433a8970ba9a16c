"""Retrieval: each test clip takes the class of its nearest training clips, by cosine similarity of their features.

    python action_retrieval.py --pretrained ./checkpoints/pretrain/checkpoint.pth.tar --finetune-dataset ntu60
"""

from engine.checkpoint import get_encoder
from engine.cli import script
from engine.device import pick_device, seed_everything
from engine.errors import RunError
from engine.features import extract_features, open_both
from engine.memory import keep_freed_memory
from engine.metrics import knn_predict
from engine.report import report, save_predictions
from engine.runlog import Run, RunLog
from feeder.augmentations import STREAMS
from options.datasets import DATA_SETS, split_folder
from options.flags import (
    DOWNSTREAM_REPRESENTATION,
    add_data_flags,
    add_encoder_flags,
    add_run_flags,
    check_encoder_flags,
    given_sizes,
)
from options.parser import Parser, positive_int


def get_parser() -> Parser:
    """Return the command line of retrieval."""
    parser = Parser(recipe="retrieval", description=__doc__)
    add_data_flags(parser, "--finetune-dataset", DOWNSTREAM_REPRESENTATION, STREAMS)
    add_encoder_flags(parser, raw=True)
    group = parser.add_argument_group("retrieval")
    group.add_argument("--knn-neighbours", type=positive_int, metavar="k", help="voting neighbours (%(default)s)")
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
    try:
        folder = split_folder(args.data_path, args.finetune_dataset, args.protocol)
    except ValueError as error:
        parser.error(str(error))

    # data and encoder
    keep_freed_memory()
    args.seed = seed_everything(args.seed)
    device = pick_device(args.device, args.gpu)
    parts = open_both(folder, DATA_SETS[args.finetune_dataset].num_classes)
    if args.knn_neighbours > len(parts[0]):
        raise RunError(f"--knn-neighbours {args.knn_neighbours} is more than the gallery's {len(parts[0])} samples")
    encoder = None if args.raw_coordinates else get_encoder(args.pretrained, given_sizes(args))

    run = Run("retrieval", args.finetune_dataset, args.protocol, args.finetune_skeleton_representation)
    with RunLog(args.log_dir, run, args) as log:
        gallery, query = (
            extract_features(encoder, part, run.stream, device, args.workers, args.batch_size) for part in parts
        )
        log.print(f"{len(gallery[0])} gallery and {len(query[0])} query samples of {folder}, {device}; log in {log.folder}")
        for note in parts[0].notes + parts[1].notes:
            log.print(note)
        predictions = knn_predict(*gallery, query[0], args.knn_neighbours)
        knn_acc1 = (predictions == query[1]).float().mean().item() * 100
        log.print(f" * {args.knn_neighbours}-NN Acc@1 {knn_acc1:.3f}")
        save_predictions(log.folder, parts[1].names, query[1], predictions)
        num_classes = DATA_SETS[run.data_set].num_classes
        report(log, run.data_set, num_classes, parts[1].names, query[1], predictions, query[0])
        log.metrics(knn_acc1=knn_acc1, knn_neighbours=args.knn_neighbours)


if __name__ == "__main__":
    main()
