"""Conversations that the browser keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a browser and a server


def titles(page):
    return page.locator("#conversations a").all_inner_texts()


def test_conversations_are_kept_and_found_again(page, ask):
    ask(page, "the capital of France")
    page.get_by_role("button", name="New conversation").click()
    ask(page, "Hello world")
    assert titles(page) == ["Hello world", "the capital of France"]
    page.get_by_role("link", name="the capital of France").click()
    page.locator(".message.user", has_text="the capital").wait_for()
    page.reload()  # the address names the conversation
    page.locator(".message.user", has_text="the capital").wait_for()
    page.go_back()
    page.locator(".message.user", has_text="Hello world").wait_for()


def test_the_history_is_part_of_what_is_asked(page, ask):
    ask(page, "one")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "two")
    roles = [(message["role"], message["content"]) for message in sent.value.post_data_json["messages"]]
    assert roles == [("user", "one"), ("assistant", "one"), ("user", "two")]


def test_a_conversation_is_renamed_and_deleted(page, ask):
    ask(page, "Hello")
    page.get_by_role("button", name="Rename the conversation").click()
    page.get_by_label("Title").fill("Greetings")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_role("heading", name="Greetings").wait_for()
    page.reload()
    page.get_by_role("button", name="Delete “Greetings”").wait_for()
    assert titles(page) == ["Greetings"]
    page.get_by_role("button", name="Delete “Greetings”").click()
    page.get_by_role("button", name="Cancel").click()
    assert titles(page) == ["Greetings"]
    page.get_by_role("button", name="Delete “Greetings”").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="Ask a model on this machine").wait_for()
    page.reload()
    assert titles(page) == []


def test_all_conversations_are_exported_and_deleted(page, ask, until):
    ask(page, "Hello")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export conversations").click()
    assert download.value.suggested_filename.endswith(".json")
    exported = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    (conversation,) = exported["conversations"]
    assert [message["versions"][0]["text"] for message in conversation["messages"]] == ["Hello", "Hello"]
    page.get_by_role("button", name="Delete conversations").click()
    page.get_by_role("button", name="Delete all").click()
    until(page, "document.querySelectorAll('#conversations li').length === 0")
    page.reload()
    assert titles(page) == []


def test_another_tab_sees_what_is_new(page, ask, echo):
    other = page.context.new_page()
    other.goto(f"{echo.url}/")
    ask(page, "Hello")
    other.get_by_role("link", name="Hello").wait_for()
    other.close()


@pytest.mark.parametrize("name", ["indexedDB", "localStorage", "sessionStorage"])
def test_a_browser_that_keeps_nothing_can_be_used(open_page, echo, ask, name):
    """As with cookies blocked, where it throws when a page only looks at its storage."""
    refuse = 'get() { throw new DOMException("no", "SecurityError"); }'
    page = open_page(echo, before=f'Object.defineProperty(globalThis, "{name}", {{ {refuse} }})')
    if name == "indexedDB":
        page.get_by_text("This browser keeps no data").wait_for()
    assert ask(page, "one").locator(".content").inner_text() == "one"
    page.get_by_role("button", name="New conversation").click()
    page.keyboard.press("Alt+Shift+S")
    page.get_by_label("Maximum tokens").fill("5")
    page.get_by_role("button", name="Done").click()
    page.get_by_label("Theme").select_option("dark")
    assert ask(page, "two").locator(".content").inner_text() == "two"
    assert titles(page) == ["two", "one"]


@pytest.fixture
def two_tabs(page, ask, echo):
    """Two tabs that show the same conversation."""
    ask(page, "Hello")
    other = page.context.new_page()
    other.goto(page.url)
    other.locator(".message.assistant").wait_for()
    yield page, other
    other.close()


def said(page):
    return page.locator(".message .content").all_inner_texts()


def send(page, text):
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop", exact=True).wait_for()


def wait_for_answer(page):
    page.locator(".message").last.locator(".tools").wait_for()


def test_two_tabs_that_go_on_with_one_conversation_lose_nothing(two_tabs):
    one, other = two_tabs
    texts = ["1" * 60, "2" * 60]  # a digit takes 50 ms
    for page, text in zip(two_tabs, texts, strict=True):
        send(page, text)
    for page, text in zip(two_tabs, texts, strict=True):
        wait_for_answer(page)
        assert said(page)[-2:] == [text, text]
    one.get_by_text("Another tab has gone on with this conversation").wait_for()
    assert one.url != other.url
    for page, text in zip(two_tabs, texts, strict=True):
        page.reload()
        page.locator(".message").nth(3).wait_for()
        assert (said(page)[0], said(page)[-1]) == ("Hello", text)
        assert sorted(titles(page)) == ["Hello", "Hello (copy)"]


def open_beside(page):
    """Another tab with the conversation of `page`, opened now."""
    page.wait_for_timeout(100)  # until the lock is held
    other = page.context.new_page()
    other.goto(page.url)
    other.locator(".message").last.wait_for()
    return other


def test_a_new_tab_shows_that_another_one_is_being_answered(page, ask):
    ask(page, "Hello")
    send(page, "1" * 90)  # takes five seconds
    other = open_beside(page)
    assert "answering" in other.locator(".message").last.get_attribute("class")
    wait_for_answer(page)
    wait_for_answer(other)
    assert said(other) == said(page)
    other.close()


def test_an_answer_whose_tab_is_closed_is_shown_as_stopped(page, ask):
    ask(page, "Hello")
    answered = page.context.new_page()
    answered.goto(page.url)
    answered.locator(".message.assistant").wait_for()
    send(answered, "1" * 200)
    page.locator(".message").nth(3).wait_for()
    other = open_beside(answered)
    answered.close()
    for each in (page, other):
        each.locator(".message").last.get_by_text("Stopped").wait_for()
    other.close()


def test_a_tab_that_only_renames_a_conversation_does_not_part_it(two_tabs):
    one, other = two_tabs
    send(one, "1" * 60)
    other.get_by_role("button", name="Rename the conversation").click()
    other.get_by_label("Title").fill("Numbers")
    other.get_by_role("button", name="Rename", exact=True).click()
    wait_for_answer(one)
    one.reload()
    one.locator(".message").nth(3).wait_for()
    assert (said(one)[-1], titles(one)) == ("1" * 60, ["Numbers"])
