// What a turn of a conversation is: a question and what became of it. Knows no server and no nodes.

import { Problem } from "./server.js";

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
 * @property {"model"|"quoted"|"own"|null} by  who wrote the answer; null where this tab has not seen it written
 * @property {{url: string, title: string, selection?: string}|undefined} page  where it was asked
 * @property {boolean} again  whether it takes the place of the last answer
 */

/** @type {Turn} */
export const EMPTY = {
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
  by: null,
  page: undefined,
  again: false,
};

export function answerPlace(said, text) {
  return said.findLastIndex(({ role, content }) => role === "assistant" && content === text);
}

/** `found` in the order of the numbers in the text: `[n]` is `found[cited[n - 1]]`; what is not cited follows. */
export function numbered(found, cited = []) {
  return [...cited.map((place) => found[place]), ...found.filter((_, place) => !cited.includes(place))];
}

export function fail(turn, error, stopped) {
  turn.state = stopped ? "stopped" : "failed";
  turn.problem = stopped ? null : error instanceof Problem ? error : new Problem("broken");
  turn.retryAtMs = Date.now() + (turn.problem?.retryAfterS ?? 0) * 1000;
}

export function turnsOf(said, memory) {
  const turns = [];
  for (const { role, content, sources } of said) {
    const last = turns.at(-1);
    if (role === "user" || !last || last.text) {
      turns.push({ ...EMPTY, question: role === "user" ? content : null, state: "done" });
    }
    if (role === "assistant") {
      Object.assign(turns.at(-1), memory.noted(content), { text: content });
      if (sources) turns.at(-1).sources = sources;
    }
  }
  return turns;
}
