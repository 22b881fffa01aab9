// Keyboard shortcuts. Letters go with Alt+Shift, which neither browsers nor text fields use.

import { byId, make } from "./dom.js";

const FIXED = [
  [["Enter"], "Send the message"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer, or close what is open"],
  [["↑"], "Edit the last message, from an empty message box"],
];

/** Lets `actions`, {letter: [description, function]}, be called by Alt+Shift+letter. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (!event.altKey || !event.shiftKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    // The code, since on some keyboards Alt makes another character of a letter.
    const found = actions[event.code.replace(/^Key/, "")];
    if (!found) return;
    event.preventDefault();
    found[1]();
  });
  const letters = Object.entries(actions).map(([letter, [text]]) => [["Alt", "Shift", letter], text]);
  byId("shortcuts").querySelector("tbody").replaceChildren(...[...FIXED, ...letters].map(([keys, text]) => row(keys, text)));
}

function row(keys, text) {
  const combination = make("td");
  keys.forEach((key, index) => combination.append(...(index ? ["+"] : []), make("kbd", {}, key)));
  const name = make("th", { scope: "row" }, text);
  return make("tr", {}, name, combination);
}
