"""Pre-train SCD-Net on a data set, without labels.

    python pretraining.py --pre-dataset ntu60 --protocol cross_subject

Without other flags this is the paper's recipe. The checkpoint is written to --checkpoint-path
after every epoch and every --save-minutes minutes, the log to a new folder in --log-dir. SIGTERM and
Ctrl-C end the run after the current step; the same command with `--resume auto` continues it. On N GPUs:

    torchrun --nproc_per_node N pretraining.py --pre-dataset ntu60
"""

import signal
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from engine import checkpoint as checkpoints
from engine import distributed, meters
from engine.device import autocast, peak_memory, set_up
from engine.runlog import Run, RunLog
from engine.training import METERS, Training, process_seed, seed_everything, set_learning_rate, stop_signals
from engine.visualisation import show_views
from feeder.augmentations import STREAMS, PretrainingViews
from feeder.cli import UserError, script
from feeder.data_sets import DATA_SETS, PROTOCOL_FOLDERS
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from model import SCDNet
from options import flags
from options.parser import Parser


def get_parser() -> Parser:
    """Return the argument parser of pre-training."""
    parser = Parser("pretraining", __doc__)
    flags.add_data_flags(parser, "--pre-dataset", (DATA_SETS, PROTOCOL_FOLDERS, STREAMS))
    flags.add_size_flags(parser, note="the defaults are the paper's: 2048, 8, 1, 64, 64, 2")
    flags.add_contrast_flags(parser)
    flags.add_optimizer_flags(parser)
    flags.add_checkpoint_flags(parser, save_freq=1, save_minutes=10)
    flags.add_speed_flags(parser)
    flags.add_run_flags(parser)
    return parser


