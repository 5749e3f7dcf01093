"""One step of training: Adam, what autocast computes, a GPU's recording of it, a batch divided among processes."""

import math

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import processes
from models import noise


def adam(model, lr, device):
    """Adam of a model on `device`. Its rate is a tensor, so that a recorded step reads it anew."""
    rate = torch.tensor(lr, device=device)
    return torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=device.type == "cuda")


def take_step(model, args, optimizer, *inputs):
    """One step of training. Returns what the model does, detached."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        scalars = model(*inputs)
    scalars["loss"].backward()
    if args.grad_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
    optimizer.step()
    return {key: value.detach() for key, value in scalars.items()}


def measure(model, args, *inputs):
    """What the model returns, without gradients."""
    with torch.no_grad(), torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        return model(*inputs)


def set_lr(optimizer, args, progress):
    """Set the learning rate for the share `progress`, in [0, 1), of the whole training."""
    share = 1.0
    if args.schedule == "cosine":
        warm_up = 0.05
        share = (
            progress / warm_up
            if progress < warm_up
            else 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))
        )
    for group in optimizer.param_groups:
        group["lr"].fill_(args.lr * max(share, 1e-3))


class Recorded:
    """A step that on a GPU is recorded as a CUDA graph and replayed: one launch in place of thousands.

    The first three calls run as they are: libraries settle in them, and the optimizer makes its state. The fourth
    records. Inputs of another shape (an epoch's last batch) or on another device run as they are, too. What a replay
    returns is overwritten by the next.
    """

    def __init__(self, step):
        self.step, self.calls, self.shapes, self.graph = step, 0, None, None

    def __call__(self, *inputs):
        shapes = [x.shape for x in inputs]
        self.shapes = self.shapes or shapes
        if not inputs[0].is_cuda or shapes != self.shapes:
            return self.step(*inputs)
        self.calls += 1
        if self.calls <= 3:  # on a stream of its own, as recording is
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                outputs = self.step(*inputs)
            here.wait_stream(aside)
            return outputs
        if not self.graph:
            self.graph, self.inputs = torch.cuda.CUDAGraph(), [x.clone() for x in inputs]
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread reads
                self.outputs = self.step(*self.inputs)
        for mine, x in zip(self.inputs, inputs, strict=True):
            mine.copy_(x)
        self.graph.replay()
        return self.outputs


def distributed(model, device):
    """The model as one of several processes trains it: gradients are those of the whole batch. Alone, the model."""
    if processes.count() == 1:
        return model
    if device.type == "cuda":  # batch norm of the whole batch: PyTorch has it for GPUs
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    network = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)

    def add_up(_, bucket):
        first, end, rows = noise.share  # a mean over them weighs as much as they are of the batch
        gradients = bucket.buffer().mul_((end - first) / rows)
        return dist.all_reduce(gradients, async_op=True).get_future().then(lambda future: future.value()[0])

    network.register_comm_hook(None, add_up)
    return network
