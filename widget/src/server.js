// Every request to RAG Server. Knows no page: it gives data, or throws a `Problem`.

import { eventsOf } from "./events.js";
import { Visit } from "./visit.js";

const CONFIG = "widget/config";
const SILENCE_MS = 45_000; // The server comments every 15 s: three missing ones are a dead connection.

/** Why there is no answer. `code` is the server's, or one of offline, unreachable, broken. */
export class Problem extends Error {
  constructor(code, { detail = "", status = 0, retryAfterS = null } = {}) {
    super(detail || code);
    Object.assign(this, { code, detail, status, retryAfterS });
  }
}

export class Server {
  #visit;
  #visits; // Whether requests show one.
  #language = ""; // What the server's own sentences are to be in.
  #configs = {}; // By language.

  /** `base` is the folder that widget.js was loaded from, so that a server below a path works too. */
  constructor(base) {
    this.base = base;
    this.#visit = new Visit(base);
    this.#visits = this.#visit.kept;
  }

  /**
   * `{site_name, suggested_questions, demo, ai_notice, privacy_url, handoff?, texts?, visits?}`; texts of `language`.
   * Fetched once, and again after a failure. `anew` fetches it in any case.
   */
  config(language = this.#language, anew = false) {
    this.#language = language;
    if (anew) delete this.#configs[language];
    return (this.#configs[language] ??= this.#fetchConfig(language).catch((error) => {
      delete this.#configs[language];
      throw error;
    }));
  }

  /** Told each config that came. */
  onconfig = () => {};

  async #fetchConfig(language) {
    const config = await (await this.#request(CONFIG, {}, language ? `?language=${language}` : "")).json();
    this.onconfig(config, language);
    this.#visits = Boolean(config.visits);
    if (this.#visits) this.#visit.headers(); // Aside, so that the first question need not wait for it.
    return config;
  }

  /** `[{role, content, sources?}]`, oldest first; empty for an unknown conversation. */
  async history(sessionId) {
    const { history } = await (await this.#request(`sessions/${encodeURIComponent(sessionId)}/history`)).json();
    return history;
  }

  async forget(sessionId) {
    await this.#request(`sessions/${encodeURIComponent(sessionId)}`, { method: "DELETE", keepalive: true });
  }

  async feedback(body) {
    await this.#request("feedback", { ...posted(body), keepalive: true }); // The page may be closing.
  }

  /** Asks for a person. Returns the reference. */
  async handoff(body) {
    return (await (await this.#request("handoff", posted(body))).json()).reference;
  }

  /** The events of an answer. Throws `Problem` when it cannot be asked, breaks off, or falls silent. */
  async *ask(body, signal) {
    const asked = posted(body);
    if (this.#language) asked.headers["Accept-Language"] = this.#language;
    const response = await this.#request("chat/stream", { ...asked, signal });
    try {
      for await (const { name, data } of eventsOf(response.body, { silenceMs: SILENCE_MS })) {
        if (name === "error") throw new Problem(data.code ?? "broken", { detail: data.detail, status: data.status });
        yield { name, data };
        if (name === "done") return;
      }
    } catch (error) {
      if (error instanceof Problem || signal.aborted) throw error;
      throw new Problem("broken");
    }
    throw new Problem("broken");
  }

  async #request(path, given = {}, query = "") {
    // No answer is shown before there are words for what stands around it.
    if (path !== CONFIG) await this.config();
    const shown = this.#visits;
    let response = await this.#send(path, given, query);
    if (response.status === 401 && path !== CONFIG && (shown || (await this.config(this.#language, true)).visits)) {
      if (shown) this.#visit.drop(); // It has ended, or the server has another secret.
      response = await this.#send(path, given);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const retryAfterS = response.status === 429 ? Number(response.headers.get("Retry-After")) || 30 : null;
    throw new Problem(problem.code ?? "internal_error", {
      detail: problem.detail,
      status: response.status,
      retryAfterS,
    });
  }

  /** A server that can be reached, but not from this page: only its owner can help, who looks at the console. */
  async #explain() {
    const reached = await fetch(new URL(CONFIG, this.base), { mode: "no-cors" }).catch(() => null);
    if (!reached) return;
    console.error(
      `RAG Server at ${this.base.origin} does not answer pages of ${location.origin}. ` +
        `Add ${location.origin} to its setting ALLOWED_ORIGINS and restart it.`,
    );
  }

  async #send(path, given, query = "") {
    const headers = { ...given.headers, ...(this.#visits && path !== CONFIG ? await this.#visit.headers() : {}) };
    try {
      return await fetch(new URL(path + query, this.base), { ...given, headers });
    } catch (error) {
      if (given.signal?.aborted) throw error;
      if (path === CONFIG && this.base.origin !== location.origin) await this.#explain();
      throw new Problem(navigator.onLine ? "unreachable" : "offline");
    }
  }
}

function posted(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}
