"""The HTTP service for other programs: one image in, its manifest out. Needs the extra `serve` (FastAPI)."""
import asyncio
from typing import Annotated, Optional

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool

from cxr import __version__
from cxr.errors import InputError
from cxr.explain.manifest import BOX_THRESHOLD
from cxr.serving.job_queue import Busy
from cxr.serving.service import Service

_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {
    "schema": {"type": "string", "format": "binary"}}}}}
_REFUSALS = {413: {"description": "the file is larger than the limit"}, 422: {"description": "a sentence says why"},
             503: {"description": "too many requests are waiting: try again after Retry-After seconds"}}


def make_api(service: Service) -> FastAPI:
    """The application: `POST /predict`, `GET /models`, `GET /health`, and its description at `/docs`.

    The image is the body itself, so nothing of it is written to disk, as the parts of a form would be. At most as
    many bodies are held in memory as `service.limits` lets compute and wait.
    """
    api = FastAPI(title="paddle-cxr", version=__version__,
                  description="Chest X-ray scores and where the model looked. Research use, not for diagnosis.")
    room = service.limits.computing + service.limits.waiting
    held = asyncio.Semaphore(room)

    @api.get("/health")
    async def health() -> dict:
        """Whether the service is up, what it computes on, and why that is not the GPU that somebody might expect."""
        return {"status": "ok", "device": service.device.name, "notes": list(service.device.notes)}

    @api.get("/models")
    def models() -> list[dict]:
        """The checkpoints that `checkpoint` of /predict may name, by their SHA-256; the first is the default."""
        return [{"checkpoint": weights.sha256, "recipe": weights.recipe, "file": weights.path.name,
                 "classes": weights.class_names} for weights in service.catalogue.scan()[0]]

    @api.post("/predict", openapi_extra=_BODY, responses=_REFUSALS)
    async def predict(
        request: Request,
        name: Annotated[str, Query(max_length=200, description="what the answer calls the image")] = "image",
        checkpoint: Annotated[Optional[str], Query(description="SHA-256, see /models")] = None,  # noqa: UP045
        method: Annotated[Optional[str], Query(description="CAM method")] = None,  # noqa: UP045
        layer: Annotated[Optional[str], Query(description="target layer by its dotted name")] = None,  # noqa: UP045
        box_threshold: Annotated[float, Query(gt=0, le=1, description="share of a map's peak")] = BOX_THRESHOLD,
    ) -> dict:
        """Scores, thresholds and boxes of the image in the body: a PNG, JPEG, BMP, TIFF or DICOM file as it is."""
        if held.locked():
            raise _busy("too many requests are waiting already: try again in a minute.")
        async with held:
            data = await _body(request, service.limits.max_bytes)
            try:
                return await run_in_threadpool(service.desk.run, answer, data, name, checkpoint, method, layer,
                                               box_threshold)
            except InputError as error:
                raise HTTPException(422, str(error)) from None
            except Busy as error:
                raise _busy(str(error)) from None

    def answer(data: bytes, name: str, checkpoint: Optional[str], method: Optional[str],  # noqa: UP045
               layer: Optional[str], box_threshold: float) -> dict:  # noqa: UP045
        usable, _ = service.catalogue.scan()
        chosen = next((weights for weights in usable if checkpoint in (None, weights.sha256)), None)
        if chosen is None:
            raise InputError("there is no such checkpoint: GET /models lists those there are.")
        seen = service.read(chosen, data, name)
        method = method or service.model(chosen).default_method
        return service.explain(chosen, seen, method, layer).manifest(box_threshold)

    return api


def _busy(sentence: str) -> HTTPException:
    return HTTPException(503, sentence, headers={"Retry-After": "60"})


async def _body(request: Request, most: int) -> bytes:
    """The body, given up as soon as it is longer than `most` bytes, whatever its header says."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise HTTPException(413, f"the file is larger than {most >> 20} MB.")
    return bytes(body)
