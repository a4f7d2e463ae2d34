#!/usr/bin/env python
"""Fetch published weights."""
from pathlib import Path

from _cli import parser, recipes, run

EXAMPLES = """\
  python tools/fetch_weights.py --list
  python tools/fetch_weights.py model_paddle.pdparams
  python tools/fetch_weights.py model.pth.tar && \\
      python tools/convert.py chexnet pretrained_models/model.pth.tar pretrained_models/model.pdparams"""


def arguments():
    main = parser("Fetch published weights into pretrained_models/: from a pinned commit, at most 100 MiB each, their\n"
                  "content verified before they get their name. A download that was cut goes on where it stopped.\n"
                  "Proxies are taken from HTTPS_PROXY.", EXAMPLES)
    main.add_argument("names", nargs="*", metavar="NAME", help="files to fetch, as --list names them")
    main.add_argument("--list", action="store_true", help="print what there is, and whether it is here and intact")
    main.add_argument("--save_dir", type=Path, metavar="FOLDER", help="put them there (default: pretrained_models)")
    main.add_argument("--server", metavar="URL", help="a mirror that has the paths of raw.githubusercontent.com")
    main.add_argument("--overwrite", action="store_true", help="replace files of these names with another content")
    return main.parse_args()


def main(args) -> None:
    from dataclasses import replace

    from cxr.errors import InputError
    from cxr.weights.download import SERVER, fetch

    offered = [one for recipe in recipes().values() for one in recipe.downloads]
    if args.save_dir:
        offered = [replace(one, target=args.save_dir / one.target.name) for one in offered]
    known = {one.target.name: one for one in offered}
    if args.list:
        for name, one in known.items():
            print(f"{name:24} {one.state():16} {one.about} ({one.repository} {one.commit[:7]}, blob {one.blob[:7]})")
        return
    unknown = next((name for name in args.names if name not in known), None)
    if unknown or not args.names:
        raise InputError((f"'{unknown}' is not published: " if unknown else "") + f"name one of {', '.join(known)}.")
    for one in map(known.get, args.names):
        fetched = fetch(one.url(args.server or SERVER), one.target, one.blob, overwrite=args.overwrite)
        print(f"{one.target} {'is fetched and verified' if fetched else 'was here, intact'}.")
        if one.after:
            print(f"To use it: {one.after.format(path=one.target, folder=one.target.parent)}")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
