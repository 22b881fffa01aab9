// One answer: asked for, waited for where the server is busy, and measured.

import { ApiError, chat } from "./api.js";
import { requestFor, shown } from "./conversation.js";

const TRIES = 5;
const DEFAULT_WAIT_S = 3;

/**
 * Generates the shown version of `message`, and changes it as the answer comes.
 * Ends with its state set; throws an ApiError that the page has to do something about (a key is missing).
 */
export async function generate(conversation, message, { signal, onChange }) {
  const version = shown(message);
  const request = requestFor(conversation, message);
  version.facts = { model: request.model };
  try {
    for (let tries = 1; ; tries += 1) {
      try {
        await receive(request, version, signal, onChange);
        return;
      } catch (error) {
        if (error.kind !== "busy" || tries === TRIES) throw error;
        await wait(error, version, signal, onChange);
      }
    }
  } catch (error) {
    version.waiting = "";
    version.state = error.name === "AbortError" ? "stopped" : "failed";
    if (version.state === "failed") version.error = error.message;
    if (error.kind === "unauthorized") throw error;
    if (version.state === "failed" && !(error instanceof ApiError)) console.error(error);
  } finally {
    delete version.waiting;
    onChange();
  }
}

async function receive(request, version, signal, onChange) {
  const clock = { start: performance.now(), first: null, last: null };
  let finish = "stop";
  for await (const part of chat(request, signal)) {
    if (part.text) {
      clock.last = performance.now();
      clock.first ??= clock.last;
      version.text += part.text;
    }
    if (part.finish) finish = part.finish;
    if (part.usage) version.facts.tokens = part.usage.completion_tokens;
    if (part.runtime) Object.assign(version.facts, runtimeFacts(part.runtime));
    onChange();
  }
  measure(version.facts, clock);
  version.state = finish === "length" ? "length" : "done";
}

/** Picks what is shown of the server's own figures. */
function runtimeFacts({ device, precision, time_to_first_token_s: first, decode_tokens_per_s: speed }) {
  const facts = { device, precision, firstToken: first, speed };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== null));
}

/** Fills in what the server did not say, as it was seen from here. */
function measure(facts, { start, first, last }) {
  if (first === null) return;
  facts.firstToken ??= (first - start) / 1000;
  if (facts.tokens > 1 && last > first) facts.speed ??= ((facts.tokens - 1) * 1000) / (last - first);
}

/** Waits as long as the server asks for; each second is shown. */
async function wait({ retryAfter }, version, signal, onChange) {
  for (let left = Math.ceil(retryAfter ?? DEFAULT_WAIT_S); left > 0; left -= 1) {
    version.waiting = `The server is busy. The next try is in ${left} s.`;
    onChange();
    await pause(1000, signal);
  }
  delete version.waiting;
  onChange();
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stopped);
      resolve();
    }, milliseconds);
    if (signal.aborted) stopped();
    else signal.addEventListener("abort", stopped, { once: true });
  });
}
