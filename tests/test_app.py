"""The page as a user meets it: a real server, a real browser, hostile uploads, many users at once."""
import base64
import http.client
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_checkpoints import RECIPES, blank_png, phantom_png

from cxr.data import phantom
from cxr.serving.page import markup
from cxr.serving.page.texts import TEXTS
from cxr.serving.service import Service
from cxr.serving.uploads import MAX_BYTES

pytest.importorskip("streamlit", reason="needs the extra `app`")

ROOT = Path(__file__).resolve().parent.parent
APP, EN, ZH = ROOT / "tools" / "app.py", TEXTS["en"], TEXTS["zh"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Whatever the server's process writes into temporary files is reported here, by this module on its path.
SPY = """
import os, tempfile
def spied(*arguments, _make=tempfile.TemporaryFile, **options):
    with open(os.environ["SPY_LOG"], "a") as log:
        log.write("a temporary file\\n")
    return _make(*arguments, **options)
tempfile.TemporaryFile = spied
"""


class Server:
    """`streamlit run tools/app.py` in a process of its own, called from another folder."""

    def __init__(self, folder: Path, checkpoints: Path):
        (folder / "sitecustomize.py").write_text(SPY)
        self.spied, self.log = folder / "spied", folder / "log"
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(self.port), "--",
                 "--ckpt_dir", str(checkpoints)], cwd=folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(folder), "SPY_LOG": str(self.spied)})
        deadline = time.time() + 120
        while not self.healthy():
            assert time.time() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def healthy(self) -> bool:
        try:
            connection = http.client.HTTPConnection("localhost", self.port, timeout=10)
            connection.request("GET", "/_stcore/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def megabytes(self, what: str = "VmRSS") -> int:
        """Memory of the process: now (VmRSS), or the most so far (VmHWM)."""
        return int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text()).group(1)) >> 10


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), checkpoints)
    yield server
    server.process.terminate()
    server.process.wait(30)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, server, width=1280, locale="en-US", words=EN):
    page = opening(browser, server, width, locale)
    page.get_by_text(words["layer"], exact=True).wait_for()
    return page


def opening(browser, server, width=1280, locale="en-US"):
    page = browser.new_context(viewport={"width": width, "height": 900}, locale=locale).new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url, wait_until="commit")
    return page


def upload(page, *files):
    """Files as (name, content)."""
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files([
        {"name": name, "mimeType": "image/png", "buffer": content} for name, content in files])


def choose(page, label, option):
    wanted = page.get_by_role("option", name=option, exact=True)
    for _ in range(5):                               # a rerun that is still under way closes the list again
        page.get_by_role("combobox", name=label, exact=True).click()
        try:
            wanted.click(timeout=4000)
            return
        except Exception as error:
            if "Timeout" not in str(error):
                raise
    raise AssertionError(f"{label} does not offer {option}")


def settled(page):
    """Wait until the script has run to its end."""
    page.wait_for_timeout(300)
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    page.locator('[data-stale="true"]').first.wait_for(state="detached")


def eventually(page, holds) -> bool:
    """Whether something comes to hold within a time that a reader would wait: reruns follow a control's last move."""
    deadline = time.time() + 30
    while not holds():
        if time.time() > deadline:
            return False
        page.wait_for_timeout(200)
    return True


def main_picture(page) -> np.ndarray:
    source = page.locator(".cxr-figure img").first.get_attribute("src")
    return cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",", 1)[1]), np.uint8), 1)


def scores_on(page) -> dict:
    """Class -> per cent, from the bars."""
    rows = page.locator(".cxr-scores:has(.cxr-bar) tr").all_inner_texts()[1:]
    return {row.split("\t")[0].split("\n")[0].strip(): float(re.search(r"([\d.]+)\s%", row).group(1)) for row in rows}


