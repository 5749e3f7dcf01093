"""Pictures of frames: labelled sheets, and truth beside prediction as GIF, MP4 or PNG."""

import itertools
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from runtime import files

INK = (40, 40, 40)
PAPER = (255, 255, 255)
PRIMED = (46, 125, 50)  # green, while the truth is fed in
FREE = (198, 40, 40)  # red, after that
FONT = 13  # px
CAPTION = 18  # px, the height of a line
BAR = 4  # px, of colour under a frame of a sheet
BORDER = 4  # px, of colour around a predicted frame
SHEET_COLUMNS = 15
GIF_RATE = 50  # frames per second: viewers slow down shorter delays
SLOT_COLORS = ("C1", "C0", "C2", "C3")


def to_uint8(frames):
    """Frames (..., channels, height, width) as RGB (..., height, width, 3) uint8.

    They are float in [0, 1] or uint8. One or two channels: the first as grey. Three or more: the
    first three as red, green and blue.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8:
        frames = np.rint(255 * np.clip(frames, 0, 1)).astype(np.uint8)
    frames = np.moveaxis(frames, -3, -1)
    return frames[..., :3] if frames.shape[-1] >= 3 else frames[..., :1].repeat(3, axis=-1)


def enlarge(frames, scale):
    """RGB frames (..., height, width, 3), every pixel repeated scale x scale times."""
    return frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def caption(draw, place, text, color=INK):
    draw.text(place, text, color, ImageFont.load_default(FONT))


def save_sheet(path, rows, scale=1, gap=2, bars=None):
    """Save a PNG with one labelled row of frames for each entry of `rows`, in order.

    rows: {label: frames (n, channels, height, width)}; bars: {label: a color per frame}, drawn
    under them.
    """
    pictures = {label: enlarge(to_uint8(frames), scale) for label, frames in rows.items()}
    count = max(map(len, pictures.values()))
    height, width = next(iter(pictures.values())).shape[1:3]
    block = CAPTION + height + BAR + 2 * gap
    sheet = Image.new("RGB", (count * (width + gap) + gap, block * len(pictures)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for r, (label, frames) in enumerate(pictures.items()):
        caption(draw, (gap + 2, r * block + 1), label)
        for c, frame in enumerate(frames):
            x = gap + c * (width + gap)
            y = r * block + CAPTION
            sheet.paste(Image.fromarray(frame), (x, y))
            if bars and label in bars:
                bar = (x, y + height, x + width - 1, y + height + BAR - 1)
                draw.rectangle(bar, bars[label][c])
    with files.atomic_write(path) as tmp:
        sheet.save(tmp)


def save_comparison(path, truth, prediction, context, fps, scale):
    """Save truth beside prediction; a green border turns red where free running begins.

    truth: (T1, channels, height, width), prediction: (T, channels, height, width); where truth has
    ended it is blank. context: frames that were fed in. The suffix of `path` says what is saved:
    .gif, .mp4, or .png for a sheet of rows.
    """
    end = len(truth)
    prediction = to_uint8(prediction)  # (T, height, width, 3)
    blank = np.zeros((len(prediction) - end, *prediction.shape[1:]), np.uint8)
    truth = np.concatenate([to_uint8(truth), blank])
    colors = [PRIMED] * context + [FREE] * (len(prediction) - context)
    if Path(path).suffix == ".png":
        save_comparison_sheet(path, truth, prediction, colors, scale)
        return
    height = scale * truth.shape[1]
    width = scale * truth.shape[2]
    right = width + 2 * BORDER  # of the truth, where the border around the prediction follows
    size = (right + width + BORDER, CAPTION + height + 2 * BORDER)
    top = CAPTION + BORDER
    frames = []
    pairs = zip(enlarge(truth, scale), enlarge(prediction, scale), strict=True)
    for t, (true, predicted) in enumerate(pairs):
        frame = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(frame)
        caption(draw, (BORDER, 1), f"truth {t + 1}" if t < end else "truth ended")
        name = "primed" if t < context else f"free {t + 1 - context}"
        caption(draw, (right, 1), name, colors[t])
        draw.rectangle((right - BORDER, CAPTION, size[0] - 1, size[1] - 1), colors[t])
        frame.paste(Image.fromarray(true), (BORDER, top))
        frame.paste(Image.fromarray(predicted), (right, top))
        frames.append(np.asarray(frame))
    save_animation(path, frames, fps)


def save_comparison_sheet(path, truth, prediction, colors, scale):
    """Save a PNG of truth and prediction (T, height, width, 3) uint8, in rows of SHEET_COLUMNS."""
    rows = {}
    bars = {}
    for first in range(0, len(prediction), SHEET_COLUMNS):
        part = slice(first, first + SHEET_COLUMNS)
        legend = "" if first else "   green: primed, red: free-running"
        for name, frames in (("truth", truth), ("prediction", prediction)):
            label = f"{name} from frame {first + 1}{legend}"
            rows[label] = np.moveaxis(frames[part], -1, -3)  # (n, 3, height, width)
            bars[label] = colors[part]
    save_sheet(path, rows, scale, bars=bars)


def save_strips(path, videos, past, future, predictions):
    """Save a PNG of videos in rows: truth above predictions, which begin after the context.

    videos: their numbers (V,); past, future: (V, T, channels, height, width); predictions: {name:
    as future}.
    """
    rows = {}
    for i, v in enumerate(videos):
        truth = f"video {v}: {past.shape[1]} frames fed in, then the truth"
        rows[truth] = np.concatenate([past[i], future[i]])
        blank = np.ones_like(past[i])
        for name, frames in predictions.items():
            rows[f"video {v}: {name}"] = np.concatenate([blank, frames[i]])
    save_sheet(path, rows)


def save_curves(path, curves, title=""):
    """Plot {name: error of each frame ahead}, the errors' scale logarithmic."""
    legend_height = 0.18 * len(curves)  # inches
    figure = Figure(figsize=(8, 6 + legend_height), layout="constrained")
    axes = figure.subplots()
    lines = []
    styles = itertools.cycle(["-", "--", ":"])
    markers = [".", "x", "^"]  # another one where the ten colours begin again
    for i, (errors, style) in enumerate(zip(curves.values(), styles, strict=False)):
        marker = markers[i // 10 % len(markers)]
        lines += axes.plot(range(1, len(errors) + 1), errors, style, marker=marker, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="frames ahead", ylabel="squared error summed over a frame", yscale="log")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend = figure.legend(
        lines, [""] * len(lines), loc="outside lower left", frameon=False, fontsize="small"
    )
    for text, name in zip(legend.get_texts(), curves, strict=True):
        # A path is no markup: Matplotlib leaves out labels that begin with "_" and reads "$" as
        # mathematics.
        text.set_parse_math(False)
        text.set_text(name)
    with files.atomic_write(path) as tmp:
        figure.savefig(tmp, dpi=120)


def save_losses(path, history):
    """Plot the losses of a training by epoch, on a logarithmic scale if all are positive.

    history: a dict per epoch, with "valid_loss" and, unless it comes from elsewhere, "train_loss".
    A circle marks the best epoch.
    """
    train = [row.get("train_loss", np.nan) for row in history]
    valid = [row["valid_loss"] for row in history]
    epochs = range(1, len(history) + 1)
    best = int(np.argmin(valid))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, train, ".-", label="training")
    axes.plot(epochs, valid, ".-", label="validation")
    axes.plot(epochs[best], valid[best], "o", color="C1", label="best.pt")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="loss")
    if np.nanmin(train + valid) > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    with files.atomic_write(path) as tmp:
        figure.savefig(tmp, dpi=100)


