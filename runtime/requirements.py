"""Does this Python have the packages of requirements.txt, and are they new enough?

`python -m runtime.requirements` tells in one line what is not met, with exit code 1.
"""

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from runtime.errors import UserError

FILE = Path(__file__).parent.parent / "requirements.txt"


def unmet():
    """Yield (requirement, installed version or None) for each line of FILE that is not met."""
    for line in FILE.read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield requirement, version


def check_versions():
    """Raise UserError if the version of a package is none that FILE allows.

    A package that is missing is left to the import that needs it.
    """
    for requirement, version in unmet():
        if version is not None:
            package = f"{requirement.name} {version} is installed, {requirement} is needed"
            raise UserError(f"{package}: pip install -r requirements.txt")


if __name__ == "__main__":
    told = [f"{requirement} (has {version or 'none'})" for requirement, version in unmet()]
    sys.exit(", ".join(told) or None)
