// Which conversations are being answered, in all tabs of this browser: each tab holds a lock for those that it answers.
// A tab that is closed loses its locks. Without locks, as on pages that are neither encrypted nor of this machine, no
// tab knows of the others.

const locks = navigator.locks ?? null;

function nameOf({ id }) {
  return `phi3-answer-${id}`;
}

/** Says that this tab answers a conversation; returns what ends that. */
export function announce(conversation) {
  let end = () => {};
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  locks?.request(nameOf(conversation), { mode: "shared" }, () => ended).catch(() => {});
  return end;
}

/** Returns a function that says whether some tab answers a conversation. */
export async function answeredNow() {
  const held = new Set(((await locks?.query())?.held ?? []).map(({ name }) => name));
  return (conversation) => held.has(nameOf(conversation));
}

/** Calls `then` when no tab answers a conversation any more. */
export function whenAnswered(conversation, then) {
  locks?.request(nameOf(conversation), then).catch(() => {});
}
