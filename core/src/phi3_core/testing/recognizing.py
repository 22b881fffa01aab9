"""``recognize``: the weights that the backend has made, and nobody else's."""

from __future__ import annotations

from phi3_core.values import Artifact

from .base import ContractBase
from .subject import Subject


class Recognizing(ContractBase):
    """What ``recognize`` takes for weights of this backend."""

    def test_recognize_knows_what_quantize_has_made(self, subject: Subject, offered: str, made: Artifact) -> None:
        """And its precision, without the manifest."""
        self.needs(subject, "recognize")
        assert subject.call("recognize", path=made.path) == offered

    def test_recognize_leaves_to_others_what_is_not_its_own(self, subject: Subject, hooks: tuple[str, ...]) -> None:
        """An empty folder, text, and bytes without a meaning."""
        self.needs(subject, "recognize")
        folder = subject.empty("others")
        (empty := folder / "empty").mkdir()
        (filled := folder / "filled").mkdir()
        (filled / "README.md").write_text("Not a model.", encoding="utf-8")
        (filled / "weights.dat").write_bytes(bytes(range(256)) * 8)
        for path in (empty, filled, filled / "README.md", filled / "weights.dat", folder / "missing"):
            found = subject.call("recognize", path=path)
            assert found is None, f"recognize takes {path.name} for weights of {found}"
