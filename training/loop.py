"""The training loop of every network. Read this first.

Each epoch is one pass over the training set, with gradients, and one over the validation set,
without. A step reads a batch, prepares the model's inputs from it, runs the model, whose `forward`
is its loss, and updates the weights. The rest is in other files: flags.py has the flags, run.py the
checkpoints and the log, drawing.py the pictures, batches.py reads ahead, step.py has the optimizer,
CUDA graphs and several processes.
"""

import time
from functools import partial

import torch
from tqdm import tqdm

from models import noise
from runtime import processes
from runtime.device import seed_all
from training.batches import count_batches, read_ahead
from training.flags import Steps
from training.run import Run, check_finite, stopping
from training.step import Recorded, adam, distributed, set_lr


def fit(model, train, valid, args, device, parents, prepare=lambda batch: (batch,), draw=None):
    """Train `model` with Adam.

    It leaves last.pt, best.pt (lowest validation loss), log.csv and pictures in `args.save_to`.

    model:        `model(*inputs)` returns a dict of scalars, means over the batch, "loss" first
    train, valid: datasets that give a whole batch for a list of indices (`__getitems__`)
    parents:      what the checkpoints say they were built on
    prepare:      from a batch on the device to the model's inputs, without gradient
    draw:         draw(path) makes a picture of what best.pt makes of validation data

    Each step is seeded by (seed, epoch, step), so that a resumed run equals an unbroken one. SIGINT
    and SIGTERM finish the step, save, and exit. Of several processes each takes its part of every
    batch. Raises UserError if a checkpoint to resume from does not fit, or the loss stops being
    finite.
    """
    steps = count_batches(len(train), args)
    if isinstance(args.num_epochs, Steps):
        args.num_epochs = args.num_epochs.epochs(steps)
    model.to(device)
    optimizer = adam(model, args.lr, device)
    run = Run(model, optimizer, args, parents, steps, len(train), draw)
    if args.compile:
        model.compile()

    network = distributed(model, device)
    train_step = partial(take_step, network, optimizer, args)
    valid_step = partial(measure, model, args)
    if network is model:  # alone: several processes exchange gradients, which no graph records
        train_step, valid_step = Recorded(train_step), Recorded(valid_step)

    with stopping(run.signals), run.not_finite_explained():
        for epoch in range(len(run.history) + 1, args.num_epochs + 1):
            name = f"epoch {epoch}/{args.num_epochs}"
            model.train()
            trained = run_pass(
                train, args, device, prepare, step=train_step, epoch=epoch, name=name,
                after_step=run.after_step, optimizer=optimizer, progress=run.progress,
            )  # fmt: skip
            model.eval()
            validated = run_pass(
                valid, args, device, prepare, step=valid_step, epoch=0,
                name=f"validation of {name}", after_step=partial(run.after_step, to_save=trained),
            )  # fmt: skip
            run.end_epoch(epoch, trained, validated)
    run.drawings.finish()
    processes.wait()


def run_pass(
    dataset, args, device, prepare, step, epoch, name, after_step, optimizer=None, progress=None
):
    """One pass over the dataset, of training if there is an optimizer.

    Of each batch this process takes its part. after_step(name, progress) is called after each step.
    Returns the pass's progress; an interrupted pass continues from its own:

    step:    steps taken
    count:   examples seen
    totals:  {name: sum over examples}
    seconds: time that it took
    waited:  how much of it for examples to be read
    of:      what decides on the batches

    Raises NotFinite, with the pass's name, if the loss is not finite.
    """
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    seed_all(args.seed, epoch)
    order = torch.randperm(len(dataset))
    validating = optimizer is None
    steps = count_batches(len(dataset), args)
    progress = progress or {"step": 0, "count": 0, "totals": {}, "seconds": 0.0, "waited": 0.0}
    decides = {flag: getattr(args, flag) for flag in ("seed", "batch_size", "max_per_epoch")}
    progress["of"] = decides | {"examples": len(dataset)}

    bar = tqdm(
        desc=name,
        total=steps,
        initial=progress["step"],
        unit="batch",
        leave=False,
        disable=processes.rank() or None,
    )
    loss_before = None
    began = time.perf_counter()
    for batch, rows in read_ahead(dataset, order, args, first=progress["step"]):
        waited = time.perf_counter() - began
        taken = progress["step"]
        seed_all(args.seed, epoch, taken + 1)
        with noise.batch_of(rows) as (first, end):  # the rows that are this process's
            with torch.no_grad():
                inputs = prepare(batch.to(device, non_blocking=True))
            if not validating:
                set_lr(optimizer, args, (epoch - 1 + taken / steps) / args.num_epochs)
            means = step(*inputs)
        totals = {
            key: progress["totals"].get(key, 0.0) + mean * (end - first)
            for key, mean in means.items()
        }
        # The sum before this step is looked at, not this one, so that a GPU need not be waited for.
        if loss_before:
            check_finite(loss_before(), name, taken, validating)
        loss_before = copy_to_cpu(totals["loss"])
        progress = progress | {
            "step": taken + 1,
            "count": progress["count"] + end - first,
            "totals": totals,
            "seconds": progress["seconds"] + time.perf_counter() - began,
            "waited": progress["waited"] + waited,
        }
        after_step(name, progress)
        bar.update()
        began = time.perf_counter()
    check_finite(float(progress["totals"].get("loss", 0)), name, progress["step"], validating)
    return progress


def take_step(model, optimizer, args, *inputs):
    """One step of training: forward, backward, update. Returns what the model returns, detached."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        means = model(*inputs)
    means["loss"].backward()
    if args.grad_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
    optimizer.step()
    return {key: mean.detach() for key, mean in means.items()}


def measure(model, args, *inputs):
    """What the model returns, without gradients."""
    with torch.no_grad(), torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        return model(*inputs)


def copy_to_cpu(scalar):
    """Start copying a scalar to the CPU. Returns a function that waits for it and returns it."""
    copy = scalar.to("cpu", non_blocking=scalar.is_cuda)
    event = torch.cuda.Event() if scalar.is_cuda else None
    if event:
        event.record()

    def arrived():
        if event:
            event.synchronize()
        return float(copy)

    return arrived
