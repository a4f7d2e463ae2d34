#!/usr/bin/env python
"""Fetch published weights."""
from __future__ import annotations

import argparse
from pathlib import Path

from _cli import parser, recipes, run

EXAMPLES = """\
  python tools/fetch_weights.py --list
  python tools/fetch_weights.py model_paddle.pdparams
  python tools/fetch_weights.py model.pth.tar && \\
      python tools/convert.py chexnet pretrained_models/model.pth.tar pretrained_models/model.pdparams"""


def arguments() -> argparse.Namespace:
    main = parser("Fetch published weights into pretrained_models/: from a pinned commit, at most 100 MiB each, and\n"
                  "verified before they get their names. An interrupted download goes on where it stopped. A proxy is\n"
                  "taken from HTTPS_PROXY.", EXAMPLES)
    main.add_argument("names", nargs="*", metavar="NAME", help="files to fetch, as --list names them")
    main.add_argument("--list", action="store_true",
                      help="print which files there are, and whether each is here and intact")
    main.add_argument("--save_dir", type=Path, metavar="FOLDER",
                      help="folder for the files (default: pretrained_models)")
    main.add_argument("--server", metavar="URL", help="mirror with the same paths as raw.githubusercontent.com")
    main.add_argument("--overwrite", action="store_true", help="replace files that have these names but other content")
    return main.parse_args()


def main(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from cxr.errors import InputError
    from cxr.weights.download import SERVER, fetch

    offered = [download for recipe in recipes().values() for download in recipe.downloads]
    if args.save_dir:
        offered = [replace(download, target=args.save_dir / download.target.name) for download in offered]
    known = {download.target.name: download for download in offered}
    if args.list:
        for name, download in known.items():
            print(f"{name:24} {download.state():16} {download.about} "
                  f"({download.repository} {download.commit[:7]}, blob {download.blob[:7]})")
        return
    unknown = next((name for name in args.names if name not in known), None)
    if unknown or not args.names:
        raise InputError((f"'{unknown}' is not published: " if unknown else "") + f"name one of {', '.join(known)}.")
    for download in map(known.get, args.names):
        target = download.target
        fetched = fetch(download.url(args.server or SERVER), target, download.blob, overwrite=args.overwrite)
        print(f"{target} {'is fetched and verified' if fetched else 'was here, intact'}.")
        if download.after:
            print(f"To use it: {download.after.format(path=target, folder=target.parent)}")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
