"""Films, animations and folders of pictures to small frames: decoded at a constant rate, upright, averaged, cropped.

Nothing here holds more than a few frames.
"""

import itertools
import math
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.stream import Disposition

from data import hdf5, stills
from runtime.errors import UserError

PICTURES_RATE = 24.0  # frames a second where nothing says it: of folders of pictures, of pages
PROBED = 12  # frames decoded where a file contradicts itself about its rate
SAMPLES = 16  # frames over the film in which black bars are looked for
BLACK = 24  # a bar's pixels are darker than this on average, of 255
MAX_ASPECT = 100  # long edge over short edge of a frame
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)


@dataclass
class Film:
    """A film, an animation or a folder of pictures, and what is taken from it.

    kind: "film" (ffmpeg reads it), "animation" (Pillow reads it) or "pictures"; root: the folder
    that was named and holds it; named: it was named itself; split: where all of it goes, None if it
    is to be divided. `inspect` and what reads the film set the rest.

    cover: (height, width) that a small frame fills and, along one edge, may overhang; default_rate:
    frames a second of pictures without times; rate: frames a second on average; start, end: seconds
    after the first frame; first: the first frame's own time in seconds, None if the frames carry
    none; crop: left, top, width, height as shares of the stored frame; shape: (height, width) of
    the small frames before `shrinker` crops them; damaged: some of the file is missing or does not
    decode; frames: how many were taken; shots: how many shots were kept.
    """

    path: Path
    kind: str = "film"
    root: Path = Path()
    named: bool = True
    split: str | None = None
    cover: tuple = (64, 64)
    default_rate: float = PICTURES_RATE
    rate: float = PICTURES_RATE
    first: float | None = None
    start: float = 0.0
    end: float = math.inf
    pixel_aspect: float = 1.0
    crop: tuple = (0.0, 0.0, 1.0, 1.0)
    shape: tuple = ()
    damaged: bool = False
    frames: int = 0
    shots: int = 0


def inspect(film, cover, fps=None, start=0.0, end=None, crop_bars=False):
    """Find out what there is of a film: packets are counted, of animations all frames; few others are decoded.

    cover: as of Film; fps: the rate of pictures without times; start, end: seconds; crop_bars:
    leave out black bars. Raises UserError if there is nothing to see or none of it is selected.
    """
    film.cover, film.default_rate = cover, fps or PICTURES_RATE
    if film.kind == "pictures":
        film.rate = film.default_rate
        film.end = len(list_pictures(film.path)) / film.rate
    elif film.kind == "animation":
        seconds = [duration for duration, _ in played(film)]
        film.end = sum(seconds)
        film.rate = len(seconds) / film.end
    else:
        read_timeline(film)
    if not hdf5.ATTRIBUTES["frame_rate"][0] <= film.rate <= hdf5.ATTRIBUTES["frame_rate"][1]:
        raise UserError(f"{film.path} claims {film.rate:.3g} frames a second; is it damaged?")
    if start >= film.end:
        raise UserError(
            f"--start {start:g} is past the end of {film.path}, which lasts {film.end:.1f} seconds"
        )
    film.start, film.end = start, min(film.end, end or math.inf)
    seen = next(frames_from(film, film.start), None)
    if seen is None:
        raise UserError(f"{film.path}: not one frame can be decoded; is it damaged?")
    if crop_bars:
        film.crop = find_bars(film)
    film.shape = small_shape(film, seen[1])
    if max(film.shape) > MAX_ASPECT * min(film.shape):
        raise UserError(
            f"{film.path} has frames more than {MAX_ASPECT} times as long as wide; is it damaged?"
        )


def natural(path):
    """A key to sort by: frame2 before frame10."""
    return [
        int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path.name)
    ]


def list_pictures(folder):
    """The still pictures in `folder`, in natural order."""
    found = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in stills.SUFFIXES and not p.name.startswith(".")
    ]
    return [p for p in sorted(found, key=natural) if p.is_file() and not stills.is_animation(p)]


