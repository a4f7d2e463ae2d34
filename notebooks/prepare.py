"""What the notebooks begin with: install what is missing, fetch weights if asked to, load Paddle without its noise,
and choose a device that computes right."""
from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("cxr", "cv2", "prettytable", "tqdm", "filelock", "sklearn", "PIL", "matplotlib", "scipy",
          "platformdirs", "jinja2")


def missing() -> str:
    """Why one of the packages cannot be imported; empty if all can."""
    if importlib.util.find_spec("paddle") is None:           # not imported: `cxr` must come first
        return "No module named 'paddle'"
    try:
        for name in NEEDED:
            importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return ""


def run(tool: str, *arguments: str) -> None:
    """Run a command of tools/ and print what it says here, where a notebook shows it.

    Raises:
        RuntimeError: if it fails.
    """
    command = [sys.executable, str(ROOT / "tools" / tool), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"tools/{tool} ended with status {process.returncode}: see what it says above.")


def prepare(fetch: str = "") -> None:
    """Have everything that a notebook needs. Paddle must not have been imported before.

    Args:
        fetch: published weights to have as well, by the name of their file.

    Raises:
        RuntimeError: if something cannot be had.
    """
    if missing():
        run("install.py")
        importlib.invalidate_caches()
        if why := missing():
            raise RuntimeError(f"tools/install.py is done and yet: {why}. Restart the kernel and run this cell again.")
    if fetch:
        run("fetch_weights.py", fetch)
    from cxr.device import use
    from cxr.runtime import load_paddle
    load_paddle()
    use()
