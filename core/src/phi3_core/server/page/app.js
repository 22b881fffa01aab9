// The page: what can be done with conversations, and which element does it.

import { generate } from "./answer.js";
import * as api from "./api.js";
import { focusPrompt, listenToPrompt } from "./composer.js";
import { addressOf, nameByFirst, newConversation, newMessage, newVersion, settle, shown } from "./conversation.js";
import { byId, copied, copy, download, question } from "./dom.js";
import { lasts } from "./history.js";
import { listen } from "./keyboard.js";
import { Library } from "./library.js";
import { MessageList } from "./messagelist.js";
import { announce } from "./presence.js";
import { ServerState } from "./serverstate.js";
import { defaults, keepDefaults, openSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";

const SAVE_EVERY_MS = 2000; // what a page that is closed in the middle of an answer may lose
const list = new MessageList();
const sidebar = new Sidebar();
const answering = new Map(); // conversations, and how to stop them
const library = new Library((conversation) => answering.has(conversation));
const server = new ServerState(askForKey);
let asking = null; // for the API key
let current = newConversation(defaults());

// Showing

function showAll() {
  byId("title").textContent = current.title;
  document.title = current.messages.length ? `${current.title} – phi3` : "phi3";
  byId("rename").hidden = !current.messages.length;
  list.show(current);
  showState();
}

function showState() {
  const busy = answering.has(current);
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  server.choose(current.settings.model);
  sidebar.show(library.conversations, current, answering);
}

function open(conversation) {
  current = conversation;
  const hash = current.messages.length ? addressOf(current) : "";
  if (location.hash !== hash) history.pushState(null, "", hash || location.pathname + location.search);
  showAll();
}

function openNew() {
  open(newConversation(defaults()));
  sidebar.close();
  focusPrompt();
}

function openByAddress() {
  const found = library.conversations.find((conversation) => addressOf(conversation) === location.hash);
  if (found === current && found) return;
  open(found ?? (current.messages.length ? newConversation(defaults()) : current));
}

// Keeping

async function keep(conversation, options) {
  try {
    const isCopy = await library.keep(conversation, options);
    if (!isCopy || conversation !== current) return;
    open(conversation);
    server.say("Another tab has gone on with this conversation, so what was said here is a copy of its own.");
  } catch (error) {
    server.say(`The browser could not keep the conversation: ${error?.message ?? error}`);
  }
}

/** Shows what another tab has changed. */
async function reload() {
  await library.reload();
  const found = library.find(current.id);
  if (found && found !== current) {
    current = found;
    showAll();
  } else if (!found && current.messages.length && !answering.has(current)) {
    openNew();
  } else {
    showState();
  }
}

async function deleteOne(conversation) {
  if (!(await question(`Delete “${conversation.title}”?`, { confirm: "Delete" }))) return;
  answering.get(conversation)?.abort();
  await library.remove(conversation);
  if (conversation === current) openNew();
  else showState();
}

async function deleteAll() {
  if (!(await question("Delete all conversations of this browser?", { confirm: "Delete all" }))) return;
  for (const stop of answering.values()) stop.abort();
  await library.clear();
  openNew();
}

async function rename() {
  const title = await question("Rename the conversation", { confirm: "Rename", field: "Title", value: current.title });
  if (!title || !title.trim()) return;
  current.title = title.trim();
  byId("title").textContent = current.title;
  await keep(current, { touched: false });
  showState();
}

function exportAll() {
  const date = new Date().toISOString().slice(0, 10);
  download(`phi3-conversations-${date}.json`, "application/json", library.exported());
}

// Asking

/** Generates the shown version of a message, the last one of its conversation. */
async function answer(conversation, message) {
  const stop = new AbortController();
  answering.set(conversation, stop);
  const end = announce(conversation);
  nameByFirst(conversation);
  await keep(conversation);
  if (conversation === current) open(conversation);
  if (!server.model) await server.check();
  if (conversation === current && server.model) conversation.settings.model = server.model;
  let saved = performance.now();
  const onChange = () => {
    list.update(message);
    if (performance.now() - saved < SAVE_EVERY_MS || !library.has(conversation)) return;
    saved = performance.now();
    keep(conversation);
  };
  let refused = null;
  try {
    await generate(conversation, message, { signal: stop.signal, onChange });
    server.answered(shown(message));
  } catch (error) {
    refused = error;
  }
  answering.delete(conversation);
  if (library.has(conversation)) await keep(conversation);
  end();
  showState();
  if (refused) {
    if (await askForKey(refused.message)) again(conversation, message);
  } else if (shown(message).state === "failed") {
    server.check();
  }
}

/** Sends a message; returns whether that is possible now. */
function send(text) {
  if (!text.trim() || answering.has(current)) return false;
  settle(current); // another tab may be in the middle of an answer
  const message = newMessage("assistant", newVersion("", "answering"));
  current.messages.push(newMessage("user", newVersion(text)), message);
  list.toEnd();
  answer(current, message);
  return true;
}

/** Answers once more; an answer that has text stays as an older version. */
function again(conversation = current, message = current.messages.at(-1)) {
  if (message?.role !== "assistant" || answering.has(conversation)) return;
  settle(conversation);
  const version = newVersion("", "answering");
  if (shown(message).text) message.shown = message.versions.push(version) - 1;
  else message.versions[message.shown] = version;
  answer(conversation, message);
}

function edit(message = current.messages.findLast(({ role }) => role === "user")) {
  if (!message || answering.has(current)) return;
  list.edit(message, (text) => {
    if (text !== null) {
      current.messages.splice(current.messages.indexOf(message));
      send(text);
    }
    focusPrompt();
  });
}

function stop() {
  answering.get(current)?.abort();
  focusPrompt();
}

/** Asks for the API key, once for all who need it; returns whether there is a new one. */
function askForKey(why) {
  const field = "API key, kept until this tab is closed";
  asking ??= question(why, { confirm: "Use it", field, type: "password", pattern: "[!-~]+" })
    .then((key) => {
      if (key) api.setKey(key.trim());
      return Boolean(key);
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

function changeSettings() {
  openSettings(current.settings, (settings) => {
    current.settings = settings;
    keepDefaults(settings);
    if (current.messages.length) keep(current, { touched: false });
  });
}

// Elements

const ACTIONS = {
  "copy-code": (button) => copied(button, button.closest(".code").querySelector("code").textContent),
  copy: (button) => copied(button, shown(list.messageOf(button)).text),
  edit: (button) => edit(list.messageOf(button)),
  again: () => again(),
  previous: (button) => turn(list.messageOf(button), -1),
  next: (button) => turn(list.messageOf(button), 1),
};

function turn(message, step) {
  const { length } = message.versions;
  message.shown = (message.shown + step + length) % length;
  list.update(message);
  keep(current, { touched: false });
}

byId("messages").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button) ACTIONS[button.dataset.action]?.(button);
});
byId("conversations").addEventListener("click", (event) => {
  const id = event.target.closest("li")?.dataset.id;
  const found = library.find(id);
  if (!found) return;
  if (event.target.closest("[data-action=delete]")) deleteOne(found);
  else if (event.target.closest("a")) sidebar.close();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]") && answering.has(current)) stop();
});
byId("model").addEventListener("change", (event) => {
  current.settings.model = event.target.value;
  keepDefaults(current.settings);
});
listenToPrompt({ send, edit });
byId("stop").addEventListener("click", stop);
byId("new-conversation").addEventListener("click", openNew);
byId("rename").addEventListener("click", rename);
byId("open-settings").addEventListener("click", changeSettings);
byId("show-shortcuts").addEventListener("click", () => byId("shortcuts").showModal());
byId("export-all").addEventListener("click", exportAll);
byId("delete-all").addEventListener("click", deleteAll);
addEventListener("hashchange", openByAddress);
addEventListener("popstate", openByAddress);
library.addEventListener("changed-elsewhere", reload);
listen({
  N: ["New conversation", openNew],
  L: ["Go to the list of conversations", () => sidebar.open()],
  M: ["Go to the message box", () => byId("prompt").focus()],
  R: ["Generate the last answer again", () => again()],
  C: ["Copy the last answer", () => current.messages.length && copy(shown(current.messages.at(-1)).text)],
  S: ["Settings", changeSettings],
  K: ["Keyboard shortcuts", () => byId("shortcuts").showModal()],
});

await library.load();
openByAddress();
focusPrompt();
await server.check();
if (!(await lasts())) server.say("This browser keeps no data: conversations are lost when the page is closed.");
