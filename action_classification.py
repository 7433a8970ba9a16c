"""Linear evaluation: a linear layer on the features of a frozen, pre-trained encoder.

    python action_classification.py --pretrained ./checkpoints/pretrain/checkpoint.pth.tar --finetune-dataset ntu60

The encoder is in evaluation mode and the crop deterministic, so features are computed once; every epoch then trains on them.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from engine.checkpoint import NAME, find_checkpoint, get_encoder, load_weights, restore_optimizer, save_checkpoint
from engine.cli import script
from engine.device import pick_device, seed_everything
from engine.errors import RunError
from engine.features import extract_features, open_both
from engine.memory import keep_freed_memory
from engine.meters import Meter, progress_line
from engine.metrics import accuracy
from engine.report import report, save_predictions
from engine.runlog import Run, RunLog
from engine.schedule import learning_rate, set_learning_rate
from feeder.augmentations import STREAMS
from feeder.dataset import Batches
from model import DownstreamModel
from options.datasets import DATA_SETS, split_folder
from options.flags import (
    DOWNSTREAM_REPRESENTATION,
    add_data_flags,
    add_encoder_flags,
    add_optimizer_flags,
    add_run_flags,
    check_encoder_flags,
    given_sizes,
)
from options.parser import Parser, positive_int


def get_parser() -> Parser:
    """Return the command line of linear evaluation."""
    parser = Parser(recipe="linear", description=__doc__)
    add_data_flags(parser, "--finetune-dataset", DOWNSTREAM_REPRESENTATION, STREAMS)
    add_encoder_flags(parser)
    add_optimizer_flags(parser)
    group = parser.add_argument_group("checkpoints")
    group.add_argument("--checkpoint-path", metavar="DIR", help="where the encoder with its linear layer is kept (%(default)s)")
    group.add_argument("--resume", metavar="PATH", help="a checkpoint of this script to go on with; auto takes the one in "
                       "--checkpoint-path, if there is one")  # fmt: skip
    group.add_argument("--save-freq", type=positive_int, default=20, metavar="N", help="epochs between checkpoints; the last "
                       "epoch is always saved (%(default)s)")  # fmt: skip
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
    checkpoint, resumed = find_checkpoint(args.resume, args.checkpoint_path)
    start_epoch, best_acc1 = checkpoint.get("epoch", args.start_epoch), checkpoint.get("best_acc1", 0.0)
    if start_epoch >= args.epochs:
        print(f"nothing left to do: epoch {start_epoch} of --epochs {args.epochs}")
        return

    # model and optimiser
    keep_freed_memory()
    args.seed = seed_everything(checkpoint.get("seed", args.seed))
    device = pick_device(args.device, args.gpu)
    parts = open_both(folder, DATA_SETS[args.finetune_dataset].num_classes)
    model = DownstreamModel(get_encoder(args.pretrained, given_sizes(args)), DATA_SETS[args.finetune_dataset].num_classes)
    optimizer = SGD(model.fc.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    if resumed:
        load_weights(model, checkpoint["state_dict"], resumed)
        restore_optimizer(optimizer, model, checkpoint, resumed)

    run = Run("linear", args.finetune_dataset, args.protocol, args.finetune_skeleton_representation)
    with RunLog(args.log_dir, run, args) as log:
        # features, once
        train, test = (extract_features(model.encoder, part, run.stream, device, args.workers) for part in parts)
        model.to(device)
        log.print(f"{len(train[0])} training and {len(test[0])} test samples of {folder}, {device}, seed {args.seed}")
        log.print(f"log in {log.folder}")
        for note in parts[0].notes + parts[1].notes:
            log.print(note)

        # epochs
        batches = Batches(len(train[0]), args.batch_size, args.seed)
        for epoch in range(start_epoch, args.epochs):
            batches.epoch = epoch
            set_learning_rate(optimizer, learning_rate(args.lr, epoch, args.epochs, args.schedule, args.cos))
            loss = train_epoch(model.fc, *train, batches, optimizer, epoch, args.print_freq, log)
            acc1, acc5 = evaluate(model.fc, *test)
            best_acc1 = max(best_acc1, acc1)
            log.print(f" * Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
            log.metrics(epoch, loss=loss, acc1=acc1, acc5=acc5, lr=optimizer.param_groups[0]["lr"])
            if (epoch + 1) % args.save_freq == 0 or epoch + 1 == args.epochs:
                save_checkpoint(Path(args.checkpoint_path) / NAME, dict(
                    epoch=epoch + 1, state_dict=model.state_dict(), optimizer=optimizer.state_dict(), seed=args.seed,
                    sizes={"encoder": model.encoder.sizes}, options=vars(args), best_acc1=best_acc1,
                ))  # fmt: skip
        log.print(f"Acc@1 of the last epoch {acc1:.3f}; of the epoch best on the test set {best_acc1:.3f} (what papers report)")
        scores = model.fc(test[0])
        save_predictions(log.folder, parts[1].names, test[1], scores.argmax(dim=1), scores)
        report(log, run.data_set, model.fc.out_features, parts[1].names, test[1], scores.argmax(dim=1), test[0])
        log.metrics(best_acc1=best_acc1, last_acc1=acc1)


def train_epoch(
    fc: nn.Linear,
    features: Tensor,
    labels: Tensor,
    batches: Batches,
    optimizer: Optimizer,
    epoch: int,
    print_freq: int,
    log: RunLog,
) -> float:
    """Train the linear layer for one epoch on features (N, 2 d) and labels (N,); return the mean loss.

    Raises:
        RunError: the loss is not finite.
    """
    time_meter, loss_meter, acc_meter = Meter("Time", "6.3f"), Meter("Loss", ".4e"), Meter("Acc@1", "6.2f")
    before = time.perf_counter()
    for step, indices in enumerate(batches):
        x, y = features[indices], labels[indices]
        scores = fc(x)
        loss = F.cross_entropy(scores, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        loss_meter.update(loss.item(), len(x))
        acc_meter.update(accuracy(scores.detach(), y), len(x))
        time_meter.update(time.perf_counter() - before)
        before = time.perf_counter()
        if not torch.isfinite(loss):
            raise RunError(f"the loss is {loss.item()} at epoch {epoch}, step {step}: stopped; a lower --lr may help")
        if step % print_freq == 0:
            log.print(progress_line(epoch, step, len(batches), [time_meter, loss_meter, acc_meter]))
    return loss_meter.mean


@torch.no_grad()
def evaluate(fc: nn.Linear, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy in percent on features (N, 2 d) and labels (N,)."""
    scores = fc(features)
    return accuracy(scores, labels), accuracy(scores, labels, k=5)


if __name__ == "__main__":
    main()
