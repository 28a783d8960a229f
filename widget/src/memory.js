// What a browser keeps: the conversation's id for all tabs, and the sources of answers for this tab's reload.
// Storage may be forbidden (private windows, blocked cookies): then the page alone remembers, and nothing fails.

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

  /** Tells the other tabs that there is more to read. */
  touch() {
    attempt(() => localStorage.setItem(`${this.#key}:changed`, String(Date.now())));
  }

  /** Calls `changed` when another tab began, continued or ended the conversation. */
  watch(changed) {
    addEventListener("storage", ({ key }) => {
      if (key === null || key === this.#key || key === `${this.#key}:changed`) changed();
    });
  }

  /** The sources of an answer, as far as this tab has seen it written. */
  sourcesOf(answer) {
    return this.#seen()[fingerprint(answer)] ?? [];
  }

  keepSources(answer, sources) {
    const kept = Object.entries(this.#seen()).slice(-30);
    const short = sources.map(({ url, title, content_preview }) => ({ url, title, content_preview }));
    const seen = Object.fromEntries([...kept, [fingerprint(answer), short]]);
    attempt(() => sessionStorage.setItem(this.#key, JSON.stringify(seen)));
  }

  /** The visitor's thumb below an answer, as far as it was given in this tab. */
  ratingOf(answer) {
    return this.#rated()[fingerprint(answer)] ?? null;
  }

  keepRating(answer, rating) {
    const rated = Object.fromEntries([...Object.entries(this.#rated()).slice(-30), [fingerprint(answer), rating]]);
    attempt(() => sessionStorage.setItem(`${this.#key}:rated`, JSON.stringify(rated)));
  }

  dropSources() {
    attempt(() => sessionStorage.removeItem(this.#key));
    attempt(() => sessionStorage.removeItem(`${this.#key}:rated`));
  }

  #rated() {
    return attempt(() => JSON.parse(sessionStorage.getItem(`${this.#key}:rated`))) ?? {};
  }

  #seen() {
    return attempt(() => JSON.parse(sessionStorage.getItem(this.#key))) ?? {};
  }
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
