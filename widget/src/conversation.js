// One conversation, told to every view of it on the page. Knows no nodes: it says "change" with the turn that changed,
// or with none where all of them did.

import { EMPTY, answerPlace, fail, numbered, turnsOf } from "./turns.js";

const UNDO_MS = 10_000; // Until what was deleted is forgotten on the server.
const HISTORY_CHARS = 12_000; // What the server would use of it.
const UNHAPPY_FROM = 2; // Answers disliked.

export class Conversation extends EventTarget {
  /** @type {Turn[]} */
  turns = [];
  /** Whether earlier messages exist that could not be fetched. */
  unread = false;
  /** Whether the server takes ratings; an older one does not. */
  takesFeedback = true;
  #server;
  #memory;
  #halt = null;
  #undo = null; // What was done last, while it can be undone.
  #timer = 0;
  #loaded = null;

  constructor({ server, memory }) {
    super();
    this.#server = server;
    this.#memory = memory;
    memory.watch(() => !this.busy && this.#loaded && this.reload());
    addEventListener("online", () => {
      const last = this.turns.at(-1);
      if (this.unread) this.reload();
      if (last?.problem?.code === "offline") this.retry(last);
    });
  }

  get busy() {
    return this.#halt !== null;
  }

  /** Fetches what was said before, once. */
  load() {
    this.#loaded ??= this.reload();
    return this.#loaded;
  }

  async reload() {
    const id = this.#memory.sessionId;
    let said = [];
    this.unread = false;
    try {
      if (id) said = await this.#server.history(id);
    } catch {
      this.unread = true;
      this.#changed();
      return;
    }
    // A question that was asked meanwhile must not vanish.
    if (this.busy || id !== this.#memory.sessionId) return;
    this.turns = turnsOf(said, this.#memory);
    this.#changed();
  }

  /**
   * Asks, and tells as the answer comes. Ends when it is complete, has failed, or was stopped. With `again` the answer
   * takes the place of the last one.
   */
  async ask(question, { page, again = false } = {}) {
    if (this.busy) return;
    this.#settle();
    const turn = { ...EMPTY, question, page, again, state: "waiting" };
    const history = this.#history();
    const halt = (this.#halt = new AbortController());
    this.turns.push(turn);
    this.#changed(turn);
    this.#tell("question", { question });
    try {
      const id = this.#memory.sessionId ?? undefined;
      const body = { message: question, session_id: id, history, page, regenerate: again || undefined };
      for await (const { name, data } of this.#server.ask(body, halt.signal)) this.#apply(turn, name, data);
      const { text: answer, sources, degraded, by } = turn;
      const short = sources.map(({ url, title, content_preview }) => ({ url, title, content_preview }));
      this.#memory.note(answer, { sources: short, by });
      this.#memory.list(this.#memory.sessionId);
      this.#tell("answer", { question, answer, sources, degraded });
    } catch (error) {
      if (this.#halt === halt) fail(turn, error, halt.signal.aborted);
    }
    if (this.#halt !== halt) return; // A new conversation has begun meanwhile.
    this.#halt = null;
    this.#changed(turn);
  }

  stop() {
    this.#halt?.abort();
  }

  /** Asks the question of a turn again, in its place: of one that failed or was stopped, or with `again` of the last. */
  async retry(turn, again = turn.again) {
    if (this.busy) return;
    this.turns = this.turns.filter((one) => one !== turn);
    this.#changed();
    await this.ask(turn.question, { page: turn.page, again });
  }

  /** Begins anew. What was said stays among the recent ones. */
  restart() {
    const id = this.#memory.sessionId;
    const turns = this.turns.filter(({ state }) => state !== "waiting" && state !== "streaming");
    this.#goTo(null);
    if (id) this.#undo = { what: "began", back: () => (this.#goTo(id), (this.turns = turns)) };
    this.#changed();
  }

  /** `{id, at, question, current}` of what this browser has asked about, the latest first. */
  async recent() {
    const found = this.#memory.recent.map(async ({ id, at }) => {
      const said = await this.#server.history(id).catch(() => [{ role: "user", content: "…" }]); // Unreachable now.
      const question = said.find(({ role }) => role === "user")?.content;
      if (!question) this.#memory.unlist(id); // The server has forgotten it.
      return { id, at, question, current: id === this.#memory.sessionId };
    });
    return (await Promise.all(found)).filter(({ question }) => question);
  }

  /** Whether `recent` has any beside this one. */
  get hasRecent() {
    return this.#memory.recent.some(({ id }) => id !== this.#memory.sessionId);
  }

  /** Goes on with a conversation. */
  open(id) {
    this.#goTo(id);
    return this.reload();
  }

  /** Deletes a conversation: here at once, on the server when it can no longer be brought back. */
  remove({ id, at, current }) {
    if (current) this.#goTo(null);
    else this.#settle();
    this.#memory.unlist(id);
    this.#undo = {
      what: "removed",
      back: () => {
        this.#memory.list(id, at);
        if (current) this.open(id);
      },
      over: () => {
        this.#memory.dropNotes(id);
        this.#server.forget(id).catch(() => {}); // Unreachable: the server forgets it by itself in time.
      },
    };
    this.#timer = setTimeout(this.#settle, UNDO_MS);
    addEventListener("pagehide", this.#settle);
    this.#changed();
  }

  /** What can be undone: "began" or "removed", else null. */
  get undoable() {
    return this.#undo?.what ?? null;
  }

  undo() {
    if (this.busy) return;
    const back = this.#undo?.back;
    if (this.#undo) this.#undo.over = null;
    this.#settle();
    back?.();
    this.#changed();
  }

  #goTo(id) {
    this.#settle();
    this.stop();
    this.#halt = null;
    this.#memory.sessionId = id;
    this.turns = [];
    this.unread = false;
  }

  #settle = () => {
    if (!this.#undo) return;
    clearTimeout(this.#timer);
    removeEventListener("pagehide", this.#settle);
    const { over } = this.#undo;
    this.#undo = null;
    over?.();
    this.#changed();
  };

  /** Rates an answer. Returns whether the server took it. */
  async rate(turn, rating, reason) {
    turn.rating = rating;
    this.#changed(turn);
    const id = this.#memory.sessionId;
    try {
      // The server may have dropped the oldest messages: an answer's place is where it stands there, not here.
      const last = turn === this.turns.findLast(({ state }) => state === "done");
      const place = last ? undefined : answerPlace(await this.#server.history(id), turn.text);
      if (place !== -1) await this.#server.feedback({ session_id: id, rating, reason, message_index: place });
      this.#memory.note(turn.text, { rating });
      const disliked = this.turns.filter((one) => one.rating === "down").length;
      if (rating === "down" && disliked >= UNHAPPY_FROM && !turn.escalation) {
        turn.escalation = { reason: "unhappy" }; // As the server says it of the answers to come.
        this.#changed(turn);
      }
      this.#tell("feedback", { question: turn.question, rating, reason });
      return true;
    } catch (error) {
      this.takesFeedback = error.status !== 404;
      turn.rating = null;
      this.#changed();
      return false;
    }
  }

  /** Asks for a person. Returns the reference; throws `Problem`. */
  async handOff(body) {
    const session = this.#memory.sessionId ?? hex(crypto.getRandomValues(new Uint8Array(16)));
    const reference = await this.#server.handoff({ ...body, session_id: session });
    this.#tell("handoff", { reference });
    return reference;
  }

  #apply(turn, name, data) {
    if (name === "session") this.#memory.sessionId = data.session_id;
    if (name === "sources") turn.found = turn.sources = data;
    if (name === "delta") {
      turn.text += data.text;
      turn.state = "streaming";
      turn.sources = numbered(turn.found, data.cited);
    }
    if (name === "done") {
      Object.assign(turn, { text: data.response, sources: data.sources, degraded: data.degraded, state: "done" });
      turn.degradedCodes = data.degraded_codes ?? [];
      turn.escalation = data.escalation ?? null;
      turn.by = data.own_words ? "own" : (data.generated ?? null);
    } else {
      this.#changed(turn);
    }
  }

  /** The latest complete turns, for a server that has lost them. */
  #history() {
    const said = [];
    let room = HISTORY_CHARS;
    for (const { question, text, state } of this.turns.toReversed()) {
      room -= text.length + (question?.length ?? 0);
      if (room < 0) break;
      if (state === "done" && question) {
        said.unshift({ role: "user", content: question }, { role: "assistant", content: text });
      }
    }
    return said.slice(-20);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #changed(turn = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: turn }));
  }
}

function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
