"""What is installed, grouped, and what does not fit."""

from __future__ import annotations

import pytest
from phi3_core.doctor import conflicts, versions


@pytest.fixture
def install(plugins):
    """Installs a distribution: its requirements, and its modules."""

    def add(name, requires=(), version="2.0", modules=(), digest=""):
        info = plugins.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        record = [f"{module}/__init__.py,sha256=x,1" for module in modules]
        record += [f"{module}/library.so,sha256={digest or name},1" for module in modules]
        (info / "RECORD").write_text("\n".join([*record, f"{info.name}/RECORD,,"]), encoding="utf-8")

    return add


def test_each_distribution_has_what_it_runs_on(plugins, install):
    plugins.add("parrot")
    install("feathers", ["quill>=1", 'paint; extra == "colour"', "attrs"])
    install("quill", ["Some.Ink (>=2)"])
    install("some-ink")
    install("paint")
    install("seed")
    needs = ["phi3-core", "feathers", 'seed ; extra == "cage"', "nowhere", "attrs"]
    install("phi3-parrot", needs, version="1.0")
    found = versions.read_installed()
    first, *rest = found.stacks()
    assert first.distribution == "phi3-core"
    assert "attrs" in first.runtime
    (parrot,) = [each for each in rest if each.distribution == "phi3-parrot"]
    assert parrot.backends == ("parrot",)
    assert parrot.runtime == {"feathers": "2.0", "seed": "2.0"}  # an extra of ours counts
    assert parrot.others == {"quill": "2.0", "some-ink": "2.0"}  # an extra of others does not
    packages = found.packages()
    assert next(iter(packages)).startswith("phi3-")
    assert {"feathers", "quill", "some-ink", "seed", "attrs"} <= packages.keys()
    assert not {"paint", "nowhere"} & packages.keys()


def test_requirements_that_are_not_met(plugins, install):
    plugins.add("parrot")
    install("feathers")
    needs = ["feathers[long]>=3", "nowhere<2", 'missing; extra == "x"', "phi3-core<99", "feathers~=1.0", "feathers>=2"]
    install("phi3-parrot", needs, version="1.0")
    found = [each for each in conflicts.conflicts(versions.read_installed()) if "phi3-parrot" in each.message]
    assert [(each.severity, each.message, each.remedy) for each in found] == [
        (
            "error",
            "phi3-parrot 1.0 requires feathers[long]>=3, and feathers is 2.0",
            'pip install "feathers>=3"',
        ),
        ("error", "phi3-parrot 1.0 requires nowhere<2, and nowhere is not installed", 'pip install "nowhere<2"'),
    ]


def test_a_plugin_that_needs_another_core_is_broken_and_not_said_twice(plugins, install):
    plugins.add("parrot")
    install("phi3-parrot", ["phi3-core>=99"], version="1.0")
    assert not [each for each in conflicts.conflicts(versions.read_installed()) if "phi3-parrot" in each.message]


def test_two_runtimes_that_overwrite_each_other(plugins, install):
    plugins.add("parrot")
    install("runtime", modules=["runtime"])
    install("runtime-gpu", modules=["runtime"], version="3.0")
    install("other-a", modules=["other"])
    install("other-b", modules=["other"])
    install("phi3-parrot", ["runtime-gpu"], version="1.0")
    found = [each for each in conflicts.conflicts(versions.read_installed()) if "overwrite" in each.message]
    (one,) = found  # the other two are nothing that a backend needs
    assert one.message.startswith("runtime 2.0 and runtime-gpu 3.0 are both installed and overwrite each other's files")
    assert one.remedy == "pip uninstall -y runtime runtime-gpu, then pip install runtime-gpu==3.0"


def test_a_namespace_and_folders_of_tests_are_shared(plugins, install):
    plugins.add("parrot")
    install("part-a", modules=["space"], digest="same")
    install("part-b", modules=["space"], digest="same")
    install("other", modules=["tests"])
    install("another", modules=["tests"])
    install("phi3-parrot", ["part-a", "other"], version="1.0")
    assert not [each for each in conflicts.conflicts(versions.read_installed()) if "overwrite" in each.message]
