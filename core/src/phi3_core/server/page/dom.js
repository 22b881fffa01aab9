// Small helpers for elements.

export function byId(id) {
  return document.getElementById(id);
}

/** Makes an element with properties; `dataset` is merged, children are strings or elements. */
export function make(tag, { dataset, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** Makes a button with an icon of index.html. */
export function iconButton(icon, label, action) {
  const namespace = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(namespace, "svg");
  const use = document.createElementNS(namespace, "use");
  use.setAttribute("href", `#icon-${icon}`);
  picture.append(use);
  const button = make("button", { type: "button", className: "icon", title: label, dataset: { action } }, picture);
  button.setAttribute("aria-label", label);
  return button;
}

/** Puts text on the clipboard; without a secure context browsers have the old way only. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, className: "unseen" });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

/** Puts text on the clipboard, and lets the button say so. */
export async function copied(button, text) {
  const done = await copy(text);
  const label = button.getAttribute("aria-label");
  button.classList.toggle("done", done);
  button.setAttribute("aria-label", done ? "Copied" : "The browser did not allow copying");
  setTimeout(() => {
    button.classList.remove("done");
    button.setAttribute("aria-label", label);
  }, 1500);
}

/** Lets the browser save a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Asks a question; returns false if it was cancelled, else the text of the field, or true without one. */
export function question(text, { confirm, field = null, value = "", type = "text", pattern = ".*" }) {
  const dialog = byId("question");
  const [yes] = dialog.querySelectorAll("button[value=yes]");
  const label = byId("question-field");
  const input = label.querySelector("input");
  byId("question-text").textContent = text;
  yes.textContent = confirm;
  label.hidden = field === null;
  label.querySelector("span").textContent = field ?? "";
  Object.assign(input, { value, type, pattern, required: field !== null });
  byId("question-cancel").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  if (field !== null) input.select();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const answer = input.value;
        input.value = ""; // a key does not stay in the page
        resolve(dialog.returnValue === "yes" && (field === null || answer));
      },
      { once: true },
    );
  });
}
