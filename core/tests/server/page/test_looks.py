"""Themes, narrow screens, and who does not see them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a browser and a server

PHONE = {"width": 360, "height": 720}
LONG = """A paragraph with a very long word: {word}

```python
{line}
```

| {word} | b | c | d | e | f | g | h |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |
""".format(word="x" * 120, line="print('" + "y" * 150 + "')")


@pytest.fixture(scope="module")
def axe() -> str:
    module = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    (script,) = Path(module.__file__).parent.rglob("axe.min.js")
    return script.read_text(encoding="utf-8")


def faults(page, axe, *, but=()):
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["id"] not in but]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, echo, ask, axe, scheme):
    page = open_page(echo, color_scheme=scheme)
    assert faults(page, axe) == []
    ask(page, LONG)
    assert faults(page, axe) == []
    page.get_by_role("button", name="Settings").click()
    assert faults(page, axe) == []


def test_axe_finds_nothing_on_a_phone(open_page, echo, axe):
    page = open_page(echo, viewport=PHONE)
    page.get_by_role("button", name="Conversations", exact=True).click()
    # What is beside the open list is inert, also the main part and the heading.
    assert faults(page, axe, but=("landmark-one-main", "page-has-heading-one")) == []


def test_nothing_is_wider_than_a_phone(open_page, echo, ask):
    page = open_page(echo, viewport=PHONE)
    ask(page, LONG)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    wide = page.evaluate(
        """() => [...document.querySelectorAll("header *, main *")].filter((element) => {
            const { left, right, width } = element.getBoundingClientRect();
            return width > 1 && (left < -1 || right > innerWidth + 1) && !element.closest("pre, .table");
        }).map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    # What is taller than the list of messages is scrolled in it alone, also by the focus.
    ask(page, LONG)
    page.locator(".message.user").first.get_by_role("button", name="Edit").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Copy", exact=True).last.focus()
    assert page.evaluate("[document.scrollingElement.scrollTop, document.body.scrollTop]") == [0, 0]
    assert page.evaluate("document.scrollingElement.scrollHeight") <= PHONE["height"]
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="New conversation").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_the_theme_is_that_of_the_system_or_the_chosen_one(open_page, echo):
    page = open_page(echo, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_label("Theme").select_option("light")
    light = page.evaluate(ground)
    assert light == "rgb(255, 255, 255)" != dark
    page.reload()
    assert page.evaluate(ground) == light


def test_screen_readers_hear_whole_paragraphs(page, ask, until):
    page.evaluate(
        """() => {
            globalThis.heard = [];
            new MutationObserver((changes) => {
                for (const node of changes.flatMap((change) => [...change.addedNodes])) heard.push(node.textContent);
            }).observe(document.getElementById("announcer"), { childList: true });
        }"""
    )
    ask(page, "the capital of France\n\nis Paris")
    until(page, "heard.length === 2")
    assert page.evaluate("heard") == ["the capital of France", "is Paris"]
