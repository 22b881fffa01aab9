// The messages of the open conversation as elements. What a click means is a matter of whoever listens (app.js).

import { shown } from "./conversation.js";
import { byId, iconButton, make } from "./dom.js";
import { facts } from "./facts.js";
import { MarkdownView } from "./markdown.js";

const NEAR_END = 60; // pixels from the end within which the view follows the answer

export class MessageList {
  #list = byId("messages");
  #log = byId("log");
  #announcer = byId("announcer");
  #views = new Map();
  #waiting = new Set();
  #following = true;
  conversation = null;

  constructor() {
    this.#log.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    // Beside a notice or a longer message there is less room.
    new ResizeObserver(() => this.#following && this.toEnd()).observe(this.#log);
    byId("to-end").addEventListener("click", () => this.toEnd());
  }

  /** Shows a conversation from its first to its last message. */
  show(conversation) {
    const other = this.conversation !== conversation;
    this.conversation = conversation;
    this.#views.clear();
    this.#list.replaceChildren();
    this.#announcer.replaceChildren();
    for (const message of conversation.messages) this.#add(message);
    this.#refresh();
    if (other) this.toEnd();
  }

  /** Shows what is new in one message, with the next frame. */
  update(message) {
    if (!this.#views.has(message)) return; // of another conversation
    if (!this.#waiting.size) requestAnimationFrame(() => this.#draw());
    this.#waiting.add(message);
  }

  toEnd() {
    this.#following = true;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#noteScroll();
  }

  /** Returns the message that an element of the list belongs to. */
  messageOf(element) {
    const id = element.closest("li.message")?.dataset.id;
    return this.conversation.messages.find((message) => message.id === id);
  }

  /** Puts an editor in the place of a user's message; calls back with the text, or with null. */
  edit(message, done) {
    const view = this.#views.get(message);
    const later = this.conversation.messages.length - this.conversation.messages.indexOf(message) - 1;
    const area = make("textarea", { value: shown(message).text, rows: 3 });
    area.setAttribute("aria-label", "Edit the message");
    const send = make("button", { type: "button", className: "filled" }, "Send");
    const cancel = make("button", { type: "button" }, "Cancel");
    const note = make("p", { className: "note" }, later > 1 ? `This replaces the ${later} messages below.` : "");
    const editor = make("div", { className: "editor" }, area, make("div", { className: "row end" }, note, cancel, send));
    const finish = (text) => {
      editor.replaceWith(view.content, view.footer);
      done(text);
    };
    send.addEventListener("click", () => area.value.trim() && finish(area.value));
    cancel.addEventListener("click", () => finish(null));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") finish(null);
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send.click();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    view.footer.remove();
    view.content.replaceWith(editor);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
    editor.scrollIntoView({ block: "nearest" });
  }

  #add(message) {
    const own = message.role === "user";
    const content = make("div", { className: "content" });
    const footer = make("div", { className: "footer" });
    const heading = make("h2", { className: "unseen" }, own ? "You" : "Answer");
    const item = make("li", { className: `message ${message.role}`, dataset: { id: message.id } }, heading, content, footer);
    this.#list.append(item);
    const view = { item, content, footer, markdown: own ? null : new MarkdownView(content), announced: 0 };
    this.#views.set(message, view);
    if (own) content.textContent = shown(message).text;
    else view.announced = view.markdown.show(shown(message).text);
    if (shown(message).state === "answering") view.announced = 0;
    this.#foot(message, view);
  }

  #draw() {
    for (const message of this.#waiting) {
      const view = this.#views.get(message);
      if (!view) continue;
      const count = view.markdown.show(shown(message).text);
      const answering = shown(message).state === "answering";
      this.#announce(view, answering ? count - 1 : count);
      this.#foot(message, view);
    }
    this.#waiting.clear();
    this.#refresh();
  }

  /** Hands whole paragraphs to screen readers: words one by one would interrupt each other. */
  #announce(view, until) {
    for (; view.announced < until; view.announced += 1) {
      this.#announcer.append(make("p", {}, view.content.children[view.announced]?.textContent.trim() ?? ""));
    }
  }

  #foot(message, view) {
    const version = shown(message);
    const { state, waiting, error, text } = version;
    const key = JSON.stringify([state, waiting, error, Boolean(text), message.shown, this.#isLast(message)]);
    if (view.footer.dataset.key === key) return; // buttons keep the focus
    view.footer.dataset.key = key;
    view.item.classList.toggle("answering", version.state === "answering");
    view.footer.replaceChildren(...this.#lines(version), ...this.#tools(message, version));
  }

  #lines(version) {
    const said = version.waiting || version.error || (version.state === "stopped" ? "Stopped." : "");
    const line = make("p", { className: version.error ? "error" : "note" }, said);
    const figures = version.state === "answering" || !version.text ? "" : facts(version);
    return [...(said ? [line] : []), ...(figures ? [make("p", { className: "facts" }, figures)] : [])];
  }

  #tools(message, version) {
    if (version.state === "answering") return [];
    const own = message.role === "user";
    const tools = make("div", { className: "tools" });
    if (version.text) tools.append(iconButton("copy", "Copy", "copy"));
    if (own) tools.append(iconButton("edit", "Edit", "edit"));
    else if (this.#isLast(message)) tools.append(iconButton("again", "Generate again", "again"));
    if (message.versions.length > 1) {
      const number = make("span", {}, `${message.shown + 1} of ${message.versions.length}`);
      tools.append(iconButton("previous", "Previous version", "previous"), number, iconButton("next", "Next version", "next"));
    }
    return [tools];
  }

  #isLast(message) {
    return this.conversation.messages.at(-1) === message;
  }

  #refresh() {
    byId("welcome").hidden = this.conversation.messages.length > 0;
    if (this.#following) this.#log.scrollTop = this.#log.scrollHeight;
    this.#noteScroll();
  }

  #noteScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END;
    byId("to-end").hidden = this.#following;
  }
}
