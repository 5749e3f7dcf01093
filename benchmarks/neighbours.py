"""A training step alone, beside a busy process, and beside a second training of the same kind."""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import torch
from compare import report

from models.cae import CAE
from models.lstm import LatentLSTM
from models.vae import VCAE
from runtime import cli, limits
from train_cae import SPEC
from training.loop import take_step
from training.step import adam

SETTLE = 0.5  # seconds at the beginning of a turn that do not count


def cae():
    return CAE(SPEC), torch.rand(16, 3, 64, 64) - 0.5


def deep():
    return VCAE((1, 64, 64), arch="deep", n_hid=512, nfilts=16, L=1), torch.rand(128, 1, 64, 64)


def lstm():
    return LatentLSTM(32, n_hid=512), torch.randn(128, 30, 2, 32)


NETWORKS = {network.__name__: network for network in (cae, deep, lstm)}


def train(network, steps):
    """Take steps for ever, and count them."""
    model, batch = NETWORKS[network]()
    model.train()
    how = argparse.Namespace(amp=True, grad_clip=0)
    step = partial(take_step, model, adam(model, 1e-3, torch.device("cpu")), how, batch)
    while True:
        step()
        steps.value += 1


def be_busy():
    while True:
        pass


def main(args):
    spawn = multiprocessing.get_context("spawn")
    steps = spawn.Value("q", 0)
    steps_of_second = spawn.Value("q", 0)
    measured = spawn.Process(target=train, args=(args.network, steps), daemon=True)
    second = spawn.Process(target=train, args=(args.network, steps_of_second), daemon=True)
    busy = spawn.Process(target=be_busy, daemon=True)
    for process in (measured, second, busy):
        process.start()
    while not (steps.value and steps_of_second.value):
        time.sleep(0.1)

    neighbours = {"beside a second training": second, "beside a busy process": busy, "alone": None}
    taken = {name: [] for name in neighbours}
    for _ in range(args.rounds):
        for name, neighbour in neighbours.items():
            for process in (second, busy):
                os.kill(process.pid, signal.SIGCONT if process is neighbour else signal.SIGSTOP)
            time.sleep(SETTLE)
            first = steps.value
            began = time.perf_counter()
            time.sleep(args.seconds)
            taken[name].append(1000 * (time.perf_counter() - began) / max(steps.value - first, 1))
    print(f"a step of {args.network}, {torch.get_num_threads()} threads")
    report(taken)
    for process in (second, busy):
        os.kill(process.pid, signal.SIGCONT)


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="cae", help="what is trained")
    parser.add_argument("--rounds", type=limits.at_least(1), default=5, help="that count")
    seconds = limits.real(0, above=True)
    parser.add_argument("--seconds", type=seconds, default=3.0, help="of a turn")
    cli.run(main, parser)
