// The list of conversations, and on narrow screens its opening and closing.

import { addressOf } from "./conversation.js";
import { byId, iconButton, make } from "./dom.js";

const narrow = matchMedia("(max-width: 48rem)");

export class Sidebar {
  #nav = byId("sidebar");
  #list = byId("conversations");
  #opener = byId("open-sidebar");

  constructor() {
    this.#opener.addEventListener("click", () => this.open());
    byId("close-sidebar").addEventListener("click", () => this.close());
    narrow.addEventListener("change", () => this.close());
    this.#nav.addEventListener("keydown", (event) => this.#key(event));
    // The page beside the list is inert, so a press there comes from the room around it.
    byId("app").addEventListener("pointerdown", (event) => {
      if (this.isOpen && !this.#nav.contains(event.target)) this.close();
    });
    this.close();
  }

  get isOpen() {
    return document.body.classList.contains("sidebar-open");
  }

  /** Opens it where it lies over the page, and moves the focus to the open conversation or the first button. */
  open() {
    if (narrow.matches) this.#set(true);
    (this.#list.querySelector("[aria-current]") ?? byId("new-conversation")).focus();
  }

  close() {
    const had = this.isOpen;
    this.#set(false);
    if (had) this.#opener.focus();
  }

  #set(open) {
    document.body.classList.toggle("sidebar-open", open);
    this.#opener.setAttribute("aria-expanded", String(open));
    this.#nav.inert = narrow.matches && !open;
    byId("room").inert = open;
  }

  show(conversations, current, answering) {
    const focused = this.#list.contains(document.activeElement) && document.activeElement.closest("li")?.dataset.id;
    this.#list.replaceChildren(
      ...conversations.map((conversation) => {
        const open = make("a", { href: addressOf(conversation), title: conversation.title }, conversation.title);
        if (conversation.id === current.id) open.setAttribute("aria-current", "page");
        const item = make("li", { dataset: { id: conversation.id } }, open);
        if (answering.has(conversation)) item.append(make("span", { className: "busy", role: "img", ariaLabel: "answering" }));
        item.append(iconButton("delete", `Delete “${conversation.title}”`, "delete"));
        return item;
      }),
    );
    if (focused) this.#list.querySelector(`li[data-id="${focused}"] a`)?.focus();
  }

  /** Arrow keys go through the list. */
  #key(event) {
    if (event.key === "Escape" && this.isOpen) {
      this.close();
      event.stopPropagation();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = [...this.#list.querySelectorAll("a")];
    const index = links.indexOf(document.activeElement);
    if (!step || index < 0) return;
    event.preventDefault();
    links[Math.min(Math.max(index + step, 0), links.length - 1)].focus();
  }
}
