// One conversation, told to every view of it on the page. Knows no nodes: it says "change" with the turn that changed,
// or with none where all of them did.

import { Problem } from "./server.js";

const UNDO_MS = 10_000;
const HISTORY_CHARS = 12_000; // What the server would use of it.
const UNHAPPY_FROM = 2; // Answers disliked.

/**
 * @typedef {object} Turn
 * @property {string|null} question  null where the server has forgotten it
 * @property {string} text  the answer so far, Markdown
 * @property {{url: string, title: string, content_preview: string}[]} found  by rank, as the search gave them
 * @property {{url: string, title: string, content_preview: string}[]} sources  by number, as the answer cites them
 * @property {"waiting"|"streaming"|"done"|"stopped"|"failed"} state
 * @property {Problem|null} problem
 * @property {string|null} degraded
 * @property {string[]} degradedCodes  the same as codes; empty where the server gives none
 * @property {number} retryAtMs  when it may be asked again, as Date.now() counts
 * @property {"up"|"down"|null} rating
 */

/** @type {Turn} */
const EMPTY = {
  question: null,
  text: "",
  found: [],
  sources: [],
  state: "done",
  problem: null,
  degraded: null,
  degradedCodes: [],
  retryAtMs: 0,
  rating: null,
};

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
  #left = null; // The conversation before, while it can be brought back.
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

  /** Asks, and tells as the answer comes. Ends when it is complete, has failed, or was stopped. */
  async ask(question) {
    if (this.busy) return;
    this.#forget();
    const turn = { ...EMPTY, question, state: "waiting" };
    const history = this.#history();
    const halt = (this.#halt = new AbortController());
    this.turns.push(turn);
    this.#changed(turn);
    this.#tell("question", { question });
    try {
      const body = { message: question, session_id: this.#memory.sessionId ?? undefined, history, page: here() };
      for await (const { name, data } of this.#server.ask(body, halt.signal)) this.#apply(turn, name, data);
      this.#memory.keepSources(turn.text, turn.sources);
      this.#memory.touch();
      const { text: answer, sources, degraded } = turn;
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

  /** Asks the question of an answer that failed or was stopped again, in its place. */
  async retry(turn) {
    if (this.busy) return;
    this.turns = this.turns.filter((one) => one !== turn);
    this.#changed();
    await this.ask(turn.question);
  }

  /** Begins anew. What was said is forgotten, here and on the server, when it can no longer be brought back. */
  restart() {
    this.#forget();
    const id = this.#memory.sessionId;
    this.stop();
    this.#halt = null;
    if (id) {
      this.#left = { id, unread: this.unread, turns: this.turns.filter(({ state }) => state !== "waiting" && state !== "streaming") };
      this.#timer = setTimeout(() => this.#forget(), UNDO_MS);
      addEventListener("pagehide", this.#forget);
    }
    this.turns = [];
    this.unread = false;
    this.#memory.sessionId = null;
    this.#changed();
  }

  /** Whether the conversation before this one can be brought back. */
  get undoable() {
    return this.#left !== null;
  }

  /** Brings back what `restart` has put away. */
  undo() {
    if (!this.#left || this.busy) return;
    const { id, unread, turns } = this.#left;
    this.#keep();
    this.#memory.sessionId = id;
    this.turns = turns;
    this.unread = unread;
    this.#changed();
  }

  #keep() {
    clearTimeout(this.#timer);
    removeEventListener("pagehide", this.#forget);
    this.#left = null;
  }

  #forget = () => {
    if (!this.#left) return;
    const { id } = this.#left;
    this.#keep();
    this.#memory.dropSources();
    this.#changed();
    this.#server.forget(id).catch(() => {}); // Unreachable: the server forgets it by itself in time.
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
      this.#memory.keepRating(turn.text, rating);
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
    const reference = await this.#server.handoff({ ...body, session_id: session, page: here() });
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

/** The page that the visitor is on, without what stands after its path: that may name a person. */
function here() {
  return { url: `${location.origin}${location.pathname}`, title: document.title.slice(0, 500) };
}

function answerPlace(said, text) {
  return said.findLastIndex(({ role, content }) => role === "assistant" && content === text);
}

/** `found` in the order of the numbers in the text: `[n]` is `found[cited[n - 1]]`; what is not cited follows. */
function numbered(found, cited = []) {
  return [...cited.map((place) => found[place]), ...found.filter((_, place) => !cited.includes(place))];
}

function fail(turn, error, stopped) {
  turn.state = stopped ? "stopped" : "failed";
  turn.problem = stopped ? null : error instanceof Problem ? error : new Problem("broken");
  turn.retryAtMs = Date.now() + (turn.problem?.retryAfterS ?? 0) * 1000;
}

function turnsOf(said, memory) {
  const turns = [];
  for (const { role, content, sources } of said) {
    const last = turns.at(-1);
    if (role === "user" || !last || last.text) {
      turns.push({ ...EMPTY, question: role === "user" ? content : null, state: "done" });
    }
    if (role === "assistant") {
      turns.at(-1).text = content;
      turns.at(-1).sources = sources ?? memory.sourcesOf(content);
      turns.at(-1).rating = memory.ratingOf(content);
    }
  }
  return turns;
}