@contextmanager
def opened(path):
    """The container and the video stream of the file at `path`. Raises UserError if it has none."""
    try:
        with open(path, "rb") as file:
            if file.read(8).startswith(
                (b"#EXTM3U", b"ffconcat")
            ):  # ffmpeg would wait for a live one to go on
                raise UserError(f"{path} is a list of other files; name these one by one")
        # The prefix keeps a colon or a percent sign in a name from meaning a protocol or a series
        # of files.
        container = av.open(f"file:{path}", metadata_errors="ignore")
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there; name a film, or a folder of films or pictures"
        ) from None
    except av.FFmpegError as error:
        raise UserError(
            f"{path} cannot be read as a film ({error.strerror}); is it one, and whole?"
        ) from None
    with container:
        # Neither the cover of an album nor text, which ffmpeg would draw as on a terminal, is a
        # film.
        streams = [
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        streams = [s for s in streams if s.codec_context]  # none: ffmpeg does not know the codec
        if not streams or container.format.name == "tty":
            raise UserError(
                f"{path} has no video stream that ffmpeg can read; name a film, or a folder of films or pictures"
            )
        stream = max(streams, key=lambda s: s.frames)  # beside a film there may be a still of it
        stream.codec_context.options = {
            "max_pixels": str(stills.MAX_PIXELS)
        }  # larger frames do not decode
        yield container, stream


def packets(container, *streams):
    """The packets of a file as far as it can be read, and None at the end."""
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(*streams) if packet.size)
    yield None


def read_timeline(film):
    """Set the first time, end, rate, pixel aspect and damage of a film file by reading its packets."""
    with opened(film.path) as (container, stream):
        count, untimed, starts_over, before = 0, False, False, -math.inf
        first, last, reached = math.inf, -math.inf, -math.inf
        for packet in packets(container):
            if packet is None or packet.is_discard:
                continue
            film.damaged |= packet.is_corrupt
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                begin, until = (
                    float(time * packet.time_base),
                    float((time + (packet.duration or 0)) * packet.time_base),
                )
                reached = max(reached, until)
            if packet.stream_index != stream.index:
                continue
            count += 1
            untimed |= time is None
            if time is not None:
                first, last = min(first, begin), max(last, begin)
            if packet.dts is not None:
                starts_over |= packet.dts < before
                before = packet.dts
        if not count:
            raise UserError(f"{film.path}: not one frame can be decoded; is it damaged?")
        header, span = float(stream.average_rate or 0), last - first
        film.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        if container.duration is not None and math.isfinite(reached):
            # Some containers count their duration from time 0 (Matroska), others from the first
            # frame.
            duration, offset = container.duration / 1e6, (container.start_time or 0) / 1e6
            film.damaged |= reached < min(duration, offset + duration) - 1
    # The packets know the rate better than the header. But their times may be missing, start over
    # (on DVDs), or be rounded to milliseconds (24 frames a second would be 23.998); and two may be
    # one frame (interlaced television).
    unreliable = span <= 0 or untimed or starts_over
    if span > 0:
        film.first, film.rate = first, (count - 1) / span
        rounded = abs(header / film.rate - 1) < 0.001
        too_many = film.rate > 1.2 * header > 0 and (unreliable or frames_are_pairs(film))
    if span <= 0 or rounded or too_many:
        film.rate = header or PICTURES_RATE
    if unreliable:
        span = max(span, (count - 1) / film.rate)
    film.end = span + 1 / film.rate


def frames_are_pairs(film):
    """Whether the film's first frames last as long as two packets, or longer."""
    times = [time for time, _ in itertools.islice(frames_from(film, 0), PROBED)]
    return len(times) > 1 and (times[-1] - times[0]) / (len(times) - 1) > 1.5 / film.rate


def frames_from(film, start):
    """Yield (seconds after the film's first frame, av.VideoFrame), from `start` or somewhat earlier."""
    if film.kind == "film":
        yield from decoded(film, start)
    elif film.kind == "animation":
        time = 0.0
        for seconds, picture in played(film):
            if time + seconds > start:
                yield time, as_frame(picture)
            time += seconds
    else:
        pictures = list_pictures(film.path)
        for i in range(min(int(start * film.rate), len(pictures) - 1), len(pictures)):
            try:
                picture = stills.read(pictures[i])
            except UserError:
                if film.named:
                    raise
                film.damaged = True  # one of many: the rest of it is good
                continue
            yield i / film.rate, as_frame(picture)


