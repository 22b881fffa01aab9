// A conversation as it is kept, and what of it the server is asked.
//
// A message has versions, since an answer can be generated again: {id, role, versions: [version], shown}.
// A version is {text, state, error, facts}; state: answering, done, length, stopped or failed.

import { NUMBERS } from "./settings.js";

export const UNNAMED = "New conversation";
const TITLE_LENGTH = 60;

/** Returns a new identifier. crypto.randomUUID exists in secure contexts only. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(settings) {
  return { id: newId(), title: UNNAMED, updated: Date.now(), revision: 0, settings: { ...settings }, messages: [] };
}

/** Makes a conversation another one, which is new. */
export function becomeCopy(conversation) {
  Object.assign(conversation, { id: newId(), revision: 0, title: `${conversation.title} (copy)` });
}

/** Returns what the page's address ends with while a conversation is open. */
export function addressOf(conversation) {
  return `#c-${conversation.id}`;
}

export function newVersion(text = "", state = "done") {
  return { text, state, error: "", facts: {} };
}

export function newMessage(role, version) {
  return { id: newId(), role, versions: [version], shown: 0 };
}

export function shown(message) {
  return message.versions[message.shown];
}

/** Names a conversation after its first message, unless it has a name. */
export function nameByFirst(conversation) {
  if (conversation.title !== UNNAMED || !conversation.messages.length) return;
  const words = shown(conversation.messages[0]).text.trim().split(/\s+/).join(" ");
  const letters = Array.from(words); // not in the middle of a surrogate pair
  conversation.title = letters.length > TITLE_LENGTH ? `${letters.slice(0, TITLE_LENGTH).join("")}…` : words || UNNAMED;
}

/** Returns the request for the answer `message`: what was said before it, and the settings that are set. */
export function requestFor(conversation, message) {
  const before = conversation.messages.slice(0, conversation.messages.indexOf(message));
  const { model, system, stop } = conversation.settings;
  const messages = before
    .map((each) => ({ role: each.role, content: shown(each).text }))
    .filter(({ role, content }) => role !== "assistant" || content);
  if (system?.trim()) messages.unshift({ role: "system", content: system });
  const numbers = NUMBERS.map((name) => [name, conversation.settings[name]]);
  const set = [...numbers, ["stop", stop?.length ? stop : null]].filter(([, value]) => value !== undefined && value !== null);
  return { model, messages, ...Object.fromEntries(set) };
}

/** Whether an answer is not complete, as it was kept. */
export function isAnswering({ messages }) {
  return messages.some(({ versions }) => versions.some(({ state }) => state === "answering"));
}

/** Marks answers that no tab is generating any more, after a page was left in the middle of one. */
export function settle(conversation) {
  for (const version of conversation.messages.flatMap((message) => message.versions)) {
    if (version.state === "answering") version.state = "stopped";
    delete version.waiting;
  }
  return conversation;
}
