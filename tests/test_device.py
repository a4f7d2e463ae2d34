"""The room that chooses the device, held against machines that are not here: stand-ins for GPUs, drivers, Paddles."""
import json
import sys
import time

import pytest

from cxr.device import choice, verdicts
from cxr.device.hardware import Gpu, Hardware, look
from cxr.device.known_answers import EXPECTED
from cxr.device.sentences import Build, covers, explain, failure, installed_build
from cxr.device.trial import Outcome, ask, judge
from cxr.device.verdicts import Verdict, verdict_of
from cxr.errors import InputError

H200 = Gpu(0, "NVIDIA H200", (9, 0), 140 << 30, "aa")
A100 = Gpu(1, "NVIDIA A100", (8, 0), 40 << 30, "bb")
ADA = Gpu(0, "NVIDIA RTX 4090", (8, 9), 24 << 30, "cc")
GPU_2 = Build("2.6.2", "8ce0de", "11.8", ("61", "70", "75", "80", "86"))
CPU_3 = Build("3.3.1", "768849")
OF_2 = GPU_2.architectures
ZEROS = Outcome("wrong", "fill", no_code=True, cudnn="9.14")         # as an H200 gave


def answers(stages=EXPECTED):
    return "".join(json.dumps({"stage": stage, "numbers": list(EXPECTED[stage])}) + "\n" for stage in stages)


def verdicts_of(**outcomes):
    """Stand-ins for known answers: name of a GPU to outcome, right where it is not named."""
    asked = []

    def verdict(gpu, hardware, build):
        asked.append(gpu.device)
        return Verdict(outcomes.get(gpu.name.split()[-1], Outcome("right")))
    verdict.asked = asked
    return verdict


def test_without_a_gpu_it_is_the_cpu_and_nothing_is_said():
    verdict = verdicts_of()
    for build in (GPU_2, CPU_3):
        assert choice.choose("auto", Hardware(), build, verdict) == choice.Choice("cpu")
    assert not verdict.asked
    for request in ("gpu", "gpu:0"):
        with pytest.raises(InputError, match=f"the device {request} cannot be had: there is no NVIDIA GPU"):
            choice.choose(request, Hardware(), GPU_2, verdict)


def test_a_good_gpu_is_taken():
    machine = Hardware((ADA,), "550.54 for CUDA 12.4")
    for request in ("auto", "gpu", "gpu:0"):
        chosen = choice.choose(request, machine, GPU_2, verdicts_of())
        assert chosen == choice.Choice("gpu:0", ADA) and str(chosen) == "gpu:0 (NVIDIA RTX 4090)"
    assert choice.choose("cpu", machine, GPU_2, verdicts_of()) == choice.Choice("cpu")


def test_zeros_of_a_gpu_without_code_are_named_with_the_paddle_that_has_it():
    machine = Hardware((H200,), "580.1 for CUDA 13.0")
    chosen = choice.choose("auto", machine, GPU_2, verdicts_of(H200=ZEROS))
    assert chosen.name == "cpu" and chosen.gpu is None
    assert chosen.notes == (
        "gpu:0 (NVIDIA H200, capability 9.0) is not used: Paddle 2.6.2 (CUDA 11.8) holds code for capabilities 6.1 to "
        "8.6 and none for 9.0, and computes wrong numbers there without an error (fill): install Paddle 3 built for "
        "CUDA 12.6 or newer from Paddle's own index in place of this one (choose it at "
        "https://www.paddlepaddle.org.cn/install/quick). Computing on the CPU.",)
    with pytest.raises(InputError, match="none for 9.0.*install Paddle 3 built for CUDA 12.6"):
        choice.choose("gpu", machine, GPU_2, verdicts_of(H200=ZEROS))


