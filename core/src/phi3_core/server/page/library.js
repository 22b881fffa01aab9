// The conversations of this browser, in all of its tabs.

import { becomeCopy, settle } from "./conversation.js";
import * as history from "./history.js";

export class Library extends EventTarget {
  /** The latest first. */
  conversations = [];
  #changes = 0;
  #keeping = Promise.resolve();
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
    let kept, changes;
    do {
      changes = this.#changes;
      await this.#keeping;
      kept = await history.all();
    } while (changes !== this.#changes); // this tab has kept something meanwhile
    this.conversations = kept.map((conversation) => {
      const own = this.find(conversation.id);
      if (own && isBusy(own)) return Object.assign(own, { title: conversation.title });
      const isSame = own?.revision === conversation.revision && own?.title === conversation.title;
      return isSame ? own : conversation;
    });
  }

  find(id) {
    return this.conversations.find((conversation) => conversation.id === id);
  }

  has(conversation) {
    return this.conversations.includes(conversation);
  }

  /**
   * Keeps a conversation, and unless it is only renamed or looked at, as the latest one.
   * Where another tab has gone on with it, what was said here becomes a copy; returns whether it did.
   */
  keep(conversation, { touched = true } = {}) {
    if (touched) conversation.updated = Date.now();
    this.#put(conversation);
    const kept = this.#keeping.then(() => this.#keep(conversation, touched));
    this.#keeping = kept.catch(() => {}); // whoever has called hears of it
    return kept;
  }

  async #keep(conversation, touched) {
    const other = await history.save(conversation, { touched });
    if (other && touched) {
      becomeCopy(conversation);
      this.#put(conversation);
      await history.save(conversation, { touched });
    } else if (other) {
      const { title, settings } = conversation;
      await history.save(Object.assign(other, { title, settings }), { touched });
    }
    this.#tell();
    return Boolean(other && touched);
  }

  #put(conversation) {
    this.#changes += 1;
    this.conversations = [conversation, ...this.conversations.filter((each) => each.id !== conversation.id)];
    this.conversations.sort((one, other) => other.updated - one.updated);
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
