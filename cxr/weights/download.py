"""Downloads of files known beforehand: pinned by a git blob id, resumed when interrupted, whole or not there at all.

What arrives is written to a hidden file beside the target, which takes the target's name only after its content was
found to be the pinned one. A second process waits for the first and finds the work done.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import InputError
from cxr.utils.progress import progress

if TYPE_CHECKING:                                  # slow to import, and only a download needs it
    from http.client import HTTPResponse

SERVER = "https://raw.githubusercontent.com"
LIMIT = 100 << 20                                  # bytes: GitHub takes no larger file
_BLOCK = 1 << 20
_PATIENCE = 30                                     # seconds without a byte before a connection counts as dead
_WAITS = (1, 2, 4, 8)                              # seconds before trying again, as long as nothing arrives
_LONGEST_WAIT = 60                                 # that a server may ask for
_PASSING = (408, 425, 429, 500, 502, 503, 504)     # HTTP statuses that may be better in a moment
_NOT_THE_FILE = (
    (b"<", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file it stands for"),
)


@dataclass(frozen=True)
class Download:
    """A file of a public repository at one commit, and where it belongs here.

    Attributes:
        target: its place here.
        repository: on GitHub, `OWNER/NAME`.
        commit: in hex.
        path: of the file in the repository.
        blob: git's own id of the content: SHA-1 of `blob <size>`, a zero byte, and the content, in hex.
        about: what it is, for people.
        after: the command to go on with, if it cannot be used as it is.
    """
    target: Path
    repository: str
    commit: str
    path: str
    blob: str
    about: str
    after: str = ""

    def url(self, server: str = SERVER) -> str:
        """Address of the file on a server that is laid out as GitHub's."""
        return f"{server.rstrip('/')}/{self.repository}/{self.commit}/{self.path}"

    def state(self) -> str:
        """"intact", "missing", or what is wrong with the file in its place."""
        if not self.target.exists():
            return "missing"
        return "intact" if blob_id(self.target) == self.blob else "another content"