@pytest.mark.parametrize("outcome, said", [
    (Outcome("aborted", "sorting", "SIGABRT; "), "crashes there (sorting: SIGABRT)"),
    (Outcome("hung", "matrix product", "120 s"), "hangs there (matrix product, given up after 120 s)"),
    (Outcome("failed", "convolution", "PreconditionNotMetError: cannot load cudnn shared library"), "[cuda11]"),
    (Outcome("failed", "matrix product", "The third-party dynamic library (libcublas.so) was not found"), "[cuda11]"),
    (Outcome("failed", "fill", "ResourceExhaustedError: Out of memory error on GPU 0"), "its memory is full"),
    (Outcome("failed", "fill", "CUDA error(46), all CUDA-capable devices are busy or unavailable"), "has it to itself"),
    (Outcome("failed", "convolution", "CUDNN error(8), CUDNN_STATUS_EXECUTION_FAILED"), "fails there (convolution"),
    (Outcome("failed", "fill", "CUDA error(35), CUDA driver version is insufficient"), "update the NVIDIA driver"),
])
def test_each_failure_has_its_reason_and_remedy(outcome, said):
    machine = Hardware((ADA,), "550.54 for CUDA 12.4")
    note, = choice.choose("auto", machine, GPU_2, verdicts_of(**{"4090": outcome})).notes
    assert said in note and note.startswith("gpu:0 (NVIDIA RTX 4090") and note.endswith("Computing on the CPU.")
    assert ": " in note.removeprefix("gpu:0")            # reason and remedy


def test_of_two_gpus_the_bad_one_is_left_out_and_said():
    machine = Hardware((H200, A100), "580.1 for CUDA 13.0")
    chosen = choice.choose("auto", machine, GPU_2, verdicts_of(H200=ZEROS))
    assert chosen.name == "gpu:1" and chosen.gpu == A100
    note, = chosen.notes
    assert note.startswith("gpu:0 (NVIDIA H200") and "Computing on the CPU" not in note
    assert choice.choose("gpu", machine, GPU_2, verdicts_of(H200=ZEROS)).name == "gpu:1"
    with pytest.raises(InputError, match="gpu:0 .* is not used"):
        choice.choose("gpu:0", machine, GPU_2, verdicts_of(H200=ZEROS))
    with pytest.raises(InputError, match=r"gpu:2 does not exist here: the driver shows gpu:0 \(.*, gpu:1 \("):
        choice.choose("gpu:2", machine, GPU_2, verdicts_of())
    verdict = verdicts_of()
    assert choice.choose("gpu:1", machine, GPU_2, verdict).name == "gpu:1" and verdict.asked == ["gpu:1"]


def test_a_cpu_build_or_a_driver_that_does_not_start_says_so_without_asking():
    verdict = verdicts_of()
    note, = choice.choose("auto", Hardware((A100,)), CPU_3, verdict).notes
    assert "Paddle 3.3.1 (the CPU build) knows no GPU" in note and "NVIDIA A100" in note
    note, = choice.choose("auto", Hardware(problem="the driver does not start"), GPU_2, verdict).notes
    assert note == "No GPU is used: the driver does not start. Computing on the CPU."
    with pytest.raises(InputError, match="does not start"):
        choice.choose("gpu", Hardware(problem="the driver does not start"), GPU_2, verdict)
    note, = choice.choose("auto", Hardware(), Build("3.3.1", rocm=True), verdict).notes
    assert "ROCm" in note and not verdict.asked


def test_a_process_of_several_takes_its_own_gpu_or_none():
    machine = Hardware((H200, A100))
    assert choice.choose("auto", machine, GPU_2, verdicts_of(H200=ZEROS), rank_gpu=1).name == "gpu:1"
    with pytest.raises(InputError, match="started for that GPU"):
        choice.choose("auto", machine, GPU_2, verdicts_of(H200=ZEROS), rank_gpu=0)
    assert choice.choose("auto", Hardware(), GPU_2, verdicts_of(), rank_gpu=0).name == "cpu"
    assert choice.choose("cpu", machine, GPU_2, verdicts_of(), rank_gpu=0).name == "cpu"
    assert choice.choose("gpu:1", machine, GPU_2, verdicts_of(), rank_gpu=1).name == "gpu:1"
    with pytest.raises(InputError, match="the launcher gave gpu:0 to this process, so --device cannot be gpu:1"):
        choice.choose("gpu:1", machine, GPU_2, verdicts_of(), rank_gpu=0)


@pytest.mark.parametrize("request_", ["gpu0", "cuda", "gpu:-1", "gpu:", "GPU", "auto "])
def test_other_words_are_refused(request_):
    with pytest.raises(InputError, match="the device is auto, cpu, gpu or gpu:N"):
        choice.choose(request_, Hardware(), GPU_2, verdicts_of())


@pytest.mark.parametrize("held, capability, runs", [
    (OF_2, (8, 9), True), (OF_2, (8, 6), True), (OF_2, (7, 5), True), (OF_2, (6, 1), True), (OF_2, (6, 0), False),
    (OF_2, (9, 0), False), (OF_2, (12, 0), False), (("90", "100", "120"), (10, 3), True), (("90",), (12, 0), False)])
