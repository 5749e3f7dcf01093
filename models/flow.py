"""Optical flow of two frames, and frames moved along a flow. Nothing here is learned.

In shapes n is the number of frames.
"""

import torch
import torch.nn.functional as F

LEVELS = 3  # frames are made up to four times smaller, so that large motion becomes small
ITERATIONS = 2  # per level
WINDOW = 11  # px, square, in which all pixels move alike
DAMPING = 0.017  # in squared slopes: flow is small where there is nothing to see
SMOOTH = 5  # px, square, over which the flow is averaged after each step
LONGEST_STEP = 1.0  # px, of an iteration: slopes hold nearby only


def lucas_kanade(previous, last):
    """Where each pixel of the last frame was in the previous one, relative to it, in pixels.

    Frames are (n, channels, height, width) in [0, 1]; the flow is (n, 2, height, width), to the
    right and down. Coarse to fine (Lucas & Kanade 1981; Bouguet 2001): at each level the flow d
    makes steps that minimise

        mean over window and channels (P(x + d) + P'(x + d) step - L(x))^2 + DAMPING step^2
    """
    flow = last.new_zeros(len(last), 2, 1, 1)
    for level in reversed(range(LEVELS)):
        small_previous = shrink(previous, 2**level)
        small_last = shrink(last, 2**level)
        flow = resize(flow, small_last)
        for _ in range(ITERATIONS):
            moved = warp(small_previous, flow)
            step = solve(*slopes(moved), small_last - moved)
            flow = average(flow + step.clamp(-LONGEST_STEP, LONGEST_STEP), SMOOTH)
    return flow


def shrink(frames, times):
    """Frames so many times smaller; of those that are too small for it, one pixel is left."""
    height, width = frames.shape[2:]
    return F.avg_pool2d(frames, (min(times, height), min(times, width)))


def resize(flow, like):
    """A flow for frames of the size of `like`: in their pixels."""
    scale = flow.new_tensor([like.shape[3] / flow.shape[3], like.shape[2] / flow.shape[2]])
    larger = F.interpolate(flow, size=like.shape[2:], mode="bilinear")
    return larger * scale.view(1, 2, 1, 1)


def slopes(frames):
    """The slopes of frames to the right and down, by central differences; both as the frames."""
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return right, down


def solve(right, down, error):
    """The step (n, 2, height, width) that explains the error best, by two normal equations.

    right, down: slopes; error: what is to be explained; all (n, channels, height, width).
    """
    products = (right**2, right * down, down**2, right * error, down * error)
    means = torch.stack([product.mean(1) for product in products], dim=1)  # (n, 5, height, width)
    rr, rd, dd, re, de = average(means, WINDOW).unbind(1)  # each (n, height, width)
    rr = rr + DAMPING
    dd = dd + DAMPING
    determinant = rr * dd - rd**2
    step_right = (dd * re - rd * de) / determinant
    step_down = (rr * de - rd * re) / determinant
    return torch.stack([step_right, step_down], dim=1)


def average(maps, size):
    """The mean over a square of `size` pixels around each; beyond the edge is the edge."""
    padded = F.pad(maps, (size // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, size, stride=1)


def warp(frames, flow, mode="bilinear"):
    """Frames (n, channels, height, width), each pixel taken from where the flow leads from it.

    flow: (n, 2, height, width), to the right and down, in pixels. Beyond the edge is the edge.
    mode: of the interpolation between pixels.
    """
    height, width = frames.shape[2:]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]  # (n, height, width)
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    # grid_sample has the frame from -1 to 1, and pixels' centres half a pixel inside.
    grid = torch.stack([2 * (columns + 0.5) / width - 1, 2 * (rows + 0.5) / height - 1], dim=-1)
    return F.grid_sample(frames, grid, mode, padding_mode="border", align_corners=False)
