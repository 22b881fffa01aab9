// The conversations of this browser, in all of its tabs.

import { settle } from "./conversation.js";
import * as history from "./history.js";

export class Library extends EventTarget {
  /** The latest first. */
  conversations = [];
  #tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("phi3-chat") : null;

  constructor() {
    super();
    this.#tabs?.addEventListener("message", () => this.dispatchEvent(new Event("changed-elsewhere")));
  }

  async load() {
    this.conversations = (await history.all()).map(settle);
  }

  /** Takes over what another tab has changed, except for conversations that `isBusy` here. */
  async reload(isBusy) {
    const kept = await history.all();
    this.conversations = kept.map((conversation) => {
      const own = this.find(conversation.id);
      const same = own?.updated === conversation.updated && own.title === conversation.title;
      return own && (same || isBusy(own)) ? own : conversation;
    });
  }

  find(id) {
    return this.conversations.find((conversation) => conversation.id === id);
  }

  has(conversation) {
    return this.conversations.includes(conversation);
  }

  /** Keeps a conversation, and unless it is only renamed or looked at, as the latest one. */
  async keep(conversation, { touched = true } = {}) {
    if (touched) conversation.updated = Date.now();
    this.conversations = [conversation, ...this.conversations.filter((each) => each.id !== conversation.id)];
    this.conversations.sort((one, other) => other.updated - one.updated);
    await history.save(conversation);
    this.#tell();
  }

  async remove(conversation) {
    this.conversations = this.conversations.filter((each) => each !== conversation);
    await history.remove(conversation.id);
    this.#tell();
  }

  async clear() {
    this.conversations = [];
    await history.clear();
    this.#tell();
  }

  /** Returns all conversations as JSON. */
  exported() {
    return JSON.stringify({ version: 1, conversations: this.conversations }, null, 2);
  }

  #tell() {
    this.#tabs?.postMessage("changed");
  }
}