def test_code_runs_on_its_own_generation(held, capability, runs):
    assert covers(held, capability) == runs


@pytest.mark.parametrize("said, held", [([80, 90], ("80", "90")), (["8.0", "90a", "PTX"], ("80", "90")), ([], ())])
def test_architectures_are_numbers_however_paddle_writes_them(monkeypatch, said, held):
    paddle = pytest.importorskip("paddle")
    monkeypatch.setattr(paddle.version, "cuda_archs", lambda: said, raising=False)
    monkeypatch.setattr(paddle.version, "cuda", lambda: "12.6")
    assert installed_build().architectures == held and installed_build().cuda == "12.6"


@pytest.mark.parametrize("capability, remedy", [
    ((5, 2), "use the CPU"), ((7, 5), "cuda11"), ((9, 0), "CUDA 12.6"), ((10, 0), "CUDA 12.9"), ((12, 0), "CUDA 12.9")])
def test_remedy_by_generation(capability, remedy):
    gpu = Gpu(0, "x", capability, 1, "x")
    build = Build("3.3.1", cuda="13.0", architectures=("80",))
    assert remedy in explain(gpu, build, Outcome("wrong", "fill"))
    unknown = Build("2.6.2", cuda="12.0")                # one that says itself that it holds no code
    assert f"holds no code for {capability[0]}.{capability[1]}, and computes" in explain(
        gpu, unknown, Outcome("wrong", "fill", no_code=True))


# --- the process of its own, with stand-ins that really compute zeros, die and hang

def stand_in(code):
    return [sys.executable, "-c", f"import json, os, sys, time\nright = {answers()!r}\n{code}"]


@pytest.mark.parametrize("code, kind, stage", [
    ("print(right)", "right", ""),
    ("print('noise'); print(right)", "right", ""),
    ("for line in right.splitlines(): d = json.loads(line); d['numbers'] = [0.0] * len(d['numbers']);"
     " print(json.dumps(d), flush=True)", "wrong", "fill"),
    ("print(right.splitlines()[0], flush=True); os.abort()", "aborted", "copy from and to the host"),
    ("sys.exit('the device is gone')", "failed", "fill"),
    ("print(right.splitlines()[0]); sys.exit(0)", "failed", "copy from and to the host"),
])
def test_stand_in_processes(code, kind, stage):
    outcome = ask("gpu:0", stand_in(code), seconds=30)
    assert (outcome.kind, outcome.stage) == (kind, stage)


def test_a_check_that_cannot_be_started_is_a_failure():
    assert ask("gpu:0", ["/no/such/python"]).kind == "failed"


@pytest.mark.parametrize("after", ["time.sleep(60)", "os.fork() or time.sleep(30); time.sleep(60)"])
def test_one_that_hangs_is_given_up_in_time(after):
    """Also where a child of it holds the pipes."""
    began = time.monotonic()
    outcome = ask("gpu:0", stand_in(f"print(right.splitlines()[0], flush=True); {after}"), seconds=2)
    assert (outcome.kind, outcome.stage, outcome.detail) == ("hung", "copy from and to the host", "2 s")
    assert time.monotonic() - began < 10


def test_what_paddle_said_is_kept():
    said = ("W1126 gpu_resources.cc:96] The GPU architecture in your current machine is Hopper, which is not "
            "compatible with Paddle installation with arch: 61 70 75 80 86 , it is recommended\n"
            "W1126 gpu_resources.cc:164] device: 0, cuDNN Version: 9.14.\n"
            "Traceback (most recent call last):\n  File x\n"
            "PreconditionNotMetError: Cannot load cudnn shared library.\n  [Hint: y]\n")
    outcome = judge(1, answers(list(EXPECTED)[:6]), said, 1)
    assert outcome == Outcome("failed", "convolution", "PreconditionNotMetError: Cannot load cudnn shared library.",
                              OF_2, cudnn="9.14")
    said = ("W1126 14:12:56.323468 560 gpu_resources.cc:106] The GPU compute capability in your current machine is 90, "
            "which is not supported by Paddle, it is recommended to install\n")
    assert judge(0, answers().replace("0.75", "0.0", 1), said, 1) == Outcome("wrong", "fill", no_code=True)
    assert judge(134, "", "C++ Traceback (most recent call last):\nthrust failed", 1).kind == "aborted"