def as_frame(picture):
    """An upright picture (height, width, 3) uint8 as ffmpeg's filters take it."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def played(film):
    """Yield (seconds on screen, picture) for each frame of an animation, as far as it can be read."""
    started = False
    try:
        for seconds, picture in stills.frames(film.path):
            yield seconds or 1 / film.default_rate, picture
            started = True
    except UserError:
        if not started:
            raise
        film.damaged = True


def decoded(film, start):
    """Yield (seconds after the film's first frame, av.VideoFrame) for a film file, from `start` or earlier."""
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
                film.damaged |= (
                    before is not None
                )  # before the first frame, a seek may be what is wrong
                continue
            for frame in frames:
                timed = frame.pts is not None and film.first is not None
                time = float(frame.pts * stream.time_base) - film.first if timed else None
                # Raw streams carry no times, old AVI files and damaged ones wrong ones.
                if before is not None and (time is None or time <= before):
                    time = before + 1 / film.rate
                before = time or 0.0
                yield before, frame


def sampled(film, rate):
    """Yield frames at `rate` a second from the film's start to its end.

    Each is what is on screen in the middle of its interval, which leaves half an interval for
    rounded times. Frames are repeated where the film has gaps. However short the selection, there
    is one: the frame with which it begins.
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
        if frame is None and not done and shown is not None:
            yield shown
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
    """(width, height) of a small frame before it is turned upright: `cover` is filled, the aspect ratio kept."""
    _, _, width, height = stored_size(film, frame)
    width *= film.pixel_aspect
    fill_height, fill_width = reversed(film.cover) if turns(frame)[0] else film.cover
    scale = max(fill_width / width, fill_height / height)
    return max(round(width * scale), fill_width), max(round(height * scale), fill_height)


def small_shape(film, frame):
    """(height, width) of a small frame, upright."""
    width, height = small_size(film, frame)
    return (width, height) if turns(frame)[0] else (height, width)


def turns(frame):
    """What sets a frame upright: whether to exchange rows and columns, to mirror left to right, and top to bottom.

    It is done in this order. A pixel at (x, y) of the stored frame belongs at (a x + c y, b x + d
    y), but for a shift.
    """
    a, b, c, d = 1, 0, 0, 1
    try:
        for data in frame.side_data:
            if data.type == Type.DISPLAYMATRIX:
                a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(int).tolist()
    except (
        ValueError
    ):  # PyAV stumbles over kinds of data that it does not know; it knows the angle, but no mirrors
        angle = math.radians(frame.rotation)
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    if abs(a) + abs(d) < abs(b) + abs(c):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def shrinker(film, shape):
    """A function from av.VideoFrame to uint8 of `shape`: (channels, height, width), RGB or grey.

    Frames are averaged over the area of each small pixel, transparency on black, set upright and
    cropped around the centre. It raises UserError if a frame made small is smaller than `shape`.
    """
    graphs, (channels, *target) = {}, shape

    def shrink(frame):
        height, width = small_shape(film, frame)
        top, left = (height - target[0]) // 2, (width - target[1]) // 2
        if top < 0 or left < 0:
            raise UserError(
                f"{film.path}: the pictures change their shape, from {film.shape[1]}x{film.shape[0]} to "
                f"{width}x{height} when made small; give --shape {target[1]}x{target[0]}, which all can be cropped to"
            )
        key = frame.width, frame.height, frame.format.name
        if key not in graphs:
            graphs[key] = filter_graph(film, frame)
        graphs[key].push(frame)
        small = graphs[key].pull().to_ndarray()  # (stored height, stored width, 3)
        transpose, mirror, flip = turns(frame)
        if transpose:
            small = small.swapaxes(0, 1)
        if mirror:
            small = small[:, ::-1]
        if flip:
            small = small[::-1]
        small = small[top : top + target[0], left : left + target[1]]
        if channels == 1:
            small = np.rint(small @ LUMA).astype(np.uint8)[..., None]
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
    steps += [
        ("scale", f"{small_width}:{small_height}:flags=area+full_chroma_int"),
        ("format", "rgb24"),
    ]
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1)
    )
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
        raise UserError(
            f"--fps {fps:g}: {slowest.path} has {slowest.rate:.4g} frames a second; give at most that"
        )
    return min(fps or math.inf, slowest.rate)


def common_shape(films):
    """(height, width) that all films' small frames can be cropped to: the narrowest of their shapes."""
    return min(film.shape[0] for film in films), min(film.shape[1] for film in films)
