"""Which films there are in the files and folders that were named, and which split each goes to.

A folder is searched with all folders in it, hidden ones aside, in natural order (2 before 10). The
still pictures of one folder, in natural order, are one film. Each file of a film or an animation
(GIF, PNG, WebP, AVIF or TIFF of several frames) is one. Where a folder itself holds both stills and
films, the fewer of them are passed over: posters beside films, a preview beside frames.
"""

import math
import os
from pathlib import Path

from tqdm import tqdm

from data import hdf5, stills
from data.movie import Film, inspect, list_pictures, natural, open_film, ticks
from data.shots import divide
from runtime.errors import UserError

TOLD = 5  # damaged films, named one by one
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
}  # of folders, in any case
SPLIT_NAMES |= dict.fromkeys(("valid", "val", "validation", "dev"), "valid")
MANY = 20  # films; from this number on, whole films are dealt to the splits
# What often lies beside films and is none: passed over without a word, where other files that are
# none are told.
NO_FILMS = {
    ".ass", ".csv", ".db", ".flac", ".gz", ".h5", ".hdf5", ".html", ".ini", ".ipynb", ".json",
    ".jsonl", ".log", ".m4a", ".mat", ".md", ".mp3", ".npy", ".npz", ".ogg", ".pdf", ".pkl", ".pt",
    ".py", ".rar", ".sh", ".srt", ".tar", ".tsv", ".txt", ".vtt", ".wav", ".xml", ".yaml", ".yml",
    ".zip",
}  # fmt: skip


def find(paths):
    """The films in `paths`, each once, and sentences about files in folders that are passed over.

    Raises UserError if there is nothing at a path, or no film in it.
    """
    films = {}
    passed = []
    folders = set()
    for path in map(Path, paths):
        if path.is_dir():
            found = list(search(path, path, folders, passed))
            known = any(real(path) in place.parents or real(path) == place for place in films)
            if not found and not known:
                raise UserError(
                    f"{path} holds no pictures and no films; name another folder, or a film"
                )
        else:
            kind = kind_of(path)
            found = [Film(path, kind, path.parent)]
            if kind == "animation" and path.exists() and not stills.is_animation(path):
                stills.read(path)  # which says if it is none
                raise UserError(f"{path} is a single picture: name the folder that holds its film")
        for film in found:
            films.setdefault(real(film.path), film)
    return list(films.values()), passed


def kind_of(path):
    return "animation" if path.suffix.lower() in stills.SUFFIXES else "film"


def search(folder, root, folders, passed):
    """Yield the films in `folder` and all folders in it.

    Not those in `folders`, which were searched before: links may lead back.
    """
    if real(folder) in folders:
        return
    folders.add(real(folder))
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        visible.sort(key=natural)
        pictures = list_pictures(folder)
    except OSError as error:
        if folder == root:
            raise UserError(f"{folder} cannot be read: {error.strerror}") from None
        passed.append(f"{folder} cannot be read: {error.strerror}")
        return
    still = set(pictures)
    films = []
    for path in visible:
        if path.is_file() and path not in still and path.suffix.lower() not in NO_FILMS:
            films.append(Film(path, kind_of(path), root, named=False))
    if pictures:
        films = [film for film in films if film.kind == "animation" or is_film(film.path)]
        if len(films) < len(pictures):
            passed += [f"{film.path} lies beside more pictures than films" for film in films]
            films = [Film(folder, "pictures", root, named=folder == root)]
        else:
            passed += [f"{path} is a picture beside films" for path in pictures]
    yield from films
    for path in visible:
        if path.is_dir():
            yield from search(path, root, folders, passed)


def real(path):
    """Where a path leads.

    (Path.resolve raises an error of its own at links that lead to themselves.)
    """
    return Path(os.path.realpath(path))


def is_film(path):
    """Whether ffmpeg finds a film in a file."""
    try:
        with open_film(path):
            return True
    except UserError:
        return False


def inspect_all(films, passed, min_frames, cover, fps, start, end, crop_bars):
    """Those of `films` that can be read and give at least `min_frames` frames, inspected.

    `passed` is extended by sentences about the others. The other arguments are those of `inspect`.
    Raises UserError if none is left, or if one cannot be read that was named itself.
    """
    usable = []
    for film in tqdm(films, desc="looking at films", unit="film", disable=None):
        try:
            inspect(film, cover, fps, start, end, crop_bars)
        except UserError as error:
            if film.named:
                raise
            passed.append(str(error))
            continue
        frames = ticks(film, min(fps or math.inf, film.rate))
        if frames < min_frames:
            passed.append(
                f"{film.path} is too short: {frames} frames, fewer than --min_frames {min_frames}"
            )
        else:
            usable.append(film)
    if not usable:
        others = "" if len(films) == 1 else f"; none of the {len(films)} films can be used"
        raise UserError(passed[-1] + others)
    return usable


