"""Execution providers of Windows ML's catalogue, from a recording: only Windows 11 has the catalogue itself.

``recordings/README.md`` says what the recording is written after; ``test_winml_wheel.py`` looks for the attributes of
the recorded objects in the package windowsml.
"""

from __future__ import annotations

import enum
import json
import logging
from pathlib import Path

import pytest
from attrs import define
from phi3_core.errors import BackendError, UsageError
from phi3_core.values import Device
from phi3_dml import catalogue, opening
from phi3_dml.catalogue import Entry, ProviderRequest
from phi3_dml.opening import Opening, Provider

RECORDED = json.loads(Path(__file__).with_name("recordings").joinpath("catalogue.json").read_text(encoding="utf-8"))
LIBRARY = "C:\\library.dll"


class EpReadyState(enum.IntEnum):
    Ready = 0
    NotReady = 1
    NotPresent = 2


@define
class Recorded:
    """A provider as windowsml's: whoever calls ``ensure_ready`` has it downloaded and its library known."""

    name: str
    version: str
    package_family_name: str
    library_path: str
    ready_state: EpReadyState
    downloads: int = 0

    def ensure_ready(self):
        self.downloads += self.ready_state == EpReadyState.NotPresent
        self.ready_state = EpReadyState.Ready
        self.library_path = self.library_path or LIBRARY


@pytest.fixture
def providers():
    return [Recorded(**{**recorded, "ready_state": EpReadyState[recorded["ready_state"]]}) for recorded in RECORDED]


@pytest.fixture
def registered():
    """What the runtime was asked to register."""
    return {}


def named(providers, name):
    return next(provider for provider in providers if provider.name.startswith(name))


def test_an_installed_one_is_registered_without_a_word(providers, registered, caplog):
    name = catalogue.prepare(providers, ProviderRequest(name="OpenVINO"), registered.__setitem__)
    assert name == "OpenVINOExecutionProvider"
    assert registered == {name: RECORDED[0]["library_path"]}
    assert caplog.text == ""
    assert sum(provider.downloads for provider in providers) == 0


def test_one_that_has_to_be_downloaded_is_not_unless_it_is_allowed(providers, registered):
    with pytest.raises(UsageError) as refused:
        catalogue.prepare(providers, ProviderRequest(name="vitisai"), registered.__setitem__)
    assert str(refused.value).startswith(
        "VitisAIExecutionProvider 1.8.50.0 has to be downloaded first: the Windows package "
        "MicrosoftCorporationII.WinML.AMD.NPU.EP.1.8_8wekyb3d8bbwe, which Windows Update installs and keeps"
    )
    assert refused.value.hint == "--option download_execution_provider=yes allows it"
    assert registered == {}
    assert sum(provider.downloads for provider in providers) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VitisAI", "VitisAIExecutionProvider 1.8.50.0 is downloaded now: the Windows package MicrosoftCorporationII."),
        ("QNNExecutionProvider", "QNNExecutionProvider is downloaded now: a Windows package, which"),
    ],
)
def test_what_is_downloaded_is_said_first(providers, registered, name, said):
    chosen, before = named(providers, name), []

    class Handler(logging.Handler):
        def emit(self, record):
            before.append((record.getMessage(), chosen.downloads))

    handler, logger = Handler(), logging.getLogger("phi3_core.dml")
    logger.addHandler(handler)
    try:
        catalogue.prepare(providers, ProviderRequest(name=name, download=True), registered.__setitem__)
    finally:
        logger.removeHandler(handler)
    ((message, downloads),) = before
    assert message.startswith(said)
    assert downloads == 0
    assert chosen.downloads == 1
    assert registered == {chosen.name: chosen.library_path}
    assert [provider.downloads for provider in providers if provider is not chosen] == [0, 0]


def test_one_that_is_not_offered_is_refused_with_those_that_are(providers, registered):
    with pytest.raises(UsageError, match="no execution provider MIGraphX") as refused:
        catalogue.prepare(providers, ProviderRequest(name="MIGraphX"), registered.__setitem__)
    assert refused.value.hint == (
        "there is OpenVINOExecutionProvider 1.8.79.0, VitisAIExecutionProvider 1.8.50.0 (not downloaded), "
        "QNNExecutionProvider (not downloaded)"
    )
    with pytest.raises(UsageError) as refused:
        catalogue.prepare([], ProviderRequest(name="QNN"), registered.__setitem__)
    assert "there is none" in refused.value.hint


def test_of_two_with_one_name_the_installed_one_is_chosen():
    """Package families of two generations are offered side by side."""
    two = [Entry(name="QNNExecutionProvider", version="2.0"), Entry(name="QNNExecutionProvider", state="NotReady")]
    assert catalogue.choose(two, "qnnexecutionprovider") == 1


def test_a_library_that_the_runtime_refuses_is_its_error(providers):
    def refuse(name, path):
        raise RuntimeError("Failed to register\nthe library")

    with pytest.raises(BackendError, match="does not accept OpenVINOExecutionProvider: Failed to register the library"):
        catalogue.prepare(providers, ProviderRequest(name="OpenVINO"), refuse)


@pytest.mark.runs
def test_the_runtime_refuses_a_library_that_is_not_there(providers):
    import onnxruntime_genai as og

    with pytest.raises(BackendError, match="does not accept OpenVINOExecutionProvider"):
        catalogue.prepare(providers, ProviderRequest(name="OpenVINO"), og.register_execution_provider_library)


def test_without_a_catalogue_its_absence_is_the_error(registered):
    """Where there is one, as on Windows 11, it has nothing of this name."""
    words = "windowsml cannot be loaded|catalogue failed|offers no execution provider"
    with pytest.raises((BackendError, UsageError), match=words):
        catalogue.register(ProviderRequest(name="none of that name"), registered.__setitem__)
    assert registered == {}


@pytest.mark.parametrize(
    ("options", "flavour", "message"),
    [
        ({"execution_provider": "QNN"}, "directml", "needs Windows ML's flavour"),
        ({"execution_provider": "QNN"}, None, "needs Windows ML's flavour"),
        ({"execution_provider": ""}, "winml", "is the name of an execution provider"),
        ({"execution_provider": "QNN", "download_execution_provider": "1"}, "winml", "is yes or no, not '1'"),
        ({"download_execution_provider": "yes"}, "winml", "needs the option execution_provider"),
    ],
)
def test_options_that_cannot_be_followed(options, flavour, message):
    with pytest.raises(UsageError, match=message):
        opening.requested_provider(options, flavour)


def test_a_registered_provider_takes_the_place_of_the_devices_own():
    own = opening.provider_of(Device(backend="dml", id="0", kind="gpu", name="A GPU"))
    opened = opening.with_provider(Opening(provider=own, context=16, original=None, vocabulary=8), "QNN")
    assert opened.provider == Provider(name="QNN", options={}, rewinds=False, float16=True)
    assert (opened.context, opened.vocabulary) == (16, 8)


def test_options():
    assert opening.requested_provider({"intra_op_num_threads": "2"}, "winml") is None
    assert opening.requested_provider({"execution_provider": "QNN"}, "winml") == ProviderRequest(name="QNN")
    allowed = {"execution_provider": "QNN", "download_execution_provider": "yes"}
    assert opening.requested_provider(allowed, "winml") == ProviderRequest(name="QNN", download=True)