def train_step(
    net: nn.Module,
    optimizer: Optimizer,
    views: PretrainingViews,
    batch: Batch,
    generator: torch.Generator,
    precision: str = "fp32",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run one optimisation step, from a batch of clips to `optimizer.step()`, without waiting for the device.

    Args:
        net: an `SCDNet` in training mode, possibly wrapped in `DistributedDataParallel`.
        optimizer: the optimiser of the query encoder.
        views: the augmentation.
        batch: clips x (N, 3, T, V, M) in metres, on the CPU (pinned for a GPU) or on the device, and their
            num_frames (N,).
        generator: the generator of the views' random numbers, on the CPU.
        precision: fp32, tf32 or bf16.

    Returns:
        Logits (N, 1 + K) and loss (a scalar) of each pair, on the device.
    """
    # two views of each clip, on the device
    device = next(net.parameters()).device
    x = batch.x.to(device, non_blocking=True)
    q, k = views(x, batch.num_frames, generator)

    # forward: momentum update, keys, queries, logits; the keys enter the queues (model/contrast.py)
    with autocast(precision, device):
        logits = net(q, k)
    losses = SCDNet.loss(logits)

    # backward; DistributedDataParallel averages the gradients over the processes
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return logits, losses


def train(
    training: Training, loader: DataLoader, args: Namespace, log: RunLog, save: Callable[[], None]
) -> int:
    """Train until --epochs or a signal; return 0, or the exit status of the signal.

    `training` is updated in place; `save` writes its checkpoint.
    """
    training.net.train()
    model, optimizer = training.model, training.optimizer
    views, generator = training.views, training.generator
    steps, last_save, stopping = len(loader), time.monotonic(), False
    # processes must stop and save together: they ask each other every few steps and after an epoch
    interval = 1 if distributed.world_size() == 1 else min(args.print_freq, 10)
    with stop_signals() as caught:
        while training.epoch < args.epochs and not stopping:
            lr = set_learning_rate(optimizer, args, training.epoch)
            loader.sampler.seek(training.epoch, training.step)
            clock = before = time.perf_counter()
            for batch in loader:
                training.meters["Data"].update(time.perf_counter() - clock)
                logits, losses = train_step(model, optimizer, views, batch, generator, args.precision)

                # log; reading a meter waits for the device, so it is not done in every step
                training.meters["Loss"].update(sum(losses.values()).detach(), args.batch_size)
                training.meters["Acc@1"].update(meters.top1(logits), args.batch_size)
                now = time.perf_counter()
                training.meters["Time"].update(now - before)
                before = now  # what follows, such as a wait for the device, counts towards the next step
                if training.step % args.print_freq == 0 or training.step + 1 == steps:
                    log_step(training, logits, losses, steps, log)
                training.step += 1

                # stop if signalled, save if due
                if training.step == steps or training.step % interval == 0:
                    due = training.step < steps and time.monotonic() - last_save > 60 * args.save_minutes
                    stopping, due = distributed.any_process(bool(caught), due)
                    if stopping:
                        break
                    if due:
                        save()
                        last_save, before = time.monotonic(), time.perf_counter()
                clock = time.perf_counter()

            # end of the epoch, or a stop within it
            if training.step == steps:
                training.meters["Time"].total += time.perf_counter() - before  # the last wait for the device
                memory = peak_memory(training.device) / 2**30
                log.metrics(training.epoch, **training.figures(args.batch_size), lr=lr, peak_gib=memory)
                training.start_epoch(training.epoch + 1)
            if stopping or training.epoch == args.epochs or training.epoch % args.save_freq == 0:
                save()
                last_save = time.monotonic()
    if training.epoch == args.epochs:
        return 0
    signum = signal.Signals(caught[0] if caught else signal.SIGTERM)  # caught by another process
    log.print(f"stopped by {signum.name} at {training}; --resume auto continues from there")
    return 128 + signum


def log_step(
    training: Training, logits: dict[str, Tensor], losses: dict[str, Tensor], steps: int, log: RunLog
) -> None:
    """Print a step's line, check the weights, update the statistics; this waits for the device."""
    shown = {name: training.meters[name] for name in METERS}
    log.print(meters.progress_line(training.epoch, training.step, steps, shown))
    training.check_weights()
    found = meters.contrast_statistics(logits, losses, training.net.queues, training.net.T)
    for name, value in found.items():
        training.meters[name].update(value)


@script
def main(argv: list[str] | None = None) -> None:
    """Pre-train with the options of the command line; exit with status 143 or 130 after a signal."""
    # options, device, processes
    parser = get_parser()
    args = parser.parse_args(argv)
    data_set = DATA_SETS[args.pre_dataset]
    flags.check_protocol(parser, args.pre_dataset, args.protocol, data_set.protocols)
    folder = data_set.split_folder(args.data_path, args.protocol)
    device = set_up(args.device, args.gpu, args.threads, args.precision)
    check_options(parser, args, device)
    distributed.init_processes(device)
    rank, world_size = distributed.rank(), distributed.world_size()

    # data: each process reads its rows of every batch
    dataset = SkeletonDataset(folder, "train")
    if len(dataset) < args.batch_size:
        found = f"{len(dataset)} training samples, fewer than --batch-size {args.batch_size}"
        raise UserError(f"{folder} has {found}")

    # checkpoint to resume; an existing folder is locked from here until the end of the run
    resumable = rank == 0 and Path(args.checkpoint_path).is_dir()
    lock = checkpoints.lock_folder(args.checkpoint_path) if resumable else None
    run = Run("pretraining", args.pre_dataset, args.protocol, args.skeleton_representation)
    previous = checkpoints.find_previous(run, args)
    start = previous.checkpoint["epoch"], previous.checkpoint.get("step", 0)
    if any(other != start for other in distributed.gather_objects(start)):
        remedy = "--checkpoint-path must be a folder that all of them share"
        raise UserError(f"the processes found different checkpoints: {remedy}")
    if start[0] >= args.epochs:
        if rank == 0:
            where = previous.path or "--start-epoch"
            print(f"nothing to do: epoch {start[0]} of --epochs {args.epochs} ({where})")
        return distributed.close_processes()

    # network, views, optimiser, and their state
    seed = seed_everything(previous.checkpoint.get("seed", args.seed))
    seed = distributed.gather_objects(seed)[0]  # drawn by rank 0 if it is not set
    try:
        training = build(args, seed, device)
    except ValueError as error:
        parser.error(str(error))
    if previous.path:
        with checkpoints.restoring(previous.path):
            training.restore(previous.checkpoint)
    batches = Batches(len(dataset), args.batch_size, seed, True, rank, world_size)
    loader = make_loader(dataset, batches, args.workers, pin_memory=device.type == "cuda")

    # log
    setup = flags.changed_flags(args, get_parser().parse_args([]))
    record = {"seed": seed, "data": dataset.digest(), "setup": setup}
    with (
        RunLog(run, args, record, previous, enabled=rank == 0) as log,
        lock or checkpoints.lock_folder(args.checkpoint_path) if rank == 0 else nullcontext(),
    ):
        where = f"{world_size} x {device.type}" if world_size > 1 else device
        log.print(
            f"{len(dataset)} samples of {folder}, {len(loader)} steps per epoch on {where}, seed {seed}"
        )
        log.print(f"log in {log.folder}", *dataset.notes, *previous.notes)
        if previous.path:
            log.print(f"resumed from {previous.path} at {training}")
        elif rank == 0:
            show_views(log, dataset, training.views, seed)

        def save() -> None:
            state = training.state()  # called by all processes
            if rank == 0:
                checkpoints.save_checkpoint(Path(args.checkpoint_path, checkpoints.NAME), state | log.record)
            distributed.gather_objects(None)  # wait: torchrun kills the others when one ends with an error

        del previous  # frees the checkpoint
        status = train(training, loader, args, log, save)
        del loader  # ends the workers
        if status:
            raise SystemExit(status)
        log.print(f"checkpoint in {args.checkpoint_path}")
    distributed.close_processes()


def check_options(parser: Parser, args: Namespace, device: torch.device) -> None:
    """Exit with status 2 if options contradict each other."""
    processes = distributed.launched()
    if args.encoder_k % args.batch_size:
        parser.error(f"--encoder-k {args.encoder_k} is not a multiple of --batch-size {args.batch_size}")
    if args.batch_size % processes:
        total = f"is the total of {processes} processes and must be a multiple of them"
        parser.error(f"--batch-size {args.batch_size} {total}")
    if args.sync_batchnorm and processes > 1 and device.type != "cuda":
        parser.error("--sync-batchnorm needs GPUs: omit it, or use larger batches on each CPU process")
    flags.check_warmup(parser, args)
    if args.compile and device.type != "cuda":
        parser.error("--compile needs a GPU: on CPUs it takes minutes and training is not faster")


def build(args: Namespace, seed: int, device: torch.device) -> Training:
    """Return the network, views and optimiser of a new run; raise ValueError if sizes are incompatible."""
    seed_everything(seed)  # the same weights in all processes
    net = SCDNet(
        flags.given_sizes(args), args.encoder_dim, args.encoder_k, args.encoder_m, args.encoder_t, args.pairs
    )
    sizes = net.encoder_q.encoder.sizes
    views = PretrainingViews(
        args.skeleton_representation, sizes["frames"], sizes["bodies"], masks=not args.no_masks
    )
    model = prepare(net, args, device)
    fused = device.type == "cuda"  # one pass over the weights
    optimizer = SGD(
        net.encoder_q.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay, fused=fused
    )
    own_seed = process_seed(seed, distributed.rank())  # dropout and views differ between processes
    torch.manual_seed(own_seed)
    generator = torch.Generator().manual_seed(own_seed)
    return Training(model, optimizer, views, generator, args.start_epoch)


def prepare(net: SCDNet, args: Namespace, device: torch.device) -> nn.Module:
    """Move the network to its device; with several processes, wrap it in `DistributedDataParallel`."""
    net.to(device)
    parallel = distributed.world_size() > 1
    synchronised = parallel and args.sync_batchnorm
    if synchronised:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if args.compile:  # one graph per encoder; only torch's SyncBatchNorm breaks it
        net.encoder_q.compile(fullgraph=not synchronised)
        net.encoder_k.compile(fullgraph=not synchronised)
    if not parallel:
        return net
    unused = {query for query, _ in args.pairs} != {"t", "s", "i"}  # an ablated loss may omit an embedding
    with warnings.catch_warnings():  # the new name of `broadcast_buffers` is unknown to older torch
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        how = dict(broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=unused)
        return DistributedDataParallel(net, [device] if device.type == "cuda" else None, **how)


if __name__ == "__main__":
    main()
