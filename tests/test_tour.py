"""The notebook: committed as it ran, and it runs."""

import json
import re

import pytest
from conftest import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(TOUR.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
MAX_SIZE = 1.5e6  # bytes, pictures included


def kinds(cells):
    """What each cell of code put out, in order."""
    return [[output["output_type"] for output in cell["outputs"]] for cell in cells]


def test_it_was_committed_as_it_ran():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    found = {kind for cell in kinds(CODE) for kind in cell}
    assert found == {"execute_result", "display_data"}  # neither errors nor warnings
    assert TOUR.stat().st_size < MAX_SIZE


def test_its_links_lead_somewhere():
    text = "".join(line for cell in CELLS for line in cell["source"])
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert [link for link in links if not (TOUR.parent / link).exists()] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's packages
def test_it_runs():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(TOUR, as_version=4)
    place = {"metadata": {"path": TOUR.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert kinds(ran) == kinds(CODE)
