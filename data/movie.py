"""Films, animations and folders of pictures to small frames.

They are decoded at a constant rate, set upright, averaged and cropped. Nothing here holds more than
a few frames.
"""

import itertools
import math
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.stream import Disposition

from data import hdf5, stills
from runtime.errors import UserError

PICTURES_RATE = 24.0  # frames per second where nothing says it: of folders of pictures, of pages
PROBED = 12  # frames decoded where a file contradicts itself about its rate
SAMPLES = 16  # frames over the film in which black bars are looked for
BLACK = 24  # a bar's pixels are darker than this on average, of 255
MAX_ASPECT = 100  # long edge over short edge of a frame
TOLERANCE = 1.005  # of a rate: 30 stands for 29.97
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
LISTS = (b"#EXTM3U", b"ffconcat")  # how lists of other files begin


@dataclass
class Film:
    """A film, an animation or a folder of pictures, and what is taken from it.

    Given:
    kind             "film" (ffmpeg reads it), "animation" (Pillow reads it) or "pictures"
    root             the folder that was named and holds it
    named            whether it was named itself
    split            where all of it goes, None if it is to be divided

    Set by `inspect` and by what reads the film:
    cover            (height, width) that a small frame fills and, along one edge, may overhang
    default_rate     frames per second of pictures without times
    rate             frames per second on average
    start, end       seconds after the first frame
    first            the first frame's own time in seconds, None if the frames carry none
    pixel_aspect     width of a pixel over its height
    crop             left, top, width, height as fractions of the stored frame
    shape            (height, width) of the small frames before `shrinker` crops them
    damaged          some of the file is missing or does not decode
    frames, shots    how many were taken, and kept
    problem          why no shot was kept, if not for being short
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
    problem: str = ""


def inspect(film, cover, fps=None, start=0.0, end=None, crop_bars=False):
    """Find out what there is of a film.

    Packets are counted, of animations all frames; few others are decoded. cover: as in Film; fps:
    the rate of pictures without times; start, end: seconds; crop_bars: leave out black bars. Raises
    UserError if there is nothing to see or none of it is selected.
    """
    film.cover = cover
    film.default_rate = fps or PICTURES_RATE
    if film.kind == "pictures":
        film.rate = film.default_rate
        film.end = len(list_pictures(film.path)) / film.rate
    elif film.kind == "animation":
        seconds = [duration for duration, _ in played(film)]
        usual = float(np.median(seconds))
        film.rate = 1 / usual
        # Many hold their last picture for long.
        film.end = sum(seconds[:-1]) + min(seconds[-1], usual)
    else:
        read_timeline(film)
    slowest, fastest = hdf5.ATTRIBUTES["frame_rate"]
    if not slowest <= film.rate <= fastest:
        raise UserError(f"{film.path} claims {film.rate:.3g} frames per second; is it damaged?")
    if start >= film.end:
        raise UserError(
            f"--start {start:g} is past the end of {film.path}, which lasts {film.end:.1f} seconds"
        )
    film.start = start
    film.end = min(film.end, end or math.inf)
    frame = first_frame(film, film.start)
    if frame is None and film.kind == "pictures":
        stills.read(list_pictures(film.path)[0])  # says why it cannot be read
    if frame is None:
        raise UserError(f"{film.path}: not one frame can be decoded; is it damaged?")
    if crop_bars:
        film.crop = find_bars(film)
    film.shape = small_shape(film, frame)
    if max(film.shape) > MAX_ASPECT * min(film.shape):
        raise UserError(
            f"{film.path} has frames more than {MAX_ASPECT} times as long as wide; is it damaged?"
        )


def first_frame(film, start):
    """The first av.VideoFrame from `start` seconds on, or a bit earlier; None if none decodes."""
    for _, frame in frames_from(film, start):
        return frame
    return None


def natural(path):
    """A key to sort by: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdecimal() else part.lower() for part in parts], path.name


