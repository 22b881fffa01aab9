"""A flag comes before a variable, a variable before the file, and the file before the default."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import phi3_core as phi3
import pytest
from phi3_core import paths, selection
from phi3_core.cli import configured
from phi3_core.cli.parser import parser
from phi3_core.config import TIME_LIMITS_S, time_limit, values
from phi3_core.config.table import BY_KEY, SETTINGS
from phi3_core.errors import UsageError
from phi3_core.hub.client import HubClient
from phi3_core.models import DEFAULT
from phi3_core.models.ref import look_up
from phi3_core.replies import DEFAULT_MAX_NEW_TOKENS, GenerationSettings
from phi3_core.store.store import Store
from phi3_core.values import LOOKUPS, PRECISIONS, Sampling

# For each setting that has a flag: the flag, and how the file, a variable and the flag spell three values.
FLAGS = {
    "model": ("--model", "'a'", "b", "c", ("a", "b", "c")),
    "device": ("--device", "'npu'", "gpu", "cpu", ("npu", "gpu", "cpu")),
    "precision": ("--precision", "'int4'", "int8", "fp16", ("int4", "int8", "fp16")),
    "policy": ("--policy", "'efficiency'", "performance", "auto", ("efficiency", "performance", "auto")),
    "max_new_tokens": ("--max-new-tokens", "1", "2", "3", (1, 2, 3)),
    "temperature": ("--temperature", "1", "0.5", "0", (1.0, 0.5, 0.0)),
    "top_k": ("--top-k", "1", "2", "0", (1, 2, 0)),
    "top_p": ("--top-p", "0.1", "0.2", "1", (0.1, 0.2, 1.0)),
    "repetition_penalty": ("--repetition-penalty", "1.1", "1.2", "1", (1.1, 1.2, 1.0)),
    "seed": ("--seed", "0", "1", "2", (0, 1, 2)),
    "lookup": ("--lookup", "'on'", "off", "auto", ("on", "off", "auto")),
    "system": ("--system", "'Hi'", "Ho", "", ("Hi", "Ho", "")),
    "stop": ("--stop", "['a', 'b']", "c", "d", (("a", "b"), ("c",), ["d"])),
    "stats": ("--no-stats", "true", "yes", None, (True, True, False)),
    "drop_oldest": ("--no-drop-oldest", "true", "1", None, (True, True, False)),
    "quiet": ("--no-quiet", "true", "on", None, (True, True, False)),
    "offline": ("--no-offline", "true", "TRUE", None, (True, True, False)),
}


def test_every_preference_has_a_flag():
    assert {setting.key for setting in SETTINGS if setting.commands_only} | {"offline"} == set(FLAGS)


@pytest.mark.parametrize("key", FLAGS)
def test_a_flag_comes_before_a_variable_and_that_before_the_file(configure, monkeypatch, key):
    flag, in_file, in_variable, on_line, wanted = FLAGS[key]
    command = "chat" if key == "drop_oldest" else "run"

    def found(*arguments):
        parsed = parser().parse_args([command, *arguments])
        configured.fill(parsed)
        return getattr(parsed, key)

    configure("")
    assert found() == BY_KEY[key].default
    configure(f"{key} = {in_file}")
    got = [found()]
    monkeypatch.setenv(BY_KEY[key].variable, in_variable)
    got.append(found())
    got.append(found(flag) if on_line is None else found(flag, on_line))
    assert got == list(wanted)
    monkeypatch.setenv(BY_KEY[key].variable, "")
    assert found() == wanted[0]


@pytest.mark.parametrize("command", [["models", "rm", "x"], ["plugins", "check", "x"]])
def test_flags_that_select_something_else_are_not_set(configure, command):
    configure("precision = 'int4'\ndevice = 'npu'")
    parsed = parser().parse_args(command)
    configured.fill(parsed)
    assert parsed.precision is None
    assert getattr(parsed, "device", None) is None


ANYTHING = {"PHI3_HOME", "PHI3_SHOW_OUTPUT"}
"""Variables that take anything that the system takes."""
PARTICULAR = [each for each in SETTINGS if each.key and each.variable not in ANYTHING]


@pytest.mark.parametrize("setting", PARTICULAR, ids=lambda each: each.key)
def test_a_wrong_variable_is_named(monkeypatch, setting):
    monkeypatch.setenv(setting.variable, "\udcff")
    with pytest.raises(UsageError, match=f"{setting.variable} is .*not ") as caught:
        values.find(setting.key)
    assert caught.value.hint == f"unset {setting.variable}"


def test_defaults_and_choices_are_those_of_the_library():
    defaults = {setting.key: setting.default for setting in SETTINGS}
    assert defaults["model"] == DEFAULT
    assert defaults["max_new_tokens"] == DEFAULT_MAX_NEW_TOKENS
    assert {field.name: defaults[field.name] for field in attrs.fields(Sampling)} == attrs.asdict(Sampling())
    assert defaults["lookup"] == GenerationSettings.of({}).lookup
    assert defaults["policy"] == selection.DeviceRequest().policy
    assert defaults["device"] == selection.DeviceRequest().device
    assert BY_KEY["precision"].kind.choices == PRECISIONS
    assert BY_KEY["policy"].kind.choices == selection.POLICIES
    assert BY_KEY["lookup"].kind.choices == LOOKUPS


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Sampling)])
@pytest.mark.parametrize("given", [-1, 0, 1e-9, 0.5, 1, 1.0001, 2, 2**32 - 1, 2**32, float("inf"), float("nan"), True])
def test_the_file_may_have_what_sampling_takes(name, given):
    try:
        Sampling(**{name: given})
        fits = not isinstance(given, bool)
    except (TypeError, ValueError, OverflowError):
        fits = False
    try:
        BY_KEY[name].kind.of_file(given)
        taken = True
    except ValueError:
        taken = False
    assert taken == fits


def test_paths_of_the_file_begin_at_its_folder(configure, monkeypatch, tmp_path):
    monkeypatch.delenv("PHI3_HOME")
    path = configure("home = 'store'\nmodel = './mini'\n[aliases]\nbig = '../big'\nhub = 'owner/name'")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert paths.home() == path.parent / "store"
    assert Path(values.value("model")) == path.parent / "mini"
    assert {name: Path(value) for name, value in values.aliases().items()} == {
        "big": path.parent / ".." / "big",
        "hub": Path("owner/name"),
    }
    configure("home = '~/phi3'")
    assert paths.home() == Path.home() / "phi3"
    monkeypatch.setenv("PHI3_HOME", "here")  # a variable's begin where the program was started
    assert paths.home() == elsewhere / "here"


def test_time_limits_may_be_in_the_file(configure, monkeypatch):
    for name in TIME_LIMITS_S:
        monkeypatch.delenv(f"PHI3_{name.upper()}_LIMIT", raising=False)
    configure("[limits]\nload = 5\ntoken = 0.5")
    assert {name: time_limit(name) for name in TIME_LIMITS_S} == {**TIME_LIMITS_S, "load": 5.0, "token": 0.5}
    monkeypatch.setenv("PHI3_LOAD_LIMIT", "7")
    assert time_limit("load") == 7.0


def test_an_alias_is_a_model_wherever_one_is_named(configure, plugins, parrot, run_main, monkeypatch):
    plugins.add("parrot")
    Path(plugins.site, "mine").mkdir()  # an alias comes before a folder
    configure(f"model = 'mine'\n[aliases]\nmine = 'tiny'\ntiny = '{parrot}'")
    assert look_up("mine", Store()) == look_up(parrot, Store())
    code, out, _ = run_main("models", "list", "--json")
    assert (code, '"mine": "tiny"' in out) == (0, True)
    for command in (["models", "show", "mine"], ["models", "pull", "mine"], ["models", "verify", "mine"]):
        code, _, err = run_main(*command)
        assert (code, err) == (0, err)
    with pytest.raises(phi3.ModelError) as caught:
        look_up("mime", Store())
    assert caught.value.hint == "did you mean mine?"


SHOWING = """
    import json, os, sys
    from phi3_core import config, paths

    @hookimpl
    def load(artifact, device, options):
        parsers = {"tomlkit"} if "coverage" in sys.modules else {"tomllib", "tomli", "tomlkit"}  # coverage reads TOML
        told = {
            "config": os.environ["PHI3_CONFIG"], "home": str(paths.home()), "token": config.time_limit("token"),
            "options": dict(options), "parsers": sorted(parsers & set(sys.modules)),
        }
        os.makedirs(paths.home(), exist_ok=True)
        with open(os.path.join(paths.home(), "told.json"), "w") as file:
            json.dump(told, file)
        return Engine()
