"""Run the notebooks from top to bottom in fresh kernels and store them as they are committed.

    pip install -e .[test]
    python notebooks/build.py                     # all four, about two minutes each
    python notebooks/build.py cam_methods         # one of them

What depends on the run or the machine is left out: standard error, timings, the versions of the kernel. `CXR_DATA` is
hidden from the notebooks, so that only pictures of phantoms are committed; where the AI Studio folders exist, this
command refuses to run.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
NAMES = ("chexnet_cam", "covid_resnet_gradcam", "cam_methods", "pneumonia_transfer_cam")
SECONDS = 1800                                   # for a cell, on a slow machine


def execute(path: Path, short: bool = False) -> NotebookNode:
    """Run a notebook in its own folder, on phantoms.

    Args:
        path: the notebook.
        short: whether to be done in seconds, with results that mean nothing.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: for a cell that fails, with its traceback.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    environment = {name: value for name, value in os.environ.items() if name not in ("CXR_DATA", "CXR_SHORT")}
    # The kernel of this very Python, also where none or another is registered under that name.
    manager = KernelManager(kernel_name="python3")
    manager._kernel_spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                                      display_name="Python 3", language="python")
    client = NotebookClient(notebook, km=manager, timeout=SECONDS, resources={"metadata": {"path": str(path.parent)}})
    try:
        client.execute(env={**environment, **({"CXR_SHORT": "1"} if short else {})})
    finally:
        if manager.has_kernel:                   # nbclient leaves a manager that it was given alone
            manager.shutdown_kernel(now=True)
    return notebook


def clean(notebook: NotebookNode) -> None:
    """Leave in `notebook` nothing that another run or another machine would write differently without need."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            kept = []
            for output in (output for output in cell.outputs if output.get("name") != "stderr"):
                if "data" in output:
                    output.data.pop("text/plain", None)      # `<IPython.core.display.Image object>`
                if kept and output.output_type == kept[-1].output_type == "stream":
                    kept[-1].text += output.text             # where what was printed is cut depends on the moment
                else:
                    kept.append(output)
            cell.outputs = [output for output in kept if output.get("data") != {}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"notebooks to run, of {', '.join(NAMES)} (default: all)")
    names = parser.parse_args().names or NAMES
    if any(Path("/home/aistudio", place).exists() for place in ("dataset", "work/dataset", "data")):
        parser.error("the AI Studio data is here, and its X-rays would be committed: run this on another machine")
    try:
        import ipykernel  # noqa: F401  the kernel that nbclient starts
        import nbclient  # noqa: F401
        import nbformat
    except ImportError as error:
        parser.error(f"the package {error.name} is missing: pip install -e .[test]")
    for name in names:
        path = FOLDER / f"{name.removesuffix('.ipynb')}.ipynb"
        notebook = execute(path)
        clean(notebook)
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
