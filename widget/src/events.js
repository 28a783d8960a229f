// Server-sent events out of a byte stream that is cut anywhere: between events, lines, or the bytes of a letter.

/** Collects lines into events. `push` returns those that are complete now, as `{name, data}`. */
export class EventParser {
  #rest = "";
  #name = "";
  #data = [];

  push(text) {
    const events = [];
    // A carriage return at the very end may be half of a line break: it waits for what follows.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push({ name: this.#name || "message", data: this.#data.join("\n") });
        this.#name = "";
        this.#data = [];
        continue;
      }
      const [, field, value] = line.match(/^([^:]*):? ?(.*)$/s);
      if (field === "event") this.#name = value;
      if (field === "data") this.#data.push(value);
    }
    return events;
  }
}

/** The events of a response's body, their data parsed as JSON. Ends early after `silenceMs` without a byte. */
export async function* eventsOf(body, { silenceMs }) {
  const parser = new EventParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const timer = setTimeout(() => reader.cancel().catch(() => {}), silenceMs);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      for (const { name, data } of parser.push(decoder.decode(value, { stream: true }))) {
        yield { name, data: JSON.parse(data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
