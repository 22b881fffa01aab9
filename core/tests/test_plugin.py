"""The contract's number: a plugin may state the one it was written for, and one that does not fit is told so."""

from __future__ import annotations

import phi3_core as phi3
import pytest
from phi3_core import plugin, windows
from phi3_core.hookspecs import CONTRACT
from phi3_core.machine import this_machine
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


def test_the_number_is_public():
    assert phi3.CONTRACT == CONTRACT == 1
