"""Pictures of frames: labelled sheets, and truth beside prediction as GIF, MP4 or PNG."""

import itertools
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from runtime import files

INK, PAPER = (40, 40, 40), (255, 255, 255)
PRIMED, FREE = (
    (46, 125, 50),
    (198, 40, 40),
)  # green while the truth is fed in, red from where it is not
CAPTION = 18  # px
SHEET_COLUMNS = 15


def to_uint8(frames):
    """Frames (..., channels, height, width), float in [0, 1] or uint8, as RGB (..., height, width, 3) uint8.

    One or two channels: the first as grey. Three or more: the first three as red, green and blue.
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
    draw.text(place, text, color, ImageFont.load_default(13))


def save_sheet(path, rows, scale=1, gap=2, bars=None):
    """Save a PNG with one labelled row of frames for each entry of `rows`, in order.

    rows: {label: frames (n, channels, height, width)}; bars: {label: colors, one for each frame},
    drawn under them.
    """
    pictures = {label: enlarge(to_uint8(frames), scale) for label, frames in rows.items()}
    count = max(map(len, pictures.values()))
    height, width = next(iter(pictures.values())).shape[1:3]
    block = CAPTION + height + 4 + 2 * gap
    sheet = Image.new("RGB", (count * (width + gap) + gap, block * len(pictures)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for r, (label, frames) in enumerate(pictures.items()):
        caption(draw, (gap + 2, r * block + 1), label)
        for c, frame in enumerate(frames):
            x, y = gap + c * (width + gap), r * block + CAPTION
            sheet.paste(Image.fromarray(frame), (x, y))
            if bars and label in bars:
                draw.rectangle((x, y + height, x + width - 1, y + height + 3), bars[label][c])
    with files.atomic_write(path) as partial:
        sheet.save(partial)


def save_comparison(path, truth, prediction, prime, fps, scale):
    """Save truth beside prediction; a green frame turns red where free running begins.

    truth: (T1, channels, height, width), prediction: (T, channels, height, width); where truth has
    ended it is blank. prime: frames that were fed in. The suffix of `path` says what is saved:
    .gif, .mp4, or .png for a sheet of rows.
    """
    blank = np.zeros((len(prediction) - len(truth), *to_uint8(prediction).shape[1:]), np.uint8)
    truth, prediction = np.concatenate([to_uint8(truth), blank]), to_uint8(prediction)
    colors = [PRIMED] * prime + [FREE] * (len(prediction) - prime)
    if Path(path).suffix == ".png":
        rows, bars = {}, {}
        for first in range(0, len(prediction), SHEET_COLUMNS):
            part = slice(first, first + SHEET_COLUMNS)
            for name, frames in (("truth", truth), ("prediction", prediction)):
                label = f"{name} from frame {first + 1}" + (
                    "" if first else "   green: primed, red: free-running"
                )
                rows[label], bars[label] = np.moveaxis(frames[part], -1, -3), colors[part]
        save_sheet(path, rows, scale, bars=bars)
        return
    height, width = scale * truth.shape[1], scale * truth.shape[2]
    frames = []
    for t, (left, right) in enumerate(
        zip(enlarge(truth, scale), enlarge(prediction, scale), strict=True)
    ):
        frame = Image.new("RGB", (2 * width + 12, height + CAPTION + 8), PAPER)
        draw = ImageDraw.Draw(frame)
        caption(draw, (4, 1), f"truth {t + 1}" if t < len(truth) - len(blank) else "truth ended")
        caption(draw, (width + 8, 1), "primed" if t < prime else f"free {t + 1 - prime}", colors[t])
        draw.rectangle((width + 4, CAPTION, 2 * width + 11, CAPTION + height + 7), colors[t])
        frame.paste(Image.fromarray(left), (4, CAPTION + 4))
        frame.paste(Image.fromarray(right), (width + 8, CAPTION + 4))
        frames.append(np.asarray(frame))
    save_animation(path, frames, fps)


def save_strips(path, videos, past, future, predictions):
    """Save a PNG of videos in rows: truth above predictions, which begin where the truth is no longer fed in.

    videos: their numbers (V,); past, future: (V, T, channels, height, width); predictions: {name:
    as future}.
    """
    rows = {}
    for i, v in enumerate(videos):
        rows[f"video {v}: {past.shape[1]} frames fed in, then the truth"] = np.concatenate(
            [past[i], future[i]]
        )
        for name, frames in predictions.items():
            rows[f"video {v}: {name}"] = np.concatenate([np.ones_like(past[i]), frames[i]])
    save_sheet(path, rows)


def save_curves(path, curves):
    """Plot {name: error of each frame ahead}, the errors' scale logarithmic."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    lines = []
    for errors, style in zip(curves.values(), itertools.cycle(["-", "--", ":"]), strict=False):
        lines += axes.plot(range(1, len(errors) + 1), errors, style, marker=".")
    axes.set(xlabel="frames ahead", ylabel="squared error summed over a frame", yscale="log")
    axes.grid(alpha=0.3)
    legend = figure.legend(
        lines, [""] * len(lines), loc="outside lower left", frameon=False, fontsize="small"
    )
    for text, name in zip(legend.get_texts(), curves, strict=True):
        # A path is no markup: Matplotlib leaves out labels that begin with "_" and reads "$" as
        # mathematics.
        text.set_parse_math(False)
        text.set_text(name)
    with files.atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)