def save_slots(path, frames, drawn, crops, true_paths, predicted_paths):
    """Save a PNG with a row per video: a frame, what each slot draws and sees of it, and its path.

    frames: (V, height, width); drawn: (V, slots, height, width); crops: (V, slots, size, size), all
    of about [0, 1]; paths: (V, slots, T, 2), rows and columns, px, from that frame on.
    """
    numbers = range(1, drawn.shape[1] + 1)
    columns = ["frame"]
    columns += [f"slot {k} draws" for k in numbers]
    columns += [f"slot {k} sees" for k in numbers]
    columns += ["true (line), predicted (dots)"]
    size = (2.2 * len(columns), 2.3 * len(frames))  # inches
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(frames), len(columns), squeeze=False)
    for v, row in enumerate(axes):
        dimmed = frames[v] / 3  # under the paths
        for ax, picture in zip(row, [frames[v], *drawn[v], *crops[v], dimmed], strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.axis("off")
        for k, color in zip(range(drawn.shape[1]), SLOT_COLORS, strict=False):
            true = true_paths[v, k]
            predicted = predicted_paths[v, k]
            row[-1].plot(true[:, 1], true[:, 0], color=color)
            row[-1].plot(predicted[:, 1], predicted[:, 0], "o", color=color, markersize=4)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize="small")
    with files.atomic_write(path) as tmp:
        figure.savefig(tmp, dpi=80, format="png")


def save_plain(path, frames, fps, scale):
    """Save frames (T, channels, height, width) alone: .gif, .mp4, or .png for one row."""
    frames = enlarge(to_uint8(frames), scale)
    if Path(path).suffix == ".png":
        with files.atomic_write(path) as tmp:
            Image.fromarray(np.concatenate(frames, axis=1)).save(tmp)
    else:
        save_animation(path, frames, fps)


def save_animation(path, frames, fps):
    """Save RGB frames (height, width, 3) uint8 as a looping .gif (see `gif_times`) or an .mp4."""
    frames = np.stack(frames)  # (T, height, width, 3)
    if Path(path).suffix == ".gif":
        shown, delays = gif_times(len(frames), fps)
        content = iio.imwrite(
            "<bytes>",
            frames[shown],
            extension=".gif",
            duration=delays if len(delays) > 1 else delays[0],
            loop=0,
        )
    else:
        height, width = frames.shape[1:3]
        to_even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
        frames = np.pad(frames, to_even, mode="edge")
        options = {"plugin": "pyav", "codec": "libx264", "fps": fps}
        content = iio.imwrite("<bytes>", frames, extension=".mp4", **options)
    with files.atomic_write(path) as tmp:
        tmp.write_bytes(content)


def gif_times(count, fps):
    """Which of `count` frames at `fps` a GIF shows, and each one's delay in ms.

    A GIF counts hundredths of a second: delays are rounded so that their sum keeps time. Viewers
    slow down delays below 20 ms: above GIF_RATE some frames are left out.
    """
    rate = min(fps, GIF_RATE)
    step = fps / rate  # 1 unless some are left out
    shown = (step * np.arange(max(round(count / step), 1))).astype(int)
    ticks = np.rint(100 / rate * np.arange(len(shown) + 1))
    return shown, (10 * np.diff(ticks)).tolist()