def list_pictures(folder):
    """The still pictures in `folder`, in natural order."""
    found = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in stills.SUFFIXES and not p.name.startswith(".")
    ]
    return [p for p in sorted(found, key=natural) if p.is_file() and not stills.is_animation(p)]


@contextmanager
def open_film(path):
    """The container and the video stream of the file at `path`. Raises UserError if it has none."""
    try:
        with open(path, "rb") as file:
            if file.read(8).startswith(LISTS):  # ffmpeg would wait for a live one to go on
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
            f"{path} cannot be read as a film ({error.strerror}); is it a complete one?"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    with container:
        # Neither the cover of an album nor text, which ffmpeg would draw as on a terminal, is a
        # film.
        streams = [
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        streams = [s for s in streams if s.codec_context]  # none: ffmpeg does not know the codec
        if not streams or container.format.name == "tty":
            raise UserError(
                f"{path} has no video stream that ffmpeg can read; name a film, or a folder of "
                "films or pictures"
            )
        stream = max(streams, key=lambda s: s.frames)  # beside a film there may be a still of it
        # Larger frames do not decode.
        stream.codec_context.options = {"max_pixels": str(stills.MAX_PIXELS)}
        yield container, stream


def packets(container, *streams):
    """The packets of a file as far as it can be read, and None at the end."""
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(*streams) if packet.size)
    yield None


@dataclass
class Timeline:
    """What the packets of a film file say about its times, in seconds.

    count: packets of the video; first, last: when its first and last begin; reached: the latest end
    of any packet, sound included; untimed: a packet has no time; starts_over: times go back, as on
    DVDs.
    """

    count: int = 0
    first: float = math.inf
    last: float = -math.inf
    reached: float = -math.inf
    untimed: bool = False
    starts_over: bool = False

    @property
    def span(self):
        return self.last - self.first


def read_timeline(film):
    """Set a film file's first time, end, rate, pixel aspect and damage by reading its packets.

    The packets know the rate better than the header. But their times may be missing, start over, or
    be rounded to milliseconds (24 frames per second would be 23.998); and two packets may be one
    frame (interlaced television).
    """
    with open_film(film.path) as (container, stream):
        times = read_times(film, container, stream)
        if not times.count:
            raise UserError(f"{film.path}: not one frame can be decoded; is it damaged?")
        header = float(stream.average_rate or 0)
        film.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        if container.duration is not None and math.isfinite(times.reached):
            # Some containers count their duration from time 0 (Matroska), others from the first
            # frame.
            duration = container.duration / av.time_base
            offset = (container.start_time or 0) / av.time_base
            film.damaged |= times.reached < min(duration, offset + duration) - 1
    span = times.span
    unreliable = span <= 0 or times.untimed or times.starts_over
    use_header = True
    if span > 0:
        film.first = times.first
        film.rate = (times.count - 1) / span
        rounded = abs(header / film.rate - 1) < 0.001
        too_many = film.rate > 1.2 * header > 0
        use_header = rounded or (too_many and (unreliable or frames_are_pairs(film)))
    if use_header:
        film.rate = header or PICTURES_RATE
    if unreliable:
        span = max(span, (times.count - 1) / film.rate)
    film.end = span + 1 / film.rate


def read_times(film, container, stream):
    """The `Timeline` of an open film file. Sets film.damaged at a damaged packet."""
    times = Timeline()
    previous = -math.inf
    for packet in packets(container):
        if packet is None or packet.is_discard:
            continue
        film.damaged |= packet.is_corrupt
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            until = float((time + (packet.duration or 0)) * packet.time_base)
            times.reached = max(times.reached, until)
        if packet.stream_index != stream.index:
            continue
        times.count += 1
        if time is None:
            times.untimed = True
        else:
            begin = float(time * packet.time_base)
            times.first = min(times.first, begin)
            times.last = max(times.last, begin)
        if packet.dts is not None:
            times.starts_over |= packet.dts < previous
            previous = packet.dts
    return times


