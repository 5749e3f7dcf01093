"""Films and folders of pictures to small frames: decoded at a constant rate, cut into shots, split by time.

Nothing here holds more than a few frames: they go to a temporary file without a name beside the final one, which the
system frees even if the process is killed, and from there to HDF5 in pieces.
"""

import itertools
import math
import re
import tempfile
from array import array
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from tqdm import tqdm

from cli import UserError
from data import hdf5

PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
PICTURES_RATE = 24.0  # frames a second of a folder, which cannot say it
ROWS = 500  # frames copied at a time
SAMPLES = 16  # frames over the film in which black bars are looked for
BLACK = 24  # a bar's pixels are darker than this on average, of 255
MAX_PIXELS = 2**26  # of a frame, twice what 8K has: a small file may claim any number
MAX_ASPECT = 100  # long edge over short edge of a frame
FLOOR, RATIO, NEAR, DARK = 12, 2.5, 4, 12  # see `find_cuts`


@dataclass
class Film:
    """A film file or a folder of pictures, and what is taken from it.

    rate: frames a second on average; start, end: seconds after its first frame; first: the first frame's own time in
    seconds, None if the frames carry none; crop: left, top, width, height as shares of the frame; shape: (height,
    width) of the small frames; damaged: some of the file is missing or does not decode; frames: how many were kept.
    """

    path: Path
    pictures: list[Path]
    frame_size: int
    rate: float
    first: float | None = None
    start: float = 0.0
    end: float = math.inf
    pixel_aspect: float = 1.0
    crop: tuple = (0.0, 0.0, 1.0, 1.0)
    shape: tuple = ()
    damaged: bool = False
    frames: int = 0


def inspect(path, frame_size, fps=None, start=0.0, end=None, crop_bars=False):
    """The Film at `path`, its packets counted, no more than a few frames decoded.

    frame_size: short edge of the small frames in pixels; fps: the rate of a folder of pictures; start, end: seconds;
    crop_bars: leave out black bars. Raises UserError if there is nothing to see at `path` or none of it is selected.
    """
    path = Path(path)
    if path.is_dir():
        pictures = list_pictures(path)
        film = Film(path, pictures, frame_size, fps or PICTURES_RATE)
        film.end = len(pictures) / film.rate
    else:
        film = Film(path, [], frame_size, PICTURES_RATE)
        read_timeline(film)
    if start >= film.end:
        raise UserError(f"--start {start:g} is past the end of {path}, which lasts {film.end:.1f} seconds")
    film.start, film.end = start, min(film.end, end or math.inf)
    seen = next(frames_from(film, film.start), None)
    if seen is None:
        raise UserError(f"{path}: not one frame can be decoded; is it damaged?")
    if crop_bars:
        film.crop = find_bars(film)
    film.shape = small_shape(film, seen[1])
    if max(film.shape) > MAX_ASPECT * frame_size:
        raise UserError(f"{path} has frames more than {MAX_ASPECT} times as long as wide; is it damaged?")
    return film


def list_pictures(folder):
    """The pictures in `folder`, in natural order: frame2 before frame10. Raises UserError if there is none."""

    def natural(path):
        return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path.name)]

    found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    if not found:
        raise UserError(f"{folder} holds no pictures ({' '.join(sorted(PICTURES))}); name a film or another folder")
    return sorted(found, key=natural)


@contextmanager
def opened(path):
    """The container and the video stream of the file at `path`. Raises UserError if it has none."""
    try:
        with open(path, "rb") as file:
            if file.read(8).startswith((b"#EXTM3U", b"ffconcat")):  # ffmpeg would wait for a live one to go on
                raise UserError(f"{path} is a list of other files; name these one by one")
        # The prefix keeps a colon or a percent sign in a name from meaning a protocol or a series of files.
        container = av.open(f"file:{path}", metadata_errors="ignore")
    except FileNotFoundError:
        raise UserError(f"{path} is not there; name a film or a folder of pictures") from None
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read as a film ({error.strerror}); is it one, and whole?") from None
    with container:
        # Neither the cover of an album nor text, which ffmpeg would draw as on a terminal, is a film.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        streams = [s for s in streams if s.codec_context]  # none: ffmpeg does not know the codec
        if not streams or container.format.name == "tty":
            raise UserError(f"{path} has no video stream that ffmpeg can read; name a film or a folder of pictures")
        limit_pixels(streams[0])
        yield container, streams[0]