def blob_id(path: str | os.PathLike) -> str:
    """What `git hash-object` prints for a file, with little of it in memory."""
    with open(path, "rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch_published(path: str | os.PathLike, offered: Sequence[Download]) -> None:
    """Fetch that of the `offered` files whose place is `path`.

    Raises:
        InputError: it is the place of none of them, or as `fetch`.
        OSError: as `fetch`.
    """
    chosen = next((download for download in offered if download.target == Path(path)), None)
    if chosen is None:
        known = ", ".join(str(download.target) for download in offered) or "none for this model"
        raise InputError(f"{path} cannot be downloaded: --download knows {known}.")
    fetch(chosen.url(), chosen.target, chosen.blob)


def fetch(url: str, target: str | os.PathLike, blob: str, limit: int = LIMIT, overwrite: bool = False,
          sleep: Callable[[float], None] = time.sleep) -> bool:
    """Download `url` to `target` unless it is there.

    A download that was cut goes on where it ended, also in a later call, if the server can do that. Proxies are taken
    from the environment (`HTTPS_PROXY`, ...).

    Args:
        url: of the file.
        target: its place here; missing folders are made.
        blob: the git blob id that its content must have.
        limit: bytes; more are refused.
        overwrite: replace a `target` with another content, which is refused otherwise.
        sleep: waits a number of seconds before another try.

    Returns:
        Whether it was fetched; False where it was there already.

    Raises:
        InputError: the file cannot be fetched, is a web page or a Git LFS pointer instead, is larger than `limit`, or
            has another content than `blob`; or `target` has, and is not to be overwritten.
        OSError: the disk is full (what was fetched is kept for the next call).
    """
    import filelock

    target = Path(target)
    part = target.with_name(f".{target.name}.{blob[:8]}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{part}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Another process fetches {target}: waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        fetched = not _is_there(target, blob, overwrite)
        if fetched:
            _complete(url, part, blob, limit, sleep)
            os.replace(part, target)
        with contextlib.suppress(OSError):         # who waits for it finds the target; Windows deletes no open file
            os.unlink(lock.lock_file)
        return fetched
    finally:
        lock.release()


def _is_there(target: Path, blob: str, overwrite: bool) -> bool:
    if not target.exists() or blob_id(target) == blob:
        return target.exists()
    if not overwrite:
        raise InputError(f"{target} exists with another content: move it away, or replace it with --overwrite.")
    return False


def _complete(url: str, part: Path, blob: str, limit: int, sleep: Callable[[float], None]) -> None:
    """Go on with `part` until it holds all of `url`, and the right content."""
    tries = 0
    while True:
        begun = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, limit)
            if blob_id(part) == blob:
                return
            if not begun:                          # else the two halves may be of different files: once more from zero
                raise _refusal(url, part, blob)
            part.unlink()
        except _Interrupted as stop:
            arrived = part.exists() and part.stat().st_size > begun
            tries = 0 if arrived else tries + 1
            if tries > len(_WAITS):
                raise InputError(f"{url} cannot be fetched ({stop}): check the connection and the proxy, and call the "
                                 "command again; it goes on where it stopped.") from None
            sleep(stop.wait or _WAITS[max(0, tries - 1)])


class _Interrupted(Exception):
    """A failure that may pass; `wait` is how many seconds the server asked for, 0 if it did not say."""

    def __init__(self, reason: object, wait: float = 0) -> None:
        super().__init__(str(reason))
        self.wait = min(wait, _LONGEST_WAIT)


def _receive(url: str, part: Path, limit: int) -> None:
    """One request: append to `part` what is missing, or write all of it where the server does not do parts."""
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    begun = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "paddle-cxr", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        # Not `urlopen`, which remembers the proxies of its first call.
        answer = build_opener().open(Request(url, headers=headers), timeout=_PATIENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416:                      # nothing behind what is there: it is complete, or too long
            return
        said = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
        if error.code not in _PASSING:
            raise InputError(f"{url} cannot be fetched: the server says {said}.") from None
        wait = error.headers.get("Retry-After", "")
        raise _Interrupted(said, float(wait) if wait.isdigit() else 0) from None
    except URLError as error:
        raise _Interrupted(error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(error) from None
    with answer:
        if answer.status != 206 or not (answer.headers.get("Content-Range") or "").startswith(f"bytes {begun}-"):
            if answer.status == 206:
                raise InputError(f"{url} cannot be fetched: the server sent another part than it was asked for.")
            begun = 0
        length = answer.headers.get("Content-Length", "")
        size = begun + int(length) if length.isdigit() else None
        if size is not None and size > limit:
            raise InputError(f"{url} has {size} bytes, more than the {limit} that are expected at most: it is not the "
                             "published file.")
        _write(answer, part, begun, size, limit, url)


def _write(answer: HTTPResponse, part: Path, begun: int, size: int | None, limit: int, url: str) -> None:
    blocks = None if size is None else -(-(size - begun) // _BLOCK)
    name = url.rsplit("/", 1)[-1] + (f" from byte {begun}" if begun else "")
    try:
        with open(part, "ab" if begun else "wb") as file:
            for block in progress(_blocks(answer), total=blocks, desc=name, unit="MiB"):
                if not file.tell() and (kind := _what_else(block)):
                    raise InputError(f"{url} gives {kind}: something between here and the server answered in its "
                                     "place, or the file has moved.")
                if file.tell() + len(block) > limit:
                    raise InputError(f"{url} is larger than the {limit} bytes that are expected at most: it is not the "
                                     "published file.")
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = file.tell()
    except OSError as error:                       # of the disk: those of the net are _Interrupted
        raise OSError(error.errno, error.strerror, str(part)) from None
    except InputError:
        part.unlink()                              # nothing of it is worth keeping
        raise
    if size is not None and written < size:
        raise _Interrupted(f"the connection ended after {written} of {size} bytes")


def _blocks(answer: HTTPResponse) -> Iterator[bytes]:
    import http.client
    while True:
        try:
            block = answer.read(_BLOCK)
        except http.client.IncompleteRead as cut:
            block = cut.partial
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(error) from None
        if not block:
            return
        yield block


def _what_else(head: bytes) -> str | None:
    return next((kind for magic, kind in _NOT_THE_FILE if head.lstrip().startswith(magic)), None)


def _refusal(url: str, part: Path, blob: str) -> InputError:
    size, found = part.stat().st_size, blob_id(part)
    part.unlink()
    return InputError(f"{url} gave {size} bytes whose git blob id is {found}, not {blob}: they were changed on the "
                      "way, try again later or over another connection.")
