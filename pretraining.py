"""Pre-train SCD-Net on a data set, without labels.

    python pretraining.py --pre-dataset ntu60 --protocol cross_subject

Without further flags this is the paper's recipe. The checkpoint goes to --checkpoint-path after
every epoch and every --save-minutes, the log to a folder of its own in --log-dir. SIGTERM and
Ctrl-C end the run after the step that is under way; the same command with `--resume auto` goes on
at the next. On N GPUs:

    torchrun --nproc_per_node N pretraining.py --pre-dataset ntu60
"""

import math
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from engine.checkpoint import check_run, find_checkpoint, same_file
from engine.checkpoint_folder import CheckpointFolder
from engine.contrast_statistics import ContrastStatistics
from engine.device import PRECISIONS, autocast, keep_freed_memory, peak_memory, pick_device, set_precision
from engine.distributed import (
    average,
    average_gradients,
    check_alike,
    gather_batch,
    launched,
    make_alike,
    process_group,
    rank,
    share,
    world_size,
)
from engine.meters import progress_line
from engine.progress import Progress
from engine.runlog import NoLog, Run, RunLog
from engine.state import Training
from engine.stick_figures import show_views
from engine.training import StopSignals, learning_rate, part_dropout, seed_everything, set_learning_rate
from feeder.augmentations import STREAMS, PretrainingViews
from feeder.cli import UserError, script
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from feeder.resident import ResidentDataset
from model import SCDNet
from options.flags import (
    add_checkpoint_flags,
    add_data_flags,
    add_optimizer_flags,
    add_run_flags,
    add_size_flags,
    given_folder,
    given_sizes,
)
from options.parser import Parser, fraction, natural, positive_float, positive_int

METERS = {"Time": "6.3f", "Data": "6.3f", "Loss": ".4e", "Acc@1": "6.2f"}


def get_parser() -> Parser:
    """Return the command line of pre-training."""
    parser = Parser(recipe="pretraining", description=__doc__)
    add_data_flags(parser, "--pre-dataset", ("--skeleton-representation",), STREAMS)
    add_size_flags(parser, note="the defaults are the paper's: 2048, 8, 1, 64, 64, 2")
    group = parser.add_argument_group("contrast")
    group.add_argument("--encoder-dim", type=positive_int, metavar="N", help="size of the embeddings (%(default)s)")
    group.add_argument("--encoder-k", type=positive_int, metavar="K", help="keys in each queue, a multiple of the batch "
                       "(%(default)s)")  # fmt: skip
    group.add_argument("--encoder-m", type=fraction, metavar="m", help="momentum of the key encoder (%(default)s)")
    group.add_argument("--encoder-t", type=positive_float, metavar="T", help="temperature (%(default)s)")
    group.add_argument("--pairs", nargs="+", metavar="PAIR", help="of the loss, the query's domain and the key's; others than "
                       "these are an ablation (%(default)s)")  # fmt: skip
    group.add_argument("--no-masks", action="store_true", help="leave both masks out of the views, an ablation")
    add_optimizer_flags(parser)
    group = add_checkpoint_flags(parser, save_freq=1)
    group.add_argument("--save-minutes", type=positive_float, default=10, metavar="X", help="minutes between checkpoints "
                       "within an epoch (%(default)s)")  # fmt: skip
    group.add_argument("--keep-checkpoints", type=natural, default=0, metavar="N", help="also keep those of the last N saved "
                       "epochs, as checkpoint_EPOCH.pth.tar (%(default)s)")  # fmt: skip
    group.add_argument("--on-failed-save", choices=("stop", "continue"), default="stop", metavar="WHAT", help="stop or "
                       "continue where the disk is full; the older checkpoint stays whole (%(default)s)")  # fmt: skip
    group = parser.add_argument_group("speed")
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", metavar="NAME", help=f"{', '.join(PRECISIONS)}; fp32 "
                       "has the reference's numerics, tf32 is for GPUs (%(default)s)")  # fmt: skip
    group.add_argument("--compile", action="store_true", help="torch.compile of the encoders; for GPUs")
    group.add_argument("--resident", action="store_true", help="hold the training clips in the device's memory (some 2 GB of "
                       "NTU RGB+D 60) instead of reading them by --workers")  # fmt: skip
    group = parser.add_argument_group("several processes (torchrun)")
    group.add_argument("--no-sync-batchnorm", action="store_true", help="BatchNorm statistics of each "
                       "process's part of the batch")  # fmt: skip
    add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Pre-train as the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.encoder_k % args.batch_size:
        parser.error(f"--encoder-k {args.encoder_k} is not a multiple of --batch-size {args.batch_size}")
    if args.batch_size % launched():
        parser.error(f"--batch-size {args.batch_size} is the total of {launched()} processes, and not a multiple of that")
    folder = given_folder(parser, args, args.pre_dataset)
    device = pick_device(args.device, args.gpu)
    if args.compile and device.type != "cuda":
        parser.error("--compile is for GPUs: on CPUs it takes minutes and gains nothing")
    set_precision(args.precision, device)
    keep = dict(save_minutes=args.save_minutes, keep=args.keep_checkpoints, stop_on_failure=args.on_failed_save == "stop")
    with process_group(device), CheckpointFolder(args.checkpoint_path, not rank(), **keep) as checkpoints:
        status = pretrain(parser, args, folder, device, checkpoints)
    if status:
        raise SystemExit(status)