DATA = Path(os.environ.get("CXR_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture
def xray(tmp_path):
    """A real X-ray, or where there is none a drawn one."""
    real = DATA / "published_cams" / "00000001_000.png"
    if real.exists():
        return real
    (tmp_path / "drawn.png").write_bytes(phantom_png(2, 1024))
    return tmp_path / "drawn.png"


@pytest.fixture
def dicom(tmp_path):
    """A real DICOM file, or where there is none a drawn one of 12 bits."""
    pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")
    real = DATA / "odd" / "Fake_MONOHR1.dcm"
    if real.exists():
        return real
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file = pydicom.Dataset()
    file.file_meta, file.SOPClassUID, file.Modality = meta, meta.MediaStorageSOPClassUID, "DX"
    pixels = phantom.draw(1, 3, 512).image.astype(np.uint16) << 4
    file.set_pixel_data(pixels, "MONOCHROME2", 12)
    file.save_as(tmp_path / "drawn.dcm", enforce_file_format=True)
    return tmp_path / "drawn.dcm"


def test_a_visit(browser, server, checkpoints, xray, dicom, tmp_path):
    """Upload, look, change everything, download, in both languages."""
    page = opened(browser, server)
    assert page.get_by_text(EN["disclaimer"], exact=True).is_visible()
    page.get_by_text(EN["nothing_yet"]).wait_for()
    upload(page, (xray.name, xray.read_bytes()), (dicom.name, dicom.read_bytes()),
           ("broken.png", phantom_png(1)[:5000]), ("words.png", b"hello"))
    page.get_by_text(EN["all_classes"], exact=True).wait_for()
    settled(page)
    alerts = page.get_by_role("alert").all_inner_texts()
    assert len(alerts) == 2 and "broken.png is damaged or cut short" in alerts[0]
    assert "words.png holds text" in alerts[1]
    assert xray.name in page.locator(".cxr-scores").first.inner_text() and dicom.name in page.content()

    # What is on the screen is what the toolbox computes.
    service = Service(RECIPES, [checkpoints], engine="dygraph")
    checkpoint = next(one for one in service.catalogue.scan()[0] if one.recipe == "chexnet")
    reading = service.explain(checkpoint, service.read(checkpoint, xray.read_bytes(), xray.name), "cam")
    expected = {checkpoint.class_names[k]: reading.scores[k] * 100 for k in reading.order}
    assert list(scores_on(page)) == list(expected)
    assert scores_on(page) == pytest.approx(expected, abs=0.011)
    assert np.abs(main_picture(page).astype(int)[..., ::-1] - markup.heat_picture(
        reading, int(reading.order[0]), markup.Look())).mean() < 3          # up to JPEG

    # The slider blends without computing: at 0 the X-ray alone is left.
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert eventually(page, lambda: np.ptp(main_picture(page).astype(int), axis=2).max() < 30)          # grey
    page.keyboard.press("End")
    settled(page)
    choose(page, EN["colormap"], "viridis")
    settled(page)
    assert eventually(page, lambda: np.ptp(main_picture(page).astype(int), axis=2).mean() > 50)
    viridis = main_picture(page)

    choose(page, EN["class"], "Hernia")
    settled(page)
    caption = page.locator("figcaption").first
    assert eventually(page, lambda: "CAM of Hernia" in caption.inner_text())
    assert eventually(page, lambda: (main_picture(page) != viridis).any())
    choose(page, EN["method"], "Grad-CAM++")
    assert eventually(page, lambda: "Grad-CAM++ of Hernia" in caption.inner_text())       # the class stays chosen
    settled(page)
    page.get_by_text(EN["boxes"], exact=True).click()
    settled(page)
    page.get_by_text(EN["compare"], exact=True).click()
    page.get_by_text("CAM of Hernia", exact=True).wait_for()
    settled(page)
    page.screenshot(path=tmp_path / "desktop.png", full_page=True)

    page.get_by_text("中文", exact=True).click()
    page.get_by_text(ZH["all_classes"], exact=True).wait_for()
    settled(page)
    assert page.get_by_text(ZH["disclaimer"], exact=True).is_visible()
    assert page.get_by_text(EN["disclaimer"]).count() == 0
    assert eventually(page, lambda: "疝 Hernia 的 Grad-CAM++" in caption.inner_text())     # nothing was lost
    with page.expect_download() as download:
        page.get_by_role("button", name=ZH["download_report"]).click()
    download.value.save_as(tmp_path / "report.html")
    assert download.value.suggested_filename == xray.stem + ".html"
    for key, start in (("download_picture", b"\x89PNG"), ("download_montage", b"\x89PNG"),
                       ("download_csv", b"image,Effusion"), ("download_json", b"[\n  {\n    \"schema\"")):
        with page.expect_download() as download:
            page.get_by_role("button", name=ZH[key], exact=True).click()
        assert Path(download.value.path()).read_bytes().startswith(start), key
    paper = browser.new_page()
    paper.goto((tmp_path / "report.html").as_uri())
    assert ZH["disclaimer"] in paper.content() and "疝 Hernia" in paper.content()
    assert len(re.findall(rb"/Type\s*/Page\b", paper.pdf(format="A4", print_background=True))) == 1
    paper.screenshot(path=tmp_path / "report.png", full_page=True)
    page.context.close()
    assert not server.spied.exists() and "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("width, locale, words", [(390, "zh-CN", ZH), (1280, "en-US", EN)])
def test_layout_on_phone_and_desktop(browser, server, tmp_path, width, locale, words):
    page = opened(browser, server, width, locale, words)
    upload(page, ("phantom.png", phantom_png(6, 1024)))
    page.get_by_text(words["all_classes"], exact=True).wait_for()
    settled(page)
    outside = page.evaluate("""() => [...document.querySelectorAll('[data-testid=stMain] *')].filter(e => {
        const box = e.getBoundingClientRect(); return box.width && (box.left < -1 || box.right > innerWidth + 1) })
        .map(e => e.outerHTML.slice(0, 80))""")
    assert outside == [] or all("stIconMaterial" in element for element in outside)
    note = page.get_by_text(words["disclaimer"], exact=True)
    assert note.is_visible()
    page.get_by_test_id("stMain").evaluate("e => e.scrollTo(0, e.scrollHeight)")
    box = note.bounding_box()
    assert note.is_visible() and box["y"] + box["height"] <= 901       # still there, at the bottom of the screen
    page.screenshot(path=tmp_path / f"{width}.png")
    picture = page.locator(".cxr-figure img").first.bounding_box()
    assert picture["width"] > (300 if width == 390 else 600)
    page.context.close()


def test_twenty_uploads_at_once_from_five_sessions(browser, server, checkpoints):
    """Each session sees its own four images with their own scores, and memory stays bounded."""
    service = Service(RECIPES, [checkpoints], engine="dygraph")
    checkpoint = next(one for one in service.catalogue.scan()[0] if one.recipe == "chexnet")
    pages = [opening(browser, server) for _ in range(5)]
    for page in pages:
        page.get_by_text(EN["layer"], exact=True).wait_for()
    before = server.megabytes()                                        # with the model in it
    images = [[(f"user{user}-{k}.png", phantom_png(100 + 4 * user + k, 1024)) for k in range(4)] for user in range(5)]
    began = time.perf_counter()
    for page, own in zip(pages, images):
        upload(page, *own)
    for page in pages:
        page.get_by_text(EN["all_classes"], exact=True).wait_for()
        settled(page)
    seconds = time.perf_counter() - began
    for user, (page, own) in enumerate(zip(pages, images)):
        assert set(re.findall(r"user\d-\d\.png", page.locator(".cxr-scores").first.inner_text())) == {
            name for name, _ in own}
        rows = page.locator(".cxr-scores").first.locator("tr").all_inner_texts()[1:]
        for row, (name, content) in zip(rows, own):
            reading = service.explain(checkpoint, service.read(checkpoint, content, name), "cam")
            top = int(reading.order[0])
            assert name in row and checkpoint.class_names[top] in row
            assert float(re.search(r"([\d.]+)\s%", row).group(1)) == pytest.approx(reading.scores[top] * 100, abs=0.011)
        others = {f"user{other}" for other in range(5)} - {f"user{user}"}
        assert not any(other in page.content() for other in others)
        page.context.close()
    print(f"20 uploads in {seconds:.1f} s, server {before} MB before, {server.megabytes()} after, "
          f"{server.megabytes('VmHWM')} at most")
    assert server.megabytes() - before < 500


def test_hostile_uploads_are_refused_quickly_and_the_server_stays_up(browser, server, tmp_path):
    page = opened(browser, server)
    with open(tmp_path / "2GB.png", "wb") as file:
        file.truncate(2 << 30)
    requests = []
    page.on("request", lambda request: "upload_file" in request.url and requests.append(request))
    began = time.perf_counter()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(tmp_path / "2GB.png")
    page.get_by_text(re.compile("64.*MB or smaller")).wait_for()
    assert requests == []                                              # not even sent
    page.reload()
    page.get_by_text(EN["layer"], exact=True).wait_for()
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x", "y")
        polyglot = phantom_png(1) + file.getvalue()
    bomb = blank_png(64, zlib.compress(bytes(256 << 20), 9))
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    upload(page, ("huge.png", blank_png(20_000)), ("bomb.png", bomb), ("polyglot.png", polyglot),
           ("good.png", cv2.imencode(".png", noise)[1].tobytes()))     # 3 MB, and not written to disk either
    page.get_by_text(EN["all_classes"], exact=True).wait_for()
    settled(page)
    alerts = " ".join(page.get_by_role("alert").all_inner_texts())
    assert "huge.png is too large (more than 40 million pixels)" in alerts
    assert "polyglot.png is an image and a zip archive" in alerts
    assert time.perf_counter() - began < 60 and server.healthy() and not server.spied.exists()
    assert server.megabytes("VmHWM") < 2500

    # A client of its own making sends what the browser would not.
    request = requests[0]
    headers = {name: value for name, value in request.all_headers().items() if name in ("x-xsrftoken", "cookie")}
    path = request.url.split(str(server.port), 1)[1]
    assert refusal(server, path, {**headers, "Content-Length": str(2 << 30)}, b"") == 413
    assert refusal(server, path, {**headers, "Transfer-Encoding": "chunked"}, None) == 413
    assert server.healthy()
    page.context.close()


def refusal(server, path, headers, body) -> int:
    """Status of a PUT; body None sends 80 MB in pieces without saying how many there will be."""
    connection = http.client.HTTPConnection("localhost", server.port, timeout=60)
    connection.putrequest("PUT", path)
    for name, value in {"Content-Type": "multipart/form-data; boundary=b", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        if body is None:
            head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\n\r\n'
            for piece in [head] + [bytes(1 << 20)] * (MAX_BYTES // 2 ** 20 + 16):
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    except OSError:
        pass                                                           # it hung up, having answered
    return connection.getresponse().status