def frames_are_pairs(film):
    """Whether the film's first frames last as long as two packets, or longer."""
    times = [time for time, _ in itertools.islice(frames_from(film, 0), PROBED)]
    if len(times) < 2:
        return False
    mean = (times[-1] - times[0]) / (len(times) - 1)
    return mean > 1.5 / film.rate


def frames_from(film, start):
    """Yield (seconds after the first frame, av.VideoFrame), from `start` or somewhat earlier."""
    if film.kind == "film":
        frames = decoded(film, start)
        first = next(frames, None)
        if first is None:  # some formats cannot be sought in
            frames = decoded(film, 0.0)
        else:
            yield first
        yield from frames
    elif film.kind == "animation":
        time = 0.0
        for seconds, picture in played(film):
            if time + seconds > start:
                yield time, as_frame(picture)
            time += seconds
    else:
        pictures = list_pictures(film.path)
        first = min(int(start * film.rate), len(pictures) - 1)
        for i in range(first, len(pictures)):
            try:
                picture = stills.read(pictures[i])
            except UserError:
                film.damaged = True  # one of many: the rest of it is good
                continue
            yield i / film.rate, as_frame(picture)


def as_frame(picture):
    """An upright picture (height, width, 3) uint8 as ffmpeg's filters take it."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def played(film):
    """Yield (seconds on screen, picture) of an animation, as far as it can be read."""
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
    """Yield (seconds after the first frame, av.VideoFrame) of a file, from `start` or earlier."""
    with open_film(film.path) as (container, stream):
        stream.thread_type = "AUTO"  # by frame where the codec can, else by slice
        if start and film.first is not None:
            with suppress(av.FFmpegError):  # if it fails, all of the film is read
                container.seek(int((film.first + start) / stream.time_base), stream=stream)
        previous = None
        for packet in packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                film.damaged |= previous is not None  # else the seek may be to blame
                continue
            for frame in frames:
                time = None
                if frame.pts is not None and film.first is not None:
                    time = float(frame.pts * stream.time_base) - film.first
                # Raw streams carry no times, old AVI files and damaged ones wrong ones.
                if previous is not None and (time is None or time <= previous):
                    time = previous + 1 / film.rate
                previous = time or 0.0
                yield previous, frame


def sampled(film, rate):
    """Yield frames at `rate` per second from the film's start to its end.

    Each is what is on screen in the middle of its interval, which leaves half an interval for
    rounded times. Frames are repeated where the film has gaps. However short the selection, there
    is one: the frame with which it begins.
    """
    count = ticks(film, rate)
    done = 0
    on_screen = None
    last = 0.0
    for time, frame in itertools.chain(frames_from(film, film.start), [(None, None)]):
        if frame is None:  # the end
            time = last + 1 / film.rate
        while on_screen is not None and done < count and film.start + (done + 0.5) / rate < time:
            yield on_screen
            done += 1
        if done == count:
            return
        if frame is None and not done and on_screen is not None:
            yield on_screen
        on_screen = frame
        last = time


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
    """(width, height) of a small frame before it is turned upright.

    It fills `cover`, and keeps the aspect ratio.
    """
    _, _, width, height = stored_size(film, frame)
    width *= film.pixel_aspect
    fill_height, fill_width = film.cover
    if turns(frame).transpose:
        fill_height, fill_width = film.cover[::-1]
    scale = max(fill_width / width, fill_height / height)
    return max(round(width * scale), fill_width), max(round(height * scale), fill_height)


def small_shape(film, frame):
    """(height, width) of a small frame, upright."""
    width, height = small_size(film, frame)
    return (width, height) if turns(frame).transpose else (height, width)


class Turns(NamedTuple):
    """What sets a frame upright, in this order."""

    transpose: bool
    mirror: bool  # left to right
    flip: bool  # top to bottom


def turns(frame):
    """The `Turns` of a frame.

    Up to a shift, a pixel stored at (x, y) belongs at (a x + c y, b x + d y).
    """
    matrix = (1, 0, 0, 1)
    try:
        for data in frame.side_data:
            if data.type == Type.DISPLAYMATRIX:
                a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(int).tolist()
                matrix = (a, b, c, d)
    except (
        ValueError
    ):  # PyAV stumbles over data of unknown kinds; it knows the angle, but no mirrors
        angle = math.radians(frame.rotation)
        matrix = (math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        return Turns(True, c < 0, b < 0)
    return Turns(False, a < 0, d < 0)


def shrinker(film, shape):
    """A function from av.VideoFrame to uint8 of `shape`: (channels, height, width), RGB or grey.

    Frames are averaged over the area of each small pixel, transparency on black, set upright and
    cropped around the centre. It raises UserError if a frame made small is smaller than `shape`.
    """
    channels, target_height, target_width = shape
    graphs = {}  # by the size and format of the frames that they take

    def shrink(frame):
        height, width = small_shape(film, frame)
        top = (height - target_height) // 2
        left = (width - target_width) // 2
        if top < 0 or left < 0:
            raise UserError(
                f"{film.path}: the pictures change their shape, from "
                f"{film.shape[1]}x{film.shape[0]} to {width}x{height} when made small; "
                f"give --shape {target_width}x{target_height}, which all can be cropped to"
            )
        key = (frame.width, frame.height, frame.format.name)
        if key not in graphs:
            graphs[key] = filter_graph(film, frame)
        graphs[key].push(frame)
        small = graphs[key].pull().to_ndarray()  # (stored height, stored width, 3)
        turned = turns(frame)
        if turned.transpose:
            small = small.swapaxes(0, 1)
        if turned.mirror:
            small = small[:, ::-1]
        if turned.flip:
            small = small[::-1]
        small = small[top : top + target_height, left : left + target_width]
        if channels == 1:
            small = np.rint(small @ LUMA).astype(np.uint8)[..., None]  # (height, width, 1)
        return np.ascontiguousarray(small.transpose(2, 0, 1))  # (channels, height, width)

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
    """The film without its black bars: left, top, width, height as fractions of the frame.

    A row or column is a bar if it is black in each of SAMPLES frames spread over the film.
    """
    brightest = None
    for i in range(SAMPLES):
        frame = first_frame(film, film.start + (film.end - film.start) * i / SAMPLES)
        if frame is None:
            continue
        grey = frame.to_ndarray(format="gray")  # (height, width)
        if brightest is None:
            brightest = grey
        elif grey.shape == brightest.shape:  # if the size changes, only the first counts
            brightest = np.maximum(brightest, grey)
    height, width = brightest.shape
    rows = np.flatnonzero(brightest.mean(1) > BLACK)
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    top = rows[0]
    bottom = rows[-1] + 1
    columns = np.flatnonzero(brightest[top:bottom].mean(0) > BLACK)
    if not len(columns):  # two bright lines far apart
        return 0.0, 0.0, 1.0, 1.0
    left = columns[0]
    right = columns[-1] + 1
    return left / width, top / height, (right - left) / width, (bottom - top) / height


def common_rate(films, fps=None):
    """The frame rate at which all films are sampled: `fps`, or the rate of the slowest film.

    Raises UserError if `fps` is higher: repeated frames would teach that the world stands still.
    """
    slowest = min(films, key=lambda film: film.rate)
    if fps and fps > slowest.rate * TOLERANCE:
        raise UserError(
            f"--fps {fps:g}: {slowest.path} has {slowest.rate:.4g} frames per second; give at most "
            "that"
        )
    return min(fps or math.inf, slowest.rate)


def common_shape(films):
    """(height, width) that all films' small frames can be cropped to: the least of each."""
    return min(film.shape[0] for film in films), min(film.shape[1] for film in films)
