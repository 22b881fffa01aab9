"""How plugins are registered: the contract they were written for, what the entry point names, and which hooks count."""

from __future__ import annotations

import phi3_core as phi3
import pytest
from phi3_core import plugin, windows
from phi3_core.errors import BackendError
from phi3_core.hookspecs import CONTRACT
from phi3_core.machine import this_machine
from phi3_core.testing import suite
from phi3_core.values import Refusal


@pytest.mark.parametrize(
    ("stated", "upgrade"), [(CONTRACT + 1, "phi3-core"), (0, "phi3-parrot"), ("one", "phi3-parrot")]
)
def test_a_plugin_for_another_contract_is_broken_and_told_what_to_upgrade(plugins, stated, upgrade):
    plugins.add("parrot", changes=f"\nCONTRACT = {stated!r}\n")
    (broken,) = phi3.survey().broken
    assert (broken.plugin, broken.distribution) == ("parrot", "phi3-parrot")
    assert f"phi3-parrot 1.0 was written for contract {stated!r}" in broken.error
    assert broken.error.endswith(f"upgrade {upgrade}")


@pytest.mark.parametrize("changes", ["", f"\nCONTRACT = {CONTRACT}\n"])
def test_a_plugin_for_this_contract_works_and_so_does_one_that_states_none(plugins, changes):
    plugins.add("parrot", changes=changes)
    found = phi3.survey()
    assert found.broken == ()
    assert [str(offer.device) for offer in found.offers] == ["parrot:CPU"]


def test_a_runtime_without_microsofts_cpp_runtime_is_refused_with_its_remedy(plugins, monkeypatch):
    changes = """
        @hookimpl
        def detect(machine):
            raise ImportError("DLL load failed while importing _parrot")
    """
    plugins.add("parrot", changes=changes)
    (backend,) = plugin.installed()[0]
    hooks = plugin.PluginHooks(backend)
    with pytest.raises(ImportError, match="_parrot"):
        hooks.detect(this_machine())
    monkeypatch.setattr(windows, "has_cpp_runtime", lambda: False)
    (refusal,) = hooks.detect(this_machine())
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "Microsoft's C++ runtime is not installed: DLL load failed while importing _parrot"
    assert "Redistributable" in refusal.remedy


def targeting(plugins, value: str) -> str:
    """Name something else in the entry point of a parrot, and return why it is broken."""
    file = plugins.site / "phi3_parrot-1.0.dist-info" / "entry_points.txt"
    file.write_text(f"[phi3]\nparrot = {value}\n[phi3_testing]\nparrot = {value}\n", encoding="utf-8")
    (broken,) = phi3.survey(refresh=True).broken
    return broken.error


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("phi3_parrot/hooks.py", ": write phi3_parrot.hooks"),
        ("phi3-parrot", ": write phi3_parrot"),
        ("phi3_parrot:", ""),
    ],
)
def test_an_entry_point_that_names_no_module_is_told_what_to_write(plugins, value, hint):
    plugins.add("parrot")
    words = f"the entry point parrot = {value!r} names no module{hint}"
    assert targeting(plugins, value) == words
    with pytest.raises(BackendError) as caught:
        suite.own_class("parrot")
    assert str(caught.value) == words


def test_a_class_in_place_of_its_object_is_said_to_be_one(plugins):
    plugins.add("parrot", changes="class Plugin:\n    @hookimpl\n    def detect(self, machine):\n        return []\n")
    assert targeting(plugins, "phi3_parrot:Plugin") == (
        "detect of phi3_parrot:Plugin takes the argument 'self' of a class: "
        "name an object of it in the entry point, not the class"
    )


def test_the_methods_of_an_object_are_hooks(plugins):
    changes = """
        class Plugin:
            detect, load, generate = map(staticmethod, (detect, load, generate))
            @hookimpl
            def diagnose(self, machine):
                return []
            def logits(self, engine, ids):
                return []
        plugin = Plugin()
    """
    plugins.add("parrot", changes=changes)
    words = "logits of phi3_parrot:plugin is there without @hookimpl: mark it, or rename it"
    assert targeting(plugins, "phi3_parrot:plugin") == words


def test_a_function_of_another_module_may_bear_the_name_of_a_hook(plugins):
    (plugins.site / "phi3_parrot_engine.py").write_text("def logits(ids):\n    return []\n", encoding="utf-8")
    plugins.add("parrot", changes="from phi3_parrot_engine import logits\n")
    (answer,) = phi3.survey().answers
    assert answer.hooks == ("detect", "generate", "load", "quantize")


def test_the_number_is_public():
    assert phi3.CONTRACT == CONTRACT == 1