def limit_pixels(stream):
    """Have frames of more than MAX_PIXELS refused as damaged."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def packets(container, *streams):
    """The packets of a file as far as it can be read, and None at the end."""
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(*streams) if packet.size)
    yield None


def read_timeline(film):
    """Set the first time, end, rate, pixel aspect and damage of a film file by reading its packets, decoding none."""
    with opened(film.path) as (container, stream):
        count, times, reached = 0, [math.inf, -math.inf], -math.inf
        for packet in packets(container):
            if packet is None or packet.is_discard:
                continue
            film.damaged |= packet.is_corrupt
            count += packet.stream_index == stream.index
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                begin, until = float(time * packet.time_base), float((time + (packet.duration or 0)) * packet.time_base)
                reached = max(reached, until)
                if packet.stream_index == stream.index:
                    times = [min(times[0], begin), max(times[1], begin)]
        if not count:
            raise UserError(f"{film.path}: not one frame can be decoded; is it damaged?")
        rate, span = stream.average_rate, times[1] - times[0]
        if span > 0:
            film.first, film.rate = times[0], (count - 1) / span
        # The header knows better where times are rounded to milliseconds (24 frames a second would be 23.998), are
        # missing, or start over (on DVDs).
        if span <= 0 or (rate and (abs(rate / film.rate - 1) < 0.001 or film.rate > 1.2 * rate)):
            film.rate = float(rate or PICTURES_RATE)
            span = max(span, (count - 1) / film.rate)
        film.end = span + 1 / film.rate
        film.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        if container.duration is not None and math.isfinite(reached):
            film.damaged |= reached < ((container.start_time or 0) + container.duration) / 1e6 - 1


def frames_from(film, start):
    """Yield (seconds after the film's first frame, av.VideoFrame), from `start` or somewhat earlier."""
    if film.pictures:
        for i in range(int(start * film.rate), len(film.pictures)):
            yield i / film.rate, read_picture(film.pictures[i])
        return
    with opened(film.path) as (container, stream):
        stream.thread_type = "AUTO"  # by frame where the codec can, else by slice
        if start and film.first is not None:
            with suppress(av.FFmpegError):  # where it cannot be done, all before is read, too
                container.seek(int((film.first + start) / stream.time_base), stream=stream)
        before = None
        for packet in packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                film.damaged |= before is not None  # before the first frame, a seek may be what is wrong
                continue
            for frame in frames:
                timed = frame.pts is not None and film.first is not None
                time = float(frame.pts * stream.time_base) - film.first if timed else None
                # Raw streams carry no times, old AVI files and damaged ones wrong ones.
                if before is not None and (time is None or time <= before):
                    time = before + 1 / film.rate
                before = time or 0.0
                yield before, frame


def read_picture(path):
    """The picture at `path` as an av.VideoFrame. Raises UserError if it is none."""
    try:
        with open(path, "rb") as file, av.open(file, metadata_errors="ignore") as container:
            limit_pixels(container.streams.video[0])
            return next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError, AttributeError):  # of no codec context, the last
        raise UserError(f"{path} is no picture that ffmpeg can read; remove or replace it") from None


def sampled(film, rate):
    """Yield frames at `rate` a second from the film's start to its end.

    Each is what is on screen in the middle of its interval, which leaves half an interval for rounded times. Frames
    are repeated where the film has gaps.
    """
    count, done, shown, last = ticks(film, rate), 0, None, 0.0
    for time, frame in itertools.chain(frames_from(film, film.start), [(None, None)]):
        if frame is None:
            time = last + 1 / film.rate
        while shown is not None and done < count and film.start + (done + 0.5) / rate < time:
            yield shown
            done += 1
        if done == count:
            return
        shown, last = frame, time


def ticks(film, rate):
    """How many frames the film gives at `rate` a second."""
    return max(round((film.end - film.start) * rate), 1)


def stored_size(film, frame):
    """left, top, width, height of what is kept of a frame, in its own pixels."""
    left, top, width, height = film.crop
    return (
        round(left * frame.width),
        round(top * frame.height),
        max(round(width * frame.width), 1),
        max(round(height * frame.height), 1),
    )


def small_size(film, frame):
    """(width, height) of a small frame before it is turned upright: short edge `frame_size`, aspect ratio kept."""
    _, _, width, height = stored_size(film, frame)
    width *= film.pixel_aspect
    scale = film.frame_size / min(width, height)
    return round(width * scale), round(height * scale)


def small_shape(film, frame):
    """(height, width) of a small frame, upright."""
    width, height = small_size(film, frame)
    return (width, height) if quarter_turns(frame) % 2 else (height, width)


def quarter_turns(frame):
    """How many quarter turns counter-clockwise set the frame upright."""
    return round(frame.rotation / 90) % 4


