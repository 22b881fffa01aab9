// Where conversations are kept: IndexedDB of this browser, or the page's memory where the browser keeps nothing.

const DATABASE = "phi3-chat";
const STORE = "conversations";
const memory = new Map();
let opened;

function open() {
  opened ??= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open(DATABASE, 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => {
      // Another tab may want to delete or upgrade it.
      request.result.onversionchange = () => request.result.close();
      resolve(request.result);
    };
    request.onerror = request.onblocked = () => resolve(null);
  });
  return opened;
}

/** Runs one request on the store; null if there is no database. */
async function run(mode, action) {
  const database = await open();
  if (!database) return null;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const request = action(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve({ result: request.result });
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
  });
}

/** Whether conversations outlive the page. */
export async function lasts() {
  return (await open()) !== null;
}

/** Returns all conversations, the latest first. */
export async function all() {
  const found = await run("readonly", (store) => store.getAll());
  const list = found ? found.result : [...memory.values()];
  return list.sort((one, other) => other.updated - one.updated);
}

/**
 * Keeps a conversation, unless another tab has gone on with it, or deleted it. `revision` counts what was said.
 * Returns what is kept instead: a conversation, or undefined where it is deleted; null if nothing is.
 */
export async function save(conversation, { touched }) {
  const { revision = 0 } = conversation;
  let isOther = false;
  const compare = (store) => {
    const before = store.get(conversation.id);
    before.onsuccess = () => {
      isOther = (before.result?.revision ?? 0) !== revision;
      if (isOther) return;
      if (touched) conversation.revision = revision + 1;
      store.put(conversation);
    };
    return before;
  };
  try {
    const found = await run("readwrite", compare);
    if (!found) memory.set(conversation.id, conversation);
    return isOther ? found.result : null;
  } catch (error) {
    conversation.revision = revision;
    throw error;
  }
}

export async function remove(id) {
  if (!(await run("readwrite", (store) => store.delete(id)))) memory.delete(id);
}

export async function clear() {
  if (!(await run("readwrite", (store) => store.clear()))) memory.clear();
}
