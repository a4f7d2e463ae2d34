"""The page without a browser: its script, how it starts, what it imports."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.device import choice
from cxr.serving.page.texts import TEXTS
from cxr.serving.uploads import MAX_BYTES

pytest.importorskip("streamlit", reason="needs the extra `app`")

ROOT = Path(__file__).resolve().parent.parent
APP, EN = ROOT / "tools" / "app.py", TEXTS["en"]


def test_the_limits_of_streamlit_and_of_the_service_agree():
    config = (ROOT / "tools" / ".streamlit" / "config.toml").read_text()
    assert int(re.search(r"maxUploadSize = (\d+)", config).group(1)) << 20 == MAX_BYTES
    assert 'showErrorDetails = "none"' in config and 'address = "localhost"' in config


def test_started_as_a_program_it_says_how_to_start():
    done = subprocess.run([sys.executable, str(APP)], capture_output=True, text=True)
    assert done.returncode == 2 and "streamlit run tools/app.py" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([sys.executable, str(APP), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "examples:" in done.stdout


def test_importing_the_rooms_of_the_page_needs_no_streamlit():
    code = ("import sys; sys.modules['streamlit'] = None; "
            "import cxr.serving.service, cxr.serving.page.printout, cxr.serving.page.texts; "
            "assert 'paddle' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def app(folder: str, fail: bool):
    """The page's script for AppTest, which runs its source alone."""
    from page_checkpoints import RECIPES

    from cxr.serving.page.view import show
    from cxr.serving.service import Service

    def make():
        if fail:
            raise RuntimeError("secret")
        return Service(RECIPES, [folder])
    show(make)


@pytest.mark.parametrize("language", TEXTS)
def test_a_page_without_models_says_what_to_do(tmp_path, language):
    from streamlit.testing.v1 import AppTest
    (tmp_path / "a.pdparams").write_text("none")
    script = AppTest.from_function(app, args=(str(tmp_path), False), default_timeout=60)
    script.query_params["lang"] = language
    script.run()
    assert not script.exception and script.subheader[0].value == TEXTS[language]["no_models"]
    assert script.code[0].value == "python tools/demo.py"
    text = " ".join(element.value for element in script.markdown)
    assert "model\\_paddle" in text and "a\\.pdparams is damaged" in text


def test_an_error_of_the_program_is_a_sentence_on_the_page_and_a_trace_in_the_log(tmp_path, caplog):
    from streamlit.testing.v1 import AppTest
    script = AppTest.from_function(app, args=(str(tmp_path), True), default_timeout=60).run()
    assert not script.exception and script.error[0].value == EN["failed"]
    assert "secret" not in str(script.main) and "RuntimeError: secret" in caplog.text


def test_phantoms_need_no_file(checkpoints):
    from streamlit.testing.v1 import AppTest
    script = AppTest.from_function(app, args=(str(checkpoints), False), default_timeout=120).run()
    script.multiselect(key="phantoms").set_value([(0, 1), (2, 1)]).run()
    assert not script.exception and not script.error
    assert script.selectbox(key="image").options == ["phantom-Cardiomegaly-1.png", "phantom-Nodule-1.png"]


def test_why_a_gpu_is_not_used_stands_above_the_results(checkpoints, monkeypatch):
    from streamlit.testing.v1 import AppTest
    monkeypatch.setattr(choice, "_now", choice.Choice("cpu", notes=("gpu:0 (NVIDIA H200) is not used: zeros.",)))
    script = AppTest.from_function(app, args=(str(checkpoints), False), default_timeout=120).run()
    assert not script.exception and "NVIDIA H200" in script.warning[0].value