def pretrain(parser: Parser, args: Namespace, folder: Path, device: torch.device, checkpoints: CheckpointFolder) -> int:
    """Pre-train on the arrays in `folder`; return the exit status, other than 0 where a signal ended it."""
    run = Run("pretraining", args.pre_dataset, args.protocol, args.skeleton_representation)
    checkpoint, resumed = find_checkpoint(args.resume, args.checkpoint_path)
    check_run(checkpoint, run, vars(args), resumed)
    start_epoch = checkpoint.get("epoch", args.start_epoch)
    check_alike("the checkpoint: --checkpoint-path is one folder for all", [start_epoch, checkpoint.get("step", 0)])
    if start_epoch >= args.epochs:
        if not rank():
            print(f"nothing left to do: epoch {start_epoch} of --epochs {args.epochs}")
        return 0

    # data
    keep_freed_memory()
    args.seed = seed_everything(checkpoint.get("seed", args.seed))
    loader, dataset = open_data(args, folder, device)

    # model and optimiser
    try:
        net = build_model(args, device)
        views = build_views(args, net, dataset)
    except ValueError as error:
        parser.error(str(error))
    optimizer = SGD(net.encoder_q.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    part_dropout(args.seed)
    progress = Progress(start_epoch, len(loader), args.batch_size, METERS)
    training = Training(net, optimizer, torch.Generator().manual_seed(args.seed), progress)
    if resumed:
        training.restore(checkpoint, resumed)

    # epochs
    checkpoints.claim()
    continued = same_file(resumed, checkpoints.file) and "run" in checkpoint
    earlier = checkpoint.get("log_folder") if continued else None
    checkpoint.clear()  # frees the memory
    with NoLog() if rank() else RunLog(args.log_dir, run, args, earlier, start_epoch) as log, StopSignals() as stop:
        about = dict(options=vars(args), run=list(run), log_folder=str(log.folder), seed=args.seed)
        checkpoints.connect(lambda: training.state() | about, log.print)
        checkpoints.set_aside(resumed, log.print)
        log.print(f"{len(dataset)} samples of {folder}, {len(loader)} steps an epoch on {device}, seed {args.seed}")
        if world_size() > 1:
            log.print(f"{world_size()} processes, {args.batch_size // world_size()} clips of a step in each")
        for note in [f"log in {log.folder}", *dataset.notes, *[f"resumed from {resumed} at {progress}"] * bool(resumed)]:
            log.print(note)
        if not continued and not rank():
            show_views(log, dataset, views, args.seed)
        while progress.epoch < args.epochs and not progress.stopping:
            set_learning_rate(optimizer, lr := learning_rate(args.lr, progress.epoch, args.epochs, args.schedule, args.cos))
            remaining = progress.batches(loader, stop, checkpoints)
            figures = train_epoch(training, remaining, views, args.precision, args.print_freq, device, log)
            if progress.epoch_done:
                log.metrics(progress.epoch, **figures, lr=lr)
                progress.next_epoch()
            last = progress.epoch == args.epochs or progress.stopping
            if last or progress.epoch % args.save_freq == 0:
                checkpoints.save(epoch_done=not progress.step, must=last)
        if progress.epoch < args.epochs:
            log.print(f"stopped by {stop.name} at {progress}; the same command with --resume auto goes on there")
            return stop.status
        log.print(f"checkpoint: {checkpoints.file}")
    return 0


def build_model(args: Namespace, device: torch.device) -> SCDNet:
    """Return the network on the device, the same in all processes.

    Raises:
        ValueError: sizes that do not fit together, or pairs that are none.
    """
    net = SCDNet(given_sizes(args), args.encoder_dim, args.encoder_k, args.encoder_m, args.encoder_t, args.pairs, gather_batch)
    make_alike(net.to(device), device, not args.no_sync_batchnorm)
    if args.compile:
        net.encoder_q.compile()
        net.encoder_k.compile()
    return net


def build_views(args: Namespace, net: SCDNet, dataset: SkeletonDataset) -> PretrainingViews:
    """Return what makes the two views that the network reads of a batch of the data set.

    Raises:
        ValueError: frames that do not part into the blocks of the mask.
    """
    sizes, masks = net.encoder_q.encoder.sizes, not args.no_masks
    return PretrainingViews(args.skeleton_representation, sizes["frames"], sizes["bodies"], masks=masks, rows=dataset.rows)


def open_data(args: Namespace, folder: Path, device: torch.device) -> tuple[DataLoader, SkeletonDataset]:
    """Return the loader of this process's share of each batch, and its data set.

    Raises:
        UserError: there is not one whole batch.
    """
    dataset = SkeletonDataset(folder, "train", share(args.batch_size))
    batches = Batches(len(dataset), args.batch_size, args.seed, drop_last=True)
    if not len(batches):
        raise UserError(f"{folder} has {len(dataset)} training samples, fewer than one --batch-size of {args.batch_size}")
    if args.resident:
        return make_loader(ResidentDataset(dataset, device), batches, workers=0), dataset
    return make_loader(dataset, batches, args.workers, pin_memory=device.type == "cuda"), dataset


def train_epoch(
    training: Training,
    batches: Iterable[Batch],
    views: PretrainingViews,
    precision: str,
    print_freq: int,
    device: torch.device,
    log: RunLog,
) -> dict[str, float]:
    """Train on what is left of an epoch, or until a signal comes; `batches` counts the steps of the progress.

    Returns:
        Means over the epoch so far and over all processes: loss, Acc@1 in percent (a query finds its key before all the
        queue); seconds, samples a second and peak memory; the means of `ContrastStatistics`.

    Raises:
        UserError: the loss is not finite.
    """
    net, optimizer, progress = training.net.train(), training.optimizer, training.progress
    time_meter, data_meter, loss_meter, acc_meter = progress.meters
    statistics = ContrastStatistics(net.T)
    before = time.perf_counter()
    for batch in batches:
        data_meter.update(time.perf_counter() - before)
        q, k = views(batch.x.to(device, non_blocking=True), batch.num_frames, training.generator)
        with autocast(precision, device):
            logits = net(q, k)
            losses = net.loss(logits)
        loss = sum(losses.values(), start=torch.zeros((), device=device))
        optimizer.zero_grad()
        loss.backward()
        average_gradients(net.encoder_q)
        optimizer.step()

        mean_loss, acc1 = average(torch.stack([loss.detach(), mean_accuracy(logits)]))
        loss_meter.update(mean_loss, progress.batch_size)
        acc_meter.update(acc1, progress.batch_size)
        time_meter.update(time.perf_counter() - before)
        before = time.perf_counter()
        if progress.step % print_freq == 0 or progress.step + 1 == progress.steps:
            if not math.isfinite(loss_meter.total):
                raise UserError(f"the loss is {loss_meter.value} at {progress}: stopped, the last checkpoint stands; a lower "
                               "--lr may help")  # fmt: skip
            statistics.update(logits, losses, net.queues)
            log.print(progress_line(progress.epoch, progress.step, progress.steps, progress.meters))
    seconds = time_meter.total
    figures = {"loss": loss_meter.mean, "acc1": acc_meter.mean, "seconds": seconds, "peak_gib": peak_memory(device) / 2**30}
    return figures | {"samples_per_second": progress.step * progress.batch_size / max(seconds, 1e-9)} | statistics.means()


def mean_accuracy(logits: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the share in percent of queries whose key ranks first, over the pairs; a scalar on their device."""
    first = [(x.detach().argmax(dim=1) == 0).float().mean() for x in logits.values()]
    return 100 * torch.stack(first).mean()


if __name__ == "__main__":
    main()