def shrinker(film):
    """A function from av.VideoFrame to (3, height, width) uint8 RGB: cropped, area-averaged, upright, alpha on black.

    It raises UserError if a frame has another shape than the film's first.
    """
    graphs = {}

    def shrink(frame):
        shape = small_shape(film, frame)
        if shape != film.shape:
            raise UserError(
                f"{film.path}: the pictures change their shape, from {film.shape[1]}x{film.shape[0]} to "
                f"{shape[1]}x{shape[0]} when made small; give the parts one by one"
            )
        key = frame.width, frame.height, frame.format.name
        if key not in graphs:
            graphs[key] = filter_graph(film, frame)
        graphs[key].push(frame)
        small = np.rot90(graphs[key].pull().to_ndarray(), quarter_turns(frame))
        return np.ascontiguousarray(small.transpose(2, 0, 1))

    return shrink


def filter_graph(film, frame):
    """ffmpeg's filters that crop, flatten and shrink frames like this one."""
    left, top, width, height = stored_size(film, frame)
    small_width, small_height = small_size(film, frame)
    steps = [("crop", f"{width}:{height}:{left}:{top}:exact=1")]
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        steps += [("format", "gbrap"), ("premultiply", "inplace=1")]
    # Without the second flag swscale halves the colours' width once more.
    steps += [("scale", f"{small_width}:{small_height}:flags=area+full_chroma_int"), ("format", "rgb24")]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1))
    nodes = [graph.add(name, options) for name, options in steps]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    return graph


def find_bars(film):
    """The film without its black bars: left, top, width, height as shares of the frame.

    A row or column is a bar if it is black in each of SAMPLES frames spread over the film.
    """
    brightest = 0
    for i in range(SAMPLES):
        seen = next(frames_from(film, film.start + (film.end - film.start) * i / SAMPLES), None)
        grey = seen[1].to_ndarray(format="gray") if seen else 0
        # of a film that changes its size on the way, only what comes first counts
        if np.ndim(brightest) == 0 or np.shape(grey) == brightest.shape:
            brightest = np.maximum(brightest, grey)
    height, width = brightest.shape
    rows = np.flatnonzero(brightest.mean(1) > BLACK)
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(brightest[top:bottom].mean(0) > BLACK)
    left, right = columns[0], columns[-1] + 1
    return left / width, top / height, (right - left) / width, (bottom - top) / height


def common_rate(films, fps=None):
    """Frames a second to take from all films: `fps`, or the average rate of the slowest, which it must not exceed.

    Raises UserError if it does: repeated frames would teach that the world stands still.
    """
    slowest = min(films, key=lambda film: film.rate)
    if fps and fps > slowest.rate * 1.005:  # 30 stands for 29.97
        raise UserError(f"--fps {fps:g}: {slowest.path} has {slowest.rate:.4g} frames a second; give at most that")
    return min(fps or math.inf, slowest.rate)


def common_shape(films):
    """(height, width) of the small frames of all films. Raises UserError if they differ."""
    for film in films:
        if film.shape != films[0].shape:
            (h0, w0), (h, w) = films[0].shape, film.shape
            raise UserError(
                f"made small, {films[0].path} is {w0}x{h0} and {film.path} is {w}x{h}: "
                "one file holds one size, so give each film its own --dest, or try --crop_bars"
            )
    return films[0].shape


def write_films(dest, films, rate, shares, detect_cuts, min_frames, attributes):
    """Write the small frames of `films` and the bounds of their shots, each split's films one after the other.

    rate: frames a second; shares: three whole numbers, the parts of train, valid and test; min_frames: shorter shots
    are dropped; attributes: what the file says about itself. Sets each film's `frames` and `damaged`.
    Returns {split: (frames, shots)}. Raises UserError if a film is too short for each split to have a video.
    """
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    videos, shape = {split: [] for split in hdf5.SPLITS}, (3, *films[0].shape)
    with tempfile.TemporaryFile(dir=Path(dest).parent) as file:
        first = 0
        for film in films:
            differences, brightness = decode(film, rate, file)
            film.frames = len(differences)
            raw = np.memmap(file, np.uint8, "r", shape=(first + film.frames, *shape))
            cuts = find_cuts(raw[first:], differences, brightness) if detect_cuts else []
            spans = divide(film.frames, cuts, shares, math.ceil(rate), min_frames)
            if any(share and not spans[split] for split, share in zip(hdf5.SPLITS, shares, strict=True)):
                raise UserError(
                    f"{film.path} is too short: {film.frames} frames with {len(cuts)} cuts do not give each split "
                    f"a shot of {min_frames} frames; take more of it, a longer film, or another --split"
                )
            for split in hdf5.SPLITS:
                videos[split] += [(first + a, first + b) for a, b in spans[split]]
            first += film.frames
        with hdf5.create(dest, "frames", attributes) as target:
            copy(raw, videos, target)
    return {split: (sum(b - a for a, b in spans), len(spans)) for split, spans in videos.items()}


