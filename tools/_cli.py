"""What the commands share: the recipes there are, and how errors reach the user. Imports nothing heavy."""
from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))                      # so that `python tools/train.py` works from a bare checkout


def fail(message: str) -> int:
    """Print one sentence to standard error and return the exit status for bad input."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return 2


def missing(error: ImportError) -> str:
    """A sentence for a package that cannot be imported, with the line to type."""
    if "libGL" in str(error) or "libgthread" in str(error) or "libglib" in str(error):
        return (f"OpenCV lacks a library of the system ({error}): as root `apt-get install libgl1 libglib2.0-0`; "
                "without root `pip uninstall opencv-python` and `pip install \"opencv-python-headless<4.12\"`, which "
                "does without it.")
    if error.name == "paddle":
        return (f"Paddle is not installed for {sys.executable}: run `pip install -r requirements.txt`, or activate the "
                "environment that has it; for a GPU newer than 2022 see the table in README.")
    if isinstance(error, ModuleNotFoundError):
        return (f"the package {error.name} is not installed for {sys.executable}: activate the virtual environment, or "
                "run `pip install -r requirements.txt` (`python tools/install.py` where there is a Paddle already).")
    return f"a package cannot be loaded ({error}): run `python tools/doctor.py`, which tells what is installed."


try:
    from cxr.errors import InputError
    from cxr.inference import ENGINES, PRECISIONS
    from cxr.models.recipe import Recipe
except ImportError as error:
    sys.exit(fail(missing(error)))


def recipes() -> dict[str, Recipe]:
    """Every recipe of every folder beside `tools/` that holds a `recipe.py`."""
    modules = (import_module(f"{path.parent.name}.recipe") for path in sorted(ROOT.glob("*/recipe.py")))
    return {recipe.name: recipe for module in modules for recipe in module.RECIPES}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the examples."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=110)


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A command's parser, with a description of what it does and examples to copy."""
    return argparse.ArgumentParser(description=description, epilog=f"examples:\n{examples}\n\n{STATUS}",
                                   formatter_class=Formatter)


def recipe_parsers(main: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """One sub-command for each recipe: `train.py chexnet ...`."""
    sub = main.add_subparsers(dest="recipe", metavar="MODEL", required=True, title="models")
    return {name: sub.add_parser(name, help=recipe.summary, description=f"{main.description}\n\n{recipe.summary}.",
                                 epilog=main.epilog, formatter_class=Formatter)
            for name, recipe in recipes().items()}


def add_engine(sub: argparse.ArgumentParser) -> None:
    """The flags `--engine` and `--precision`."""
    sub.add_argument("--engine", choices=ENGINES, default="auto",
                     help="what runs the network: OpenVINO (`pip install openvino`), Paddle Inference with oneDNN, "
                          "compiled or plain Paddle; auto takes the fastest that is installed (default: %(default)s)")
    sub.add_argument("--precision", choices=PRECISIONS, default="float32",
                     help="a lower precision is faster where the processor supports it, but changes the scores; by "
                          "how much is measured and printed (default: %(default)s)")


def add_device(sub: argparse.ArgumentParser) -> None:
    """The flag `--device`."""
    sub.add_argument("--device", metavar="auto|cpu|gpu|gpu:N",
                     help="what computes: auto takes the first GPU that a check of a few seconds finds to compute "
                          "correctly (the verdict is kept), otherwise the CPU, and says why; tools/doctor.py tells "
                          "more (default: CXR_DEVICE, or auto)")


STATUS = "exit status: 0 done, 2 bad input (one sentence says which file and what to do), 130 interrupted."


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def not_negative(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def run(command: Callable[[], int | None], paddle: bool = True, device: str | None = "cpu") -> None:
    """Run a command's body and exit: bad input and full disks get a sentence, Ctrl-C a word, no traceback.

    Args:
        command: the body; returns the exit status, None for 0.
        paddle: False for a body that does without Paddle, and so starts at once.
        device: what --device was given, None for its default; commands without that flag compute next to nothing, and
            do that on the CPU.
    """
    warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
    try:
        if paddle:
            from cxr.device import use
            from cxr.runtime import load_paddle
            load_paddle()
            use(device)
        status = command() or 0
    except InputError as error:
        status = fail(str(error))
    except ImportError as error:
        status = fail(missing(error))
    except BrokenPipeError:                        # `| head` closed the pipe: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (OSError, RuntimeError, SystemError, MemoryError) as error:
        status = fail(failed(error))
    except KeyboardInterrupt as stop:
        print(f"interrupted {stop}".rstrip(), file=sys.stderr)
        status = 130
    sys.exit(status)


def failed(error: Exception) -> str:
    """A sentence for a file or a device that failed while the work went on.

    Raises:
        Exception: the error itself, if it is about neither.
    """
    if isinstance(error, OSError) and error.errno is not None:           # Paddle raises errors of that name, too
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))       # Windows knows no quota
        remedy = "free some space" if full else "check the path and permissions"
        return f"{error.filename or 'a file'} cannot be read or written ({error.strerror}): {remedy}."
    from cxr.device import chosen
    from cxr.device.sentences import failure

    sentence = failure(error, str(chosen() or "the device"))
    if sentence is None:
        raise error
    return sentence


def writable(folder: Path) -> Path:
    """Make the folder that results go to, before the work begins rather than after it.

    Returns:
        The folder.

    Raises:
        InputError: if it cannot be written to.
    """
    from cxr.utils.distributed import rank
    from cxr.utils.files import replacing
    if rank() > 0:
        return folder
    try:
        with replacing(folder / ".writable"):
            pass
        (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another --save_dir.") from None
    return folder
