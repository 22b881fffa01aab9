// The settings of a conversation, and those that a new one begins with.

import { byId } from "./dom.js";

const KEY = "phi3-settings";
export const NUMBERS = ["temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed"];
const MOST_STOP_STRINGS = 16; // as the server has it

/** Returns the settings that new conversations begin with. */
export function defaults() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

export function keepDefaults(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // The browser keeps nothing: the settings are those of this conversation only.
  }
}

/** Lets the settings be changed; calls back with the new ones. */
export function openSettings(settings, onDone) {
  const dialog = byId("settings");
  const form = dialog.querySelector("form");
  const fields = form.elements;
  const fill = (values) => {
    fields.system.value = values.system ?? "";
    for (const name of NUMBERS) fields[name].value = values[name] ?? "";
    fields.stop.value = (values.stop ?? []).join("\n");
    complain(fields);
  };
  fill(settings);
  fields.stop.oninput = () => complain(fields);
  byId("reset-settings").onclick = () => fill({});
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "save") return;
    const numbers = NUMBERS.map((name) => [name, fields[name].value === "" ? undefined : fields[name].valueAsNumber]);
    onDone({ ...settings, ...Object.fromEntries(numbers), system: fields.system.value, stop: stopStrings(fields) });
  };
  dialog.showModal();
}

function stopStrings(fields) {
  return fields.stop.value.split("\n").filter((line) => line !== "");
}

function complain(fields) {
  const many = stopStrings(fields).length > MOST_STOP_STRINGS;
  fields.stop.setCustomValidity(many ? `At most ${MOST_STOP_STRINGS} stop strings` : "");
}