def decode(film, rate, file):
    """Append a film's small frames to the open binary `file`; return two numbers of each, as arrays (N,).

    They are its absolute difference from the frame before it (of the first: 0) and its brightness, means over pixels
    and colours, 0 to 255.
    """
    shrink, before, differences, brightness = shrinker(film), None, array("d"), array("d")
    progress = {"total": ticks(film, rate), "desc": film.path.name, "unit": "frame", "disable": None}
    for frame in tqdm(sampled(film, rate), **progress):
        small = shrink(frame)
        file.write(small)
        differences.append(0.0 if before is None else difference(small, before))
        brightness.append(small.mean())
        before = small
    file.flush()
    return np.array(differences), np.array(brightness)


def difference(a, b):
    """Mean absolute difference of two frames."""
    return np.abs(np.subtract(a, b, dtype=np.int16)).mean()


def find_cuts(frames, differences, brightness):
    """The numbers of the frames with which a new shot begins.

    frames: (N, 3, height, width) uint8; differences, brightness: (N,), see `decode`.
    A cut stands out: its difference is at least FLOOR, and RATIO times the second largest among the NEAR differences
    on either side. Pans, shakes and slow or repeated frames have rivals beside them; the largest is left out of
    account so that a second cut close by hides nothing. It lasts: no picture from before it returns within NEAR frames,
    as after a flash. A fade through black is cut in the middle of the frames darker than DARK on average (by
    PySceneDetect's threshold). Dissolves and wipes are missed (their shots stay in one video), so are cuts between two
    similar pictures and shots of fewer than NEAR frames.
    """
    cuts = []
    for k in np.flatnonzero(differences >= FLOOR):
        beside = np.sort(np.r_[differences[max(k - NEAR, 1) : k], differences[k + 1 : k + 1 + NEAR], 0, 0])
        back = [difference(frames[k - 1], frame) for frame in frames[k + 1 : k + 1 + NEAR]]
        back += [difference(frames[k], frame) for frame in frames[max(k - 1 - NEAR, 0) : k - 1]]
        if differences[k] >= RATIO * beside[-2] and all(other > differences[k] / 2 for other in back):
            cuts.append(int(k))
    # where dark frames begin, and where they end
    edges = np.flatnonzero(np.diff(brightness < DARK, prepend=False, append=False))
    fades = [int(a + b) // 2 for a, b in edges.reshape(-1, 2) if a > 0 and b < len(frames)]
    return sorted({*cuts, *fades})


def divide(length, cuts, shares, gap, min_frames):
    """Split a film: {split: [(first frame, frame after the last), ...]}, one pair a shot, in time order.

    length: the film's frames; cuts: frames that begin a shot; shares: three whole numbers. The bounds between the
    splits are the cuts nearest to the shares. With fewer shots than splits the shares are of time alone, with
    `gap` frames left out between one split and the next. Shots of less than `min_frames` are dropped.
    """
    shots = [(a, b) for a, b in itertools.pairwise([0, *cuts, length]) if b - a >= min_frames]
    wanted = [share > 0 for share in shares]
    so_far = [part / sum(shares) for part in itertools.accumulate(shares, initial=0)]
    if len(shots) >= sum(wanted):
        edges = np.array([a for a, _ in shots] + [length])
        valid = nearest(edges, length * so_far[1], wanted[0], len(shots) - wanted[1] - wanted[2])
        test = nearest(edges, length * so_far[2], valid + wanted[1], len(shots) - wanted[2])
        parts = shots[:valid], shots[valid:test], shots[test:]
        return dict(zip(hdf5.SPLITS, parts, strict=True))
    bounds = [round(max(length - gap * (sum(wanted) - 1), 0) * share) for share in so_far]
    spans, skipped = {}, 0
    for split, first, last in zip(hdf5.SPLITS, bounds, bounds[1:], strict=False):
        inside = [(max(a, first + skipped), min(b, last + skipped)) for a, b in shots]
        spans[split] = [(a, b) for a, b in inside if b - a >= min_frames]
        skipped += gap if last > first else 0
    return spans


def nearest(edges, frame, low, high):
    """The index, `low` to `high`, of the edge nearest to `frame`."""
    return low + int(np.abs(edges[low : high + 1] - frame).argmin())


def copy(raw, videos, target):
    """Copy the frames of `videos` ({split: [(first, after last), ...]}) from the array `raw` into an HDF5 file."""
    total = sum(b - a for spans in videos.values() for a, b in spans)
    with tqdm(total=total, desc="writing", unit="frame", disable=None) as progress:
        for split, spans in videos.items():
            group = target.create_group(split)
            starts = np.cumsum([0] + [b - a for a, b in spans], dtype=np.int64)
            group["starts"] = starts
            frames = group.create_dataset("frames", (starts[-1], *raw.shape[1:]), np.uint8)
            for (first, last), at in zip(spans, starts, strict=False):
                for a in range(first, last, ROWS):
                    b = min(a + ROWS, last)
                    frames[at + a - first : at + b - first] = raw[a:b]
                    progress.update(b - a)
