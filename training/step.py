"""What a step is made of: Adam, its learning rate, CUDA graphs, a batch among processes."""

import math

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models import noise
from runtime import processes


def adam(model, lr, device):
    """Adam of a model on `device`. Its rate is a tensor, so that a recorded step reads it anew."""
    rate = torch.tensor(lr, device=device)
    return torch.optim.Adam(
        model.parameters(), lr=rate, fused=True, capturable=device.type == "cuda"
    )


def set_lr(optimizer, args, progress):
    """Set the learning rate for `progress`, in [0, 1), of the whole training."""
    for group in optimizer.param_groups:
        group["lr"].fill_(args.lr * max(lr_scale(args.schedule, progress), 1e-3))


def lr_scale(schedule, progress, warm_up=0.05):
    """The factor of --lr at `progress`.

    1 or, of a cosine schedule, up to 1 in a warm-up and then down to 0.
    """
    if schedule == "constant":
        return 1.0
    if progress < warm_up:
        return progress / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))


class Recorded:
    """A step that on a GPU is recorded as a CUDA graph and replayed.

    That is one launch in place of thousands. The first three calls run as they are: libraries
    settle in them, and the optimizer makes its state. The fourth records. Inputs of another shape
    (an epoch's last batch) or on another device run as they are, too. What a replay returns is
    overwritten by the next.
    """

    def __init__(self, step):
        self.step = step
        self.calls = 0
        self.shapes = None
        self.graph = None

    def __call__(self, *inputs):
        shapes = [x.shape for x in inputs]
        self.shapes = self.shapes or shapes
        if not inputs[0].is_cuda or shapes != self.shapes:
            return self.step(*inputs)
        self.calls += 1
        if self.calls <= 3:  # on a stream of its own, as recording is
            here = torch.cuda.current_stream()
            aside = torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                outputs = self.step(*inputs)
            here.wait_stream(aside)
            return outputs
        if not self.graph:
            self.graph = torch.cuda.CUDAGraph()
            self.inputs = [x.clone() for x in inputs]
            # The thread that reads ahead may use CUDA meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = self.step(*self.inputs)
        # The graph reads and writes the memory that it was recorded with.
        for recorded, x in zip(self.inputs, inputs, strict=True):
            recorded.copy_(x)
        self.graph.replay()
        return self.outputs


def distributed(model, device):
    """The model as one of several processes trains it; alone, the model itself.

    Gradients are those of the whole batch.
    """
    if processes.count() == 1:
        return model
    if device.type == "cuda":  # batch norm of the whole batch: PyTorch has it for GPUs
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    device_ids = [device.index] if device.type == "cuda" else None
    network = DistributedDataParallel(model, device_ids=device_ids)

    # DDP would average: wrong where processes have unequal parts of a batch.
    def add_up(_, bucket):
        first, end, rows = noise.batch_part
        # The mean over this process's rows counts for their part of the batch.
        gradients = bucket.buffer().mul_((end - first) / rows)
        total = dist.all_reduce(gradients, async_op=True).get_future()
        return total.then(lambda future: future.value()[0])

    network.register_comm_hook(None, add_up)
    return network
