"""The HTTP service, called as another program would."""
import json
import threading

import pytest
from page_checkpoints import RECIPES, blank_png, phantom_png, write_checkpoints

from cxr.serving.service import Limits, Service
from cxr.utils.files import json_text

fastapi = pytest.importorskip("fastapi", reason="needs the extra `serve`")
testclient = pytest.importorskip("fastapi.testclient", reason="FastAPI's test client needs httpx")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoints(folder)
    return Service(RECIPES, [folder], Limits(max_bytes=1 << 20, waiting=1, computing=1), engine="dygraph")


@pytest.fixture(scope="module")
def client(service):
    from cxr.serving.http_api import make_api
    return testclient.TestClient(make_api(service))


def test_predict_answers_with_the_manifest(client, service):
    models = client.get("/models").json()
    assert [one["recipe"] for one in models] == ["chexnet", "covid_resnet"]
    answer = client.post("/predict", content=phantom_png(3), params={"name": "a.png"})
    assert answer.status_code == 200
    checkpoint = service.catalogue.scan()[0][0]
    reading = service.explain(checkpoint, service.read(checkpoint, phantom_png(3), "a.png"), "cam")
    assert answer.json() == json.loads(json_text(reading.manifest()))          # a threshold of nan is null
    assert answer.json()["image"]["name"] == "a.png"
    other = client.post("/predict", content=phantom_png(3), params={
        "checkpoint": models[1]["checkpoint"], "method": "layercam", "layer": "block.5", "box_threshold": 0.9}).json()
    assert other["method"]["name"] == "layercam" and other["method"]["layer"] == "block.5"
    assert other["box_threshold"] == 0.9 and len(other["findings"]) == 4


@pytest.mark.parametrize("content, params, status, words", [
    (b"hello", {"name": "a.png"}, 422, "a.png holds text"),
    (b"", {}, 422, "image is empty"),
    (blank_png(20_000), {}, 422, "more than 40 million pixels"),
    (bytes(2 << 20), {}, 413, "larger than 1 MB"),
    (phantom_png(1), {"checkpoint": "none"}, 422, "no such checkpoint"),
    (phantom_png(1), {"method": "magic"}, 422, "no method 'magic'"),
    (phantom_png(1), {"layer": "block.99"}, 422, "has no layer"),
    (phantom_png(1), {"box_threshold": 7}, 422, "less than or equal to 1"),
])
def test_refusals_are_sentences(client, content, params, status, words):
    answer = client.post("/predict", content=content, params=params)
    assert answer.status_code == status and words in answer.text and "Traceback" not in answer.text
    assert client.get("/health").json() == {"status": "ok", "device": "cpu", "notes": []}


def test_a_full_line_is_said_at_once(client, service):
    go = threading.Event()
    jobs = [service.desk.submit(go.wait, 30) for _ in range(2)]
    try:
        answer = client.post("/predict", content=phantom_png(1))
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "60"
    finally:
        go.set()
    assert all(job.result() for job in jobs)
    assert client.post("/predict", content=phantom_png(1)).status_code == 200


def test_the_description_tells_what_the_body_is(client):
    predict = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert predict["requestBody"]["content"]["application/octet-stream"]["schema"]["format"] == "binary"
    assert {"200", "413", "422", "503"} <= set(predict["responses"])