def test_the_real_answers_in_a_process_of_their_own():
    assert ask("cpu") == Outcome("right")


# --- what is remembered

@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "_now", {})
    return tmp_path / "cache"


def next_process():
    """What only this process knows is forgotten."""
    verdicts._now.clear()


def asking(outcome):
    calls = []

    def asked(device):
        calls.append(device)
        return outcome
    asked.calls = calls
    return asked


@pytest.mark.parametrize("gpu, outcome, kept", [
    (A100, Outcome("right"), True), (H200, ZEROS, True), (H200, Outcome("aborted", "sorting", "SIGABRT"), True),
    (A100, Outcome("hung", "fill", "120 s"), False), (A100, Outcome("failed", "convolution", "cudnn"), False)])
def test_a_verdict_is_kept_for_gpu_driver_and_paddle(own_folder, gpu, outcome, kept):
    machine, asked = Hardware((gpu,), "580.1"), asking(outcome)
    assert verdict_of(gpu, machine, GPU_2, asked=asked) == Verdict(outcome)
    assert verdict_of(gpu, machine, GPU_2, asked=asked) == Verdict(outcome, remembered=True)
    assert len(asked.calls) == 1                         # no device is asked twice by one process
    next_process()
    assert verdict_of(gpu, machine, GPU_2, asked=asked) == Verdict(outcome, remembered=kept)
    assert len(asked.calls) == (1 if kept else 2)
    before = len(asked.calls)
    for others in ((ADA, machine, GPU_2), (gpu, Hardware((gpu,), "590"), GPU_2), (gpu, machine, CPU_3)):
        verdict_of(*others, asked=asked)
    verdict_of(gpu, machine, GPU_2, again=True, asked=asked)
    assert len(asked.calls) == before + 4


def test_a_damaged_verdict_is_asked_for_again(own_folder):
    machine, asked = Hardware((A100,), "1"), asking(Outcome("right"))
    verdict_of(A100, machine, GPU_2, asked=asked)
    for text in ("", "{}", "[1]", '{"kind": "right"}'):
        file, = own_folder.glob("gpu-*.json")
        file.write_text(text)
        next_process()
        assert not verdict_of(A100, machine, GPU_2, asked=asked).remembered
    next_process()
    assert verdict_of(A100, machine, GPU_2, asked=asked).remembered