"""


def test_a_worker_has_the_settings_and_does_not_read_the_file(configure, plugins, parrot, run_main, monkeypatch):
    plugins.add("parrot", changes=SHOWING)
    monkeypatch.delenv("PHI3_HOME")
    path = configure(
        f"home = 'store'\nmodel = '{parrot}'\nmax_new_tokens = 1\n[limits]\ntoken = 77\n"
        "[options.Parrot]\nCOLOUR = 'green'\nNUMBER = 5\n[options.parot]\nX = ''\n"
    )
    code, _, err = run_main("run", "Hello world", "--option", "NUMBER=6")
    assert (code, "the answer was cut off" in err) == (0, True)
    told = paths.read_json(path.parent / "store" / "told.json")
    options = {"COLOUR": "green", "NUMBER": "6"}
    home = str(path.parent / "store")
    assert told == {"config": "none", "home": home, "token": 77.0, "options": options, "parsers": []}
    assert "options.parot are for no backend; did you mean options.parrot?" in err


def test_a_worker_in_another_folder_has_the_same_store(plugins, parrot, monkeypatch):
    moved = SHOWING.replace("told = {", "os.chdir(os.sep)\n        told = {")
    assert moved != SHOWING
    plugins.add("parrot", changes=moved)
    monkeypatch.setenv("PHI3_HOME", "here")
    with phi3.load(parrot):
        pass
    assert paths.read_json(Path("here", "told.json"))["home"] == str(Path("here").absolute())


def test_a_program_is_not_changed_by_preferences(configure, plugins, parrot, monkeypatch):
    plugins.add("parrot", changes=SHOWING)
    configure(
        "model = 'nowhere'\ndevice = 'warp'\nprecision = 'int4'\nmax_new_tokens = 1\nsystem = 'Be brief.'\n"
        f"[options.parrot]\nCOLOUR = 'green'\n[aliases]\ntiny = '{parrot}'\n"
    )
    monkeypatch.setenv("PHI3_TEMPERATURE", "hot")
    with phi3.load("tiny") as model:
        assert model.generate("Hello world").text == "Hello world"
    assert paths.read_json(Path(os.environ["PHI3_HOME"], "told.json"))["options"] == {}


def test_what_no_flag_gave_is_named_in_an_error(configure, plugins, parrot, run_main, monkeypatch):
    plugins.add("parrot")
    path = configure(f"model = '{parrot}'\nprecision = 'int4'")
    monkeypatch.setenv("PHI3_DEVICE", "warp")
    code, _, err = run_main("run", "x")
    assert (code, len(err.splitlines())) == (3, 1)
    assert "no device fits 'warp'" in err
    assert "(phi3 devices; device = warp comes from PHI3_DEVICE)" in err
    code, _, err = run_main("run", "x", "-d", "parrot")
    assert (code, "PHI3_DEVICE" in err) == (3, False)
    assert f"(leave --precision out; precision = int4 comes from {path})" in err


REFUSING = """
    from phi3_core.backend import check_options

    @hookimpl
    def load(artifact, device, options):
        check_options("parrot", options, ["COLOUR"])
        return Engine()
"""


def test_an_option_of_the_file_that_an_engine_refuses_is_said_to_be_there(configure, plugins, parrot, run_main):
    plugins.add("parrot", changes=REFUSING)
    path = configure("[options.parrot]\nCOLOR = 'green'\n")
    code, _, err = run_main("run", "x", "-m", parrot, "-q")
    assert (code, err) == (2, f"phi3: parrot has no option COLOR (did you mean COLOUR?; COLOR is set in {path})\n")


def test_what_is_offline_by_the_file_says_so(configure, run_main, monkeypatch):
    configure("offline = true")
    code, _, err = run_main("models", "pull", "owner/name", "--source")
    assert (code, "(phi3 config unset offline" in err) == (4, True)
    with pytest.raises(phi3.ModelError) as caught:  # a program has not given a flag either
        HubClient("owner/name", None, offline=True)
    assert caught.value.hint == "phi3 config unset offline"
    monkeypatch.setenv("PHI3_OFFLINE", "1")
    assert "(unset PHI3_OFFLINE" in run_main("models", "pull", "owner/name", "--source")[2]
    configure("")
    monkeypatch.delenv("PHI3_OFFLINE")
    assert "(leave out --offline)" in run_main("models", "pull", "owner/name", "--source", "--offline")[2]
