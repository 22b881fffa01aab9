// The message box.

import { byId } from "./dom.js";

const prompt = byId("prompt");
const onPhone = matchMedia("(pointer: coarse) and (hover: none)"); // Enter is the only way to a new line there

/** Moves the focus to the message box, unless that covers half of the screen with a keyboard. */
export function focusPrompt() {
  if (!onPhone.matches) prompt.focus();
}

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

/** Calls `send(text)`, which returns whether the text is on its way, and `edit()` for the last message. */
export function listenToPrompt({ send, edit }) {
  prompt.addEventListener("input", fit);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "ArrowUp" && !prompt.value) {
      event.preventDefault();
      edit();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !onPhone.matches) {
      event.preventDefault();
      byId("composer").requestSubmit();
    }
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!send(prompt.value)) return;
    prompt.value = "";
    fit();
  });
  document.querySelector("a.skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the conversation
    prompt.focus();
  });
}