def read_list(path, films):
    """Set the split of each film that the list at `path` names; return these films.

    Its lines are `train PATH`, `valid PATH` or `test PATH`, with paths relative to a folder that
    was named or to the list's own. Empty lines and those that begin with # are comments. Raises
    UserError if a line is none of these, or if its path is no film or in two splits.
    """
    places = {film.root for film in films} | {Path(path).parent}
    by_path = {real(film.path): film for film in films}
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            split, _, name = line.strip().replace("\t", " ", 1).partition(" ")
            name = name.strip()
            if "\0" in line:
                raise UserError(f"{path} is no text in UTF-8; save it as that")
            if not split or split.startswith("#"):
                continue
            if split not in hdf5.SPLITS or not name:
                raise UserError(
                    f"{path}, line {number}: {line.strip():.80} is not train, valid or test, and a "
                    "path"
                )
            found = {real(place / name) for place in places} & by_path.keys()
            if not found:
                raise UserError(f"{where}: {name:.200} is none of the {len(films)} films found")
            for film in map(by_path.get, found):
                if film.split not in (None, split):
                    raise UserError(
                        f"{where}: {name:.200} is in {film.split} already; delete one line"
                    )
                film.split = split
    listed = [film for film in films if film.split]
    if not listed:
        raise UserError(f"{path} names no film; its lines are such as: train walking/person01.avi")
    return listed


def choose_splits(films, split_by, shares, rate, min_frames):
    """Set the split of each film, unless films are divided; return "folder", "film" or "shot".

    split_by: how it is chosen, one of these or "auto", see `best_way`; shares: three integers;
    min_frames: as for `divide`; rate: frames per second. Raises UserError if it cannot be done.
    """
    if split_by == "auto":
        folders = {split_folder(film) for film in films}
        wanted = [split for split, share in zip(hdf5.SPLITS, shares, strict=True) if share]
        spans = [
            divide(ticks(film, rate), [], shares, math.ceil(rate), min_frames) for film in films
        ]
        short = sum(not all(parts[split] for split in wanted) for parts in spans)
        if len(folders) > 1 and None not in folders:
            split_by = "folder"
        elif len(films) >= MANY or (len(films) >= len(wanted) and 2 * short > len(films)):
            split_by = "film"
        else:
            split_by = "shot"
    if split_by == "folder":
        for film in films:
            film.split = split_folder(film)
            if film.split is None:
                raise UserError(
                    f"--split_by folder: {film.path} is in none of the folders "
                    f"{', '.join(SPLIT_NAMES)}"
                )
    elif split_by == "film":
        deal(films, shares)
    return split_by


def split_folder(film):
    """The split that one of the folders above the film names, or None.

    The search goes from the folder that was named on the command line down.
    """
    folder = film.path if film.kind == "pictures" else film.path.parent
    names = [film.root.absolute().name, *folder.relative_to(film.root).parts]
    return next((SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES), None)


def deal(films, shares):
    """Set the split of each film, with every split spread evenly over the films in their order.

    So each split has its part of every class, where classes are folders. It is the same in every
    run. shares: three integers, the parts of train, valid and test. Raises UserError if there are
    fewer films than splits with a share.
    """
    wanted = sum(share > 0 for share in shares)
    if len(films) < wanted:
        raise UserError(
            f"--split_by film: {wanted} splits have shares of --split, and there are {len(films)} "
            "films: give more"
        )
    counts = films_per_split(len(films), shares)
    given = [0, 0, 0]
    for i, film in enumerate(films, 1):
        due = [count * i / len(films) - has for count, has in zip(counts, given, strict=True)]
        k = due.index(max(due))
        given[k] += 1
        film.split = hdf5.SPLITS[k]


def films_per_split(total, shares):
    """Three counts that sum to `total`, near the shares; at least one where there is a share."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [max(int(part), share > 0) for part, share in zip(exact, shares, strict=True)]
    while sum(counts) < total:  # rounding left some: they go where they are missed most
        missing = [part - count for part, count in zip(exact, counts, strict=True)]
        counts[missing.index(max(missing))] += 1
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    return counts


def report(films, passed, left_out, shape):
    """Print which films were not taken, or not in full.

    passed: as of `find`; left_out: how many films the list does not name; shape: (height, width).
    """
    if passed:
        print(f"passed over: {len(passed)}; the first: {passed[0]}")
    if left_out:
        print(f"not in the list, and left out: {left_out}")
    if cropped := [film for film in films if film.shape != shape]:
        size = f"{shape[1]}x{shape[0]}"
        print(f"cropped around the centre to {size}: {len(cropped)} of {len(films)} films")
    if empty := [film for film in films if not film.shots]:
        print(
            f"dropped: {len(empty)}; the first: "
            f"{empty[0].problem or f'{empty[0].path} is too short for a shot'}"
        )
    damaged = [film for film in films if film.damaged]
    for film in damaged[:TOLD]:
        print(f"{film.path} is damaged or cut short: the {film.frames} frames that decode are kept")
    if len(damaged) > TOLD:
        print(f"so are {len(damaged) - TOLD} others")
    if films[0].split:
        counts = {split: sum(film.split == split for film in films) for split in hdf5.SPLITS}
        print(f"films: {', '.join(f'{count} {split}' for split, count in counts.items())}")
