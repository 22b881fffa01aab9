// The conversations of this browser, in all of its tabs.

import { becomeCopy, isAnswering, settle } from "./conversation.js";
import * as history from "./history.js";
import { answeredNow, whenAnswered } from "./presence.js";

export class Library extends EventTarget {
  /** The latest first. */
  conversations = [];
  #changes = 0;
  #isBusy;
  #watched = new Set();
  #keeping = Promise.resolve();
  #tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("phi3-chat") : null;

  /** `isBusy` says whether this tab answers a conversation. */
  constructor(isBusy) {
    super();
    this.#isBusy = isBusy;
    this.#tabs?.addEventListener("message", () => this.dispatchEvent(new Event("changed-elsewhere")));
  }

  async load() {
    const isAnswered = await answeredNow();
    this.conversations = await history.all();
    for (const conversation of this.conversations) {
      if (isAnswered(conversation)) this.#watch(conversation);
      else settle(conversation);
    }
  }

  /** Waits until no tab answers a conversation any more: the answer is kept then, or its tab was closed. */
  #watch({ id }) {
    if (this.#watched.has(id)) return;
    this.#watched.add(id);
    whenAnswered({ id }, async () => {
      this.#watched.delete(id);
      await this.reload();
      const own = this.find(id);
      if (!own || !isAnswering(own) || this.#isBusy(own)) return;
      const settled = settle(structuredClone(own));
      this.conversations = this.conversations.map((each) => (each === own ? settled : each));
      this.dispatchEvent(new Event("changed-elsewhere"));
    });
  }

  /** Takes over what another tab has changed, except for conversations that are answered here. */
  async reload() {
    let kept, changes;
    do {
      changes = this.#changes;
      await this.#keeping;
      kept = await history.all();
    } while (changes !== this.#changes); // this tab has kept something meanwhile
    this.conversations = kept.map((conversation) => {
      const own = this.find(conversation.id);
      if (own && this.#isBusy(own)) return Object.assign(own, { title: conversation.title });
      const isSame = own?.revision === conversation.revision && own?.title === conversation.title;
      if (!isSame && isAnswering(conversation)) this.#watch(conversation);
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
