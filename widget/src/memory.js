// What a browser keeps: ids of conversations for all tabs, and for this tab what the server does not tell again of answers.
// Storage may be forbidden (private windows, blocked cookies): then the page alone remembers, and nothing fails.

const LISTED = 10; // Conversations.
const NOTED = 30; // Answers of a conversation.

export class Memory {
  #key;
  #idOfPage = null;

  constructor(base) {
    this.#key = `rag-chat:${base}`;
  }

  get sessionId() {
    const kept = attempt(() => localStorage.getItem(this.#key));
    return kept === undefined ? this.#idOfPage : kept;
  }

  set sessionId(value) {
    this.#idOfPage = value;
    attempt(() => (value ? localStorage.setItem(this.#key, value) : localStorage.removeItem(this.#key)));
  }

  /** Whether the chat in the corner was open in this tab, on the page before. */
  get open() {
    return attempt(() => sessionStorage.getItem(`${this.#key}:open`)) === "1";
  }

  set open(value) {
    attempt(() => sessionStorage.setItem(`${this.#key}:open`, value ? "1" : "0"));
  }

  /** `{id, at}` of the conversations of this browser, the latest first: no words of theirs. */
  get recent() {
    return parsed(attempt(() => localStorage.getItem(`${this.#key}:recent`))) ?? [];
  }

  /** Lists a conversation as one of `at`, and so tells the other tabs that there is more to read. */
  list(id, at = Date.now()) {
    this.#listed([{ id, at }, ...this.recent.filter((one) => one.id !== id)].sort((one, other) => other.at - one.at));
  }

  unlist(id) {
    this.#listed(this.recent.filter((one) => one.id !== id));
  }

  /** Calls `changed` when another tab began, continued or left a conversation. */
  watch(changed) {
    addEventListener("storage", ({ key }) => {
      if (key === null || key === this.#key || key === `${this.#key}:recent`) changed();
    });
  }

  /** What this tab knows of an answer of the conversation: its sources, who wrote it, the visitor's thumb. */
  noted(answer) {
    return this.#notes[fingerprint(answer)] ?? {};
  }

  note(answer, more) {
    const notes = { ...this.#notes, [fingerprint(answer)]: { ...this.noted(answer), ...more } };
    const kept = Object.fromEntries(Object.entries(notes).slice(-NOTED));
    attempt(() => sessionStorage.setItem(`${this.#key}:${this.sessionId}`, JSON.stringify(kept)));
  }

  dropNotes(id) {
    attempt(() => sessionStorage.removeItem(`${this.#key}:${id}`));
  }

  get #notes() {
    return parsed(attempt(() => sessionStorage.getItem(`${this.#key}:${this.sessionId}`))) ?? {};
  }

  #listed(list) {
    attempt(() => localStorage.setItem(`${this.#key}:recent`, JSON.stringify(list.slice(0, LISTED))));
  }
}

function parsed(text) {
  return attempt(() => JSON.parse(text));
}

function attempt(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

function fingerprint(text) {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) | 0;
  return `${text.length}.${hash >>> 0}`;
}
