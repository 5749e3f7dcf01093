"""Time some functions in turn, so that what disturbs the machine disturbs all of them alike."""

import statistics
import time

import torch


def compare(variants, device, rounds=7, warm_up=5):
    """Print the median time of each of the functions {name: function} and its ratio to the last's.

    Times are in ms. The functions take turns for `rounds` rounds after `warm_up` that do not count.
    On a GPU, time is between two events.
    """
    taken = {name: [] for name in variants}
    for turn in range(warm_up + rounds):
        for name, function in variants.items():
            ms = milliseconds(function, device)
            if turn >= warm_up:
                taken[name].append(ms)
    return report(taken)


def report(taken):
    """Print and return the medians of {name: times in ms}."""
    medians = {name: statistics.median(times) for name, times in taken.items()}
    base = list(medians.values())[-1]
    for name, median in medians.items():
        low = min(taken[name])
        high = max(taken[name])
        print(
            f"{name:36} {median:9.2f} ms  {median / base:5.2f} x  ({low:.2f} to {high:.2f})",
            flush=True,
        )
    return medians


def milliseconds(function, device):
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)
    began = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - began)
