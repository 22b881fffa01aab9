"""Asking, stopping, asking again and editing."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.slow  # a browser and a server


def texts(page, role):
    return page.locator(f".message.{role} .content").all_inner_texts()


def test_an_answer_says_which_device_gave_it_and_how_fast(page, ask):
    answer = ask(page, "Hello world")
    assert answer.locator(".content").inner_text() == "Hello world"
    facts = answer.locator(".facts").inner_text()
    assert re.search(r"^echo:CPU fp16 · echo-model · [\d.]+ tokens/s · first token after [\d.]+ m?s · 2 tokens$", facts)
    assert page.locator("#state").inner_text() == "echo:CPU fp16"


def test_an_answer_appears_while_it_is_generated_and_escape_stops_it(page, until):
    prompt = page.get_by_label("Message", exact=True)
    prompt.fill("0123456789" * 20)
    prompt.press("Enter")
    until(page, "document.querySelector('.assistant .content')?.textContent.length > 5")
    assert page.get_by_role("button", name="Stop").is_visible()
    prompt.press("Escape")
    page.get_by_text("Stopped.").wait_for()
    (said,) = texts(page, "assistant")
    assert 0 < len(said) < 200
    page.get_by_role("button", name="Send").wait_for()
    page.reload()  # it is kept
    page.locator(".message").nth(1).wait_for()
    assert texts(page, "assistant") == [said]


def test_a_stopped_answer_frees_its_place(page, until):
    prompt = page.get_by_label("Message", exact=True)
    for number in range(4):  # the engine gives two answers at once
        prompt.fill(f"{number}" * 300)
        prompt.press("Enter")
        until(page, f"document.querySelector('.assistant:last-child .content')?.textContent.includes('{number}')")
        page.get_by_role("button", name="Stop").click()
        page.locator(".assistant:last-child .tools").wait_for()


def test_another_answer_is_a_version_beside_the_first(page, ask):
    ask(page, "Hello")
    page.get_by_role("button", name="Generate again").click()
    page.get_by_text("2 of 2").wait_for()
    page.get_by_role("button", name="Previous version").click()
    page.get_by_text("1 of 2").wait_for()
    assert texts(page, "assistant") == ["Hello"]


def test_editing_a_message_goes_on_from_there(page, ask, until):
    ask(page, "first")
    ask(page, "second")
    page.locator(".message.user").first.get_by_role("button", name="Edit").click()
    editor = page.get_by_label("Edit the message")
    assert page.get_by_text("This replaces the 3 messages below.").is_visible()
    editor.fill("other")
    editor.press("Enter")
    until(page, "document.querySelectorAll('.message').length === 2")
    page.locator(".message.assistant .tools").wait_for()
    assert (texts(page, "user"), texts(page, "assistant")) == (["other"], ["other"])


def test_the_arrow_edits_the_last_message_and_escape_leaves_it(page, ask):
    ask(page, "Hello")
    page.get_by_label("Message", exact=True).press("ArrowUp")
    editor = page.get_by_label("Edit the message")
    assert editor.input_value() == "Hello"
    editor.press("Escape")
    assert texts(page, "user") == ["Hello"]
    assert page.get_by_label("Message", exact=True).evaluate("element => element === document.activeElement")


def test_shift_and_enter_make_a_new_line(page, ask):
    prompt = page.get_by_label("Message", exact=True)
    prompt.press_sequentially("one")
    prompt.press("Shift+Enter")
    prompt.press_sequentially("two")
    assert prompt.input_value() == "one\ntwo"
    prompt.press("Enter")
    page.locator(".assistant .tools").wait_for()
    assert texts(page, "user") == ["one\ntwo"]


def test_settings_are_sent_and_begin_new_conversations(page, ask):
    page.keyboard.press("Alt+Shift+S")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Maximum tokens").fill("1")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_role("button", name="Done").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        answer = ask(page, "Hello world")
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["temperature"]) == (1, 0.5)
    assert "seed" not in body
    assert answer.locator(".content").inner_text() == "Hello"
    assert "cut off at the maximum number of tokens" in answer.locator(".facts").inner_text()
    page.reload()
    page.keyboard.press("Alt+Shift+N")
    page.keyboard.press("Alt+Shift+S")
    assert page.get_by_label("Maximum tokens").input_value() == "1"


def test_the_page_works_with_the_keyboard_alone(page):
    page.locator("#state.well").wait_for()
    page.keyboard.type("Hello")  # the message box has the focus
    page.keyboard.press("Enter")
    page.locator(".assistant .tools").wait_for()
    page.keyboard.press("Alt+Shift+R")
    page.get_by_text("2 of 2").wait_for()
    page.keyboard.press("Alt+Shift+L")
    assert page.evaluate("document.activeElement.textContent") == "Hello"
    page.keyboard.press("Alt+Shift+K")
    assert page.get_by_role("heading", name="Keyboard shortcuts").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+Shift+N")
    assert page.get_by_role("heading", name="Ask a model on this machine").is_visible()
    page.keyboard.press("Alt+Shift+M")
    assert page.evaluate("document.activeElement.id") == "prompt"
