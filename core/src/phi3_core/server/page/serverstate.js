// What is known of the server: its models, whether it answers, and on which device.

import * as api from "./api.js";
import { byId, make } from "./dom.js";
import { place } from "./facts.js";

const AGAIN_MS = 3000; // while it does not answer
const STALE_MS = 30_000; // after which a look at the page asks again

export class ServerState {
  #select = byId("model");
  #state = byId("state");
  #notice = byId("notice");
  #askForKey;
  #models = [];
  #checked = -Infinity;
  #timer;
  #wanted = "";

  /** `askForKey(why)` is called where the server wants a key; it returns whether there is a new one. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
    this.#select.addEventListener("change", () => this.#ready());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && performance.now() - this.#checked > STALE_MS) this.check();
    });
  }

  /** The name of the chosen model; empty before the server has said which it has. */
  get model() {
    return this.#select.value;
  }

  choose(name) {
    this.#wanted = name ?? "";
    if (this.#wanted && [...this.#select.options].some(({ value }) => value === name)) this.#select.value = name;
  }

  /** Says something beside the message box; an empty text takes it away. */
  say(text) {
    if (this.#notice.textContent !== text) this.#notice.textContent = text;
  }

  /** Says where an answer came from. */
  answered(version) {
    if (version.state === "failed") return;
    const { device, precision } = version.facts;
    if (device) this.#show("well", place({ device, precision }));
  }

  /** Asks the server how it is; asks again by itself until it answers. */
  async check() {
    clearTimeout(this.#timer);
    this.#checked = performance.now();
    try {
      this.#offer(await api.models());
      this.#ready();
      await api.checkHealth();
      this.say("");
    } catch (error) {
      this.#show("ill", error.kind === "unreachable" ? "no answer" : "not ready");
      this.say(error.kind === "unreachable" ? `No answer. The page asks every ${AGAIN_MS / 1000} s until there is one.` : error.message);
      if (error.kind === "unauthorized") this.#askForKey(error.message).then((given) => given && this.check());
      else this.#timer = setTimeout(() => this.check(), AGAIN_MS);
    }
  }

  #offer(models) {
    const kept = this.#wanted || this.#select.value;
    this.#models = models;
    this.#select.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
    this.choose(kept);
  }

  #ready() {
    const { device, precision } = this.#models.find(({ id }) => id === this.model) ?? {};
    this.#show("well", device ? place({ device, precision }) : "ready");
  }

  #show(state, text) {
    this.#state.className = state;
    this.#state.textContent = text;
  }
}
