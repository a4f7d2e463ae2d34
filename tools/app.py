#!/usr/bin/env python
"""The page: upload chest X-rays, see the scores and where the model looked."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from _cli import ROOT, add_device, fail, parser, recipes

if TYPE_CHECKING:
    from cxr.serving.service import Service

EXAMPLES = """\
  streamlit run tools/app.py                                            # then open http://localhost:8501
  streamlit run tools/app.py --server.port 8600 -- --ckpt_dir runs      # options of the page come after --"""


def arguments() -> argparse.Namespace:
    main = parser("A page for the browser: upload X-rays or take phantoms, choose a model, CAM method, layer and\n"
                  "class, see heat maps and scores, and download pictures, tables and a report. In English and\n"
                  "Chinese.", EXAMPLES)
    main.add_argument("--ckpt_dir", type=Path, action="append", metavar="FOLDER",
                      help="folder to offer checkpoints from, with its subfolders; may be given several times "
                           "(default: pretrained_models and output)")
    add_device(main)
    return main.parse_args()


def main(streamlit: ModuleType) -> None:
    """Show the page to one session."""
    from cxr.serving.page.view import keep_uploads_in_memory, show

    @streamlit.cache_resource(show_spinner=False)
    def service() -> Service:
        """What all sessions share, made once."""
        from cxr.device import use
        from cxr.runtime import load_paddle
        from cxr.serving.service import Service

        load_paddle()
        use(arguments().device)
        keep_uploads_in_memory()
        folders = arguments().ckpt_dir or [ROOT / "pretrained_models", ROOT / "output", Path("output").resolve()]
        return Service(recipes(), folders)

    show(service)


if __name__ == "__main__":
    try:
        import streamlit
    except ModuleNotFoundError:
        arguments()
        sys.exit(fail("the page needs Streamlit: run `pip install -e .[app]`, then `streamlit run tools/app.py`."))
    if streamlit.runtime.exists():
        main(streamlit)
    else:
        arguments()
        sys.exit(fail("the page is started with `streamlit run tools/app.py`."))