def save_slots(path, frames, drawn, crops, seen_paths, predicted_paths):
    """Save a PNG with a row for each video: a frame, what each slot draws and sees of it, and where it goes.

    frames: (V, height, width); drawn: (V, slots, height, width); crops: (V, slots, size, size), all
    of about [0, 1]; paths: (V, slots, T, 2), rows and columns, px, from that frame on.
    """
    slots = drawn.shape[1]
    columns = ["frame"] + [f"slot {k} draws" for k in range(1, slots + 1)]
    columns += [f"slot {k} sees" for k in range(1, slots + 1)] + ["seen (line), predicted (dots)"]
    figure = Figure(figsize=(2.2 * len(columns), 2.3 * len(frames)), layout="constrained")
    axes = figure.subplots(len(frames), len(columns), squeeze=False)
    for v, row in enumerate(axes):
        for ax, picture in zip(row, [frames[v], *drawn[v], *crops[v], frames[v] / 3], strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.axis("off")
        for color, seen, predicted in zip(
            ("C1", "C0", "C2", "C3"), seen_paths[v], predicted_paths[v], strict=False
        ):
            row[-1].plot(seen[:, 1], seen[:, 0], color=color)
            row[-1].plot(predicted[:, 1], predicted[:, 0], "o", color=color, markersize=4)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize="small")
    with files.atomic_write(path) as partial:
        figure.savefig(partial, dpi=80, format="png")


def save_plain(path, frames, fps, scale):
    """Save frames (T, channels, height, width) and nothing else: .gif, .mp4, or .png for one row."""
    frames = enlarge(to_uint8(frames), scale)
    if Path(path).suffix == ".png":
        with files.atomic_write(path) as partial:
            Image.fromarray(np.concatenate(frames, axis=1)).save(partial)
    else:
        save_animation(path, frames, fps)


def save_animation(path, frames, fps):
    """Save RGB frames (height, width, 3) uint8 as a looping .gif, as of `gif_times`, or an .mp4."""
    frames = np.stack(frames)
    if Path(path).suffix == ".gif":
        shown, delays = gif_times(len(frames), fps)
        content = iio.imwrite("<bytes>", frames[shown], extension=".gif", duration=delays, loop=0)
    else:
        frames = np.pad(
            frames,
            ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)),
            mode="edge",
        )
        content = iio.imwrite(
            "<bytes>", frames, extension=".mp4", plugin="pyav", codec="libx264", fps=fps
        )
    with files.atomic_write(path) as partial:
        partial.write_bytes(content)


def gif_times(count, fps):
    """Which of `count` frames at `fps` a GIF shows, and each one's delay in ms.

    A GIF counts hundredths of a second: delays are rounded so that their sum keeps time. Viewers
    slow down delays below 20 ms: above 50 frames per second some are left out.
    """
    rate = min(fps, 50)
    step = fps / rate  # 1 unless some are left out
    shown = (step * np.arange(max(round(count / step), 1))).astype(int)
    ticks = np.rint(100 / rate * np.arange(len(shown) + 1))
    return shown, (10 * np.diff(ticks)).tolist()
