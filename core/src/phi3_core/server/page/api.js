// The server, by the interface that every client uses.

import { serverSentEvents } from "./events.js";

const KEY = "phi3-api-key";

/** An error that a person can do something about; `kind` says what. */
export class ApiError extends Error {
  /** kind: unreachable, unauthorized, busy, refused, failed or interrupted; retryAfter in seconds. */
  constructor(kind, message, retryAfter = null) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

export function setKey(key) {
  try {
    // Only for this tab, and gone when it is closed.
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    throw new ApiError("failed", "This browser does not keep the API key: allow the page to store data.");
  }
}

function headers() {
  const found = { "Content-Type": "application/json" };
  try {
    const key = sessionStorage.getItem(KEY);
    if (key) found.Authorization = `Bearer ${key}`;
  } catch {
    // Without storage there is no key.
  }
  return found;
}

/** Returns the response to a request, whatever its status. Paths are relative: a proxy may add a prefix. */
async function reach(path, options = {}) {
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, headers: headers(), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("unreachable", "The server does not answer. Is phi3 serve still running?");
  }
}

/** Returns the response to a request that was granted; throws what went wrong. */
async function ask(path, options) {
  const response = await reach(path, options);
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  const text = await response.text().catch(() => "");
  const message = messageOf(text) || `The server answered with the status ${response.status}.`;
  if (response.status === 401) {
    return new ApiError("unauthorized", headers().Authorization ? "The API key is wrong." : "This server asks for an API key.");
  }
  if (response.status === 503 || response.status === 429) {
    return new ApiError("busy", message, secondsOf(response.headers.get("Retry-After")));
  }
  return new ApiError(response.status < 500 ? "refused" : "failed", message);
}

function messageOf(text) {
  try {
    const { error, detail } = JSON.parse(text);
    const found = error?.message ?? error ?? detail;
    return typeof found === "string" ? found.charAt(0).toUpperCase() + found.slice(1) : "";
  } catch {
    return "";
  }
}

function secondsOf(header) {
  const seconds = Number(header ?? NaN);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 60) : null;
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new ApiError("failed", "The server's answer is not JSON. Is this phi3 serve?");
  }
}

/** Returns the models as `{id, device, precision}`; those that are not loaded have no device yet. */
export async function models() {
  const { data } = await json(await ask("v1/models"));
  return (Array.isArray(data) ? data : []).map(({ id, phi3 }) => ({ ...phi3, id: String(id) }));
}

/** Throws if the server is not well: if it is being stopped, or an engine does not answer. */
export async function checkHealth() {
  const response = await reach("health");
  if (response.ok) return;
  const { status, models = [] } = await json(response);
  const failed = models.find(({ error }) => error);
  if (failed) throw new ApiError("failed", `${failed.model} on ${failed.device} does not answer: ${failed.error}`);
  throw new ApiError("busy", status === "stopping" ? "The server is being stopped." : "The server is not ready.");
}

/**
 * Yields the parts of an answer: `{text}`, `{finish}`, `{usage}` and `{runtime}` (device, precision, speed).
 * Throws an ApiError, or an AbortError if the signal says so.
 */
export async function* chat(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await ask("v1/chat/completions", { method: "POST", body, signal });
  const lost = "The connection was lost. The answer is incomplete.";
  let done = false;
  try {
    for await (const data of serverSentEvents(response.body)) {
      if (data === "[DONE]") {
        done = true;
        break;
      }
      yield* parts(JSON.parse(data));
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("interrupted", lost);
  }
  if (!done) throw new ApiError("interrupted", lost);
}

function* parts(chunk) {
  if (chunk.error) throw new ApiError("failed", messageOf(JSON.stringify(chunk)) || "The answer failed.");
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) yield { text: choice.delta.content };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (chunk.usage) yield { usage: chunk.usage };
  if (chunk.phi3) yield { runtime: chunk.phi3 };
}