def test_a_full_disk_costs_the_memory_and_not_the_command(own_folder, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(verdicts, "write_json", full)
    assert verdict_of(A100, Hardware((A100,), "1"), GPU_2, asked=asking(Outcome("right"))).right


# --- the driver, and Paddle's own default

class Driver:
    """Stands in for libcuda: `status` of cuInit, and GPUs (name, major, minor)."""

    def __init__(self, status=0, gpus=()):
        self.status, self.gpus = status, gpus

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def cuDeviceGet(self, device, index):
        device._obj.value = index

    def cuDeviceGetName(self, name, length, device):
        name.value = self.gpus[device.value][0].encode()

    def cuDeviceGetAttribute(self, value, which, device):
        value._obj.value = self.gpus[device.value][{75: 1, 76: 2}[which]]

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 24 << 30

    def cuDeviceGetUuid(self, uuid, device):
        uuid[0] = device.value + 1

    def cuDriverGetVersion(self, version):
        version._obj.value = 12040


def test_hardware_is_what_the_driver_shows(monkeypatch, tmp_path):
    monkeypatch.setattr("cxr.device.hardware._KERNEL_MODULE", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar\nGCC version")
    monkeypatch.setattr("cxr.device.hardware._driver", lambda: Driver(gpus=[("NVIDIA T4", 7, 5), ("NVIDIA L4", 8, 9)]))
    machine = look()
    assert [str(gpu) for gpu in machine.gpus] == ["gpu:0 (NVIDIA T4, capability 7.5)",
                                                  "gpu:1 (NVIDIA L4, capability 8.9)"]
    assert machine.driver == "550.54.15 for CUDA 12.4" and not machine.problem
    assert machine.gpus[0].memory == 24 << 30 and machine.gpus[0].uuid != machine.gpus[1].uuid


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_the_user_has_hidden_are_nobodys_problem(monkeypatch, tmp_path, hidden):
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr("cxr.device.hardware._NODES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr("cxr.device.hardware._driver", lambda: Driver(100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert look() == Hardware()


@pytest.mark.parametrize("driver, node, problem", [
    (None, False, ""), (Driver(100), False, ""), (Driver(100), True, "it shows no GPU to this process"),
    (None, True, "libcuda.so.1 cannot be loaded"), (Driver(803), True, "start the machine again"),
    (Driver(42), True, "CUDA error 42")])
def test_hardware_that_cannot_be_used_says_why(monkeypatch, tmp_path, driver, node, problem):
    if node:
        (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr("cxr.device.hardware._NODES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr("cxr.device.hardware._driver", lambda: driver)
    machine = look()
    assert machine.gpus == () and problem in machine.problem and bool(problem) == bool(machine.problem)


@pytest.fixture
def as_before():
    """Choices of a test do not outlive it."""
    now, right = choice._now, set(choice._right)
    yield
    choice._now = now
    choice._right.clear()
    choice._right.update(right)


def test_use_chooses_says_and_remembers(monkeypatch, as_before, recwarn):
    paddle = pytest.importorskip("paddle")
    monkeypatch.setattr(choice, "look", lambda: Hardware((H200,), "580.1"))
    monkeypatch.setattr(choice, "installed_build", lambda: GPU_2)
    monkeypatch.setattr(choice, "verdict_of", verdicts_of(H200=ZEROS))
    monkeypatch.delenv("CXR_DEVICE", raising=False)
    chosen = choice.use()
    assert chosen.name == "cpu" == paddle.get_device() and choice.chosen() == chosen
    assert [str(warning.message) for warning in recwarn] == list(chosen.notes) != []
    monkeypatch.setenv("CXR_DEVICE", "gpu")
    with pytest.raises(InputError, match="none for 9.0"):
        choice.use()
    assert choice.use("cpu") == choice.Choice("cpu")     # what is said wins over the environment


def test_results_of_a_gpu_that_paddle_took_by_itself_are_refused(monkeypatch, as_before):
    """Every way to a result asks: networks of ours, predictors, the CAM toolbox."""
    paddle = pytest.importorskip("paddle")
    from covid_resnet import ResNet
    from cxr.cam import GradCAM
    from cxr.inference.predictor import Predictor

    model = ResNet(18, 2)
    choice.ensure()                                      # the CPU needs no leave
    monkeypatch.setattr(choice, "look", lambda: Hardware((H200,)))
    monkeypatch.setattr(choice, "installed_build", lambda: GPU_2)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    verdict = verdicts_of(H200=ZEROS)
    monkeypatch.setattr(choice, "verdict_of", verdict)
    for way in (lambda: ResNet(18, 2), lambda: Predictor(model, "dygraph"), lambda: GradCAM(model, "block.7")):
        with pytest.raises(InputError, match=r"none for 9.0.*Call `cxr.device.use\(\)` before the model is made"):
            way()
    monkeypatch.setattr(choice, "verdict_of", verdicts_of())
    choice.ensure()
    monkeypatch.setattr(choice, "verdict_of", verdict)
    choice.ensure()                                      # asked once
    assert choice.checked("gpu:0") and not choice.checked("gpu:1")


@pytest.mark.parametrize("error, said", [
    (OSError("(External) CUDA error(209), no kernel image is available for execution on the device. \n  [Hint: Please"),
     "gpu:0 failed (CUDA error(209), no kernel image is available for execution on the device.): go on with --device"),
    (RuntimeError("(PreconditionNotMet) The third-party dynamic library (libcudnn.so) that Paddle depends on is not "
                  "configured correctly."), "gpu:0 lacks a library"),
    (MemoryError(), "this machine's memory is full"),
    (RuntimeError("(External) CUDNN error(9), CUDNN_STATUS_NOT_SUPPORTED. [Hint: x]"), "gpu:0 failed (CUDNN error(9)"),
    (MemoryError("ResourceExhaustedError: \n\nOut of memory error on GPU 0. Cannot allocate 2GB"),
     "the memory of gpu:0 is full: lower --batch_size"),
    (RuntimeError("(NotFound) Operator does not exist"), None), (ValueError("x"), None)])
def test_a_gpu_that_fails_at_work_is_a_sentence(error, said):
    sentence = failure(error, "gpu:0")
    assert (sentence is None) == (said is None)
    assert said is None or said in sentence and sentence.endswith("what was saved before stays.")
