#!/usr/bin/env python
"""The HTTP service: POST an image, get its scores and boxes as JSON."""
from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from _cli import ROOT, add_device, parser, positive, recipes, run

EXAMPLES = """\
  python tools/serve.py                                                 # http://localhost:8000, described at /docs
  curl --data-binary @image.png "http://localhost:8000/predict?name=image.png\""""


def arguments() -> argparse.Namespace:
    main = parser("An HTTP service for other programs: POST /predict takes an image file as the body and answers with\n"
                  "the manifest of `cam.py --json`; GET /models, /health, /docs. It does not ask callers who they\n"
                  "are, so by default it listens on this machine alone: before opening it to a network, put a proxy\n"
                  "in front of it that does ask.", EXAMPLES)
    main.add_argument("--host", default="localhost", help="address to listen on (default: %(default)s)")
    main.add_argument("--port", type=positive, default=8000, help="port to listen on (default: %(default)s)")
    main.add_argument("--ckpt_dir", type=Path, action="append", metavar="FOLDER",
                      help="folder to take checkpoints from, with its subfolders; may be given several times "
                           "(default: pretrained_models and output)")
    add_device(main)
    return main.parse_args()


def main(args: argparse.Namespace) -> None:
    from cxr.errors import InputError
    try:
        import uvicorn

        from cxr.serving.http_api import make_api
    except ModuleNotFoundError as missing:
        raise InputError(f"the service needs {missing.name}: run `pip install -e .[serve]`.") from None
    from cxr.serving.service import Limits, Service

    folders = args.ckpt_dir or [ROOT / "pretrained_models", ROOT / "output", Path("output").resolve()]
    service = Service(recipes(), folders, Limits(waiting=14))     # each holds its image in memory
    if not service.catalogue.scan()[0]:
        raise InputError(f"there is no checkpoint below {' or '.join(map(str, folders))}: train one with "
                         "`python tools/demo.py`, or name a folder with --ckpt_dir.")
    # uvicorn raises the signal once more when it has stopped; unhandled, that would leave temporary files behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    uvicorn.run(make_api(service), host=args.host, port=args.port)


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args), device=args.device)
