// A server that answers as RAG Server does, but byte by byte as a case wants it. Knows nothing of the widget.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const TEXTS = JSON.parse(await readFile(new URL("../../rag/chat/texts.json", import.meta.url), "utf8"));

export const SOURCES = [
  source("https://docs.example/warranty#:~:text=37%20months", "Warranty › Length", "The warranty lasts 37 months."),
  source("https://docs.example/returns", "Returns", "A controller can be returned within 45 days."),
  source("https://docs.example/prices", "Prices and plans", "Brinewell One costs 289 euros."),
];

export function source(url, title, text) {
  return { url, title, content_preview: text, content_full: text, similarity_score: 0.8 };
}

export class Stub {
  /** Settings of the next page. */
  config = {
    site_name: "Brinewell",
    suggested_questions: ["How long does the warranty last?", "What does it cost?"],
    demo: false,
  };
  pages = new Map();
  /** Bodies of POST /chat/stream and of POST /feedback, as they came. */
  asked = [];
  languages = []; // That each question asked for.
  rated = [];
  forgotten = [];
  handedOff = [];
  paths = [];
  takesFeedback = true;
  cors = false;
  sessions = new Map();
  /** How the next questions are answered: `(answer, body) => promise`. */
  answer = (answer) => answer.whole("The warranty lasts **37 months** [1].", SOURCES);

  static async start(widgetFile) {
    const stub = new Stub();
    stub.widget = await readFile(widgetFile);
    stub.server = createServer((request, response) =>
      stub.#handle(request, response).catch((error) => response.destroy(error)),
    );
    await stub.listen(0);
    return stub;
  }

  async listen(port) {
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    this.origin = `http://127.0.0.1:${this.port}`;
  }

  async stop() {
    if (!this.server.listening) return;
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** A page at `/name`; `script` are the tag's attributes. Returns its address. */
  page({ name = "page", script = "", body = "", head = "", html = 'lang="en"', csp = null, from = "" } = {}) {
    const tag = `<script src="${from}/widget.js" defer ${script}></script>`;
    const text = `<!doctype html><html ${html}><head><meta charset="utf-8"><title>A page</title>
      <meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">${head}${tag}</head>
      <body>${body || "<main><h1>A page</h1><p>With <a href='#x'>a link</a>.</p></main>"}</body></html>`;
    this.pages.set(`/${name}`, { text, csp });
    return `${this.origin}/${name}`;
  }

  async #handle(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.origin);
    this.paths.push(`${request.method} ${pathname}`);
    if (this.cors) {
      response.setHeader("Access-Control-Allow-Origin", "*");
      response.setHeader("Access-Control-Allow-Headers", "Content-Type");
      response.setHeader("Access-Control-Allow-Methods", "GET, POST, DELETE");
      response.setHeader("Access-Control-Expose-Headers", "Retry-After");
    }
    if (request.method === "OPTIONS") return response.end();
    const page = this.pages.get(pathname);
    if (page) {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      if (page.csp) response.setHeader("Content-Security-Policy", page.csp);
      return response.end(page.text);
    }
    if (pathname === "/widget.js") {
      response.setHeader("Content-Type", "text/javascript; charset=utf-8");
      return response.end(this.widget);
    }
    if (pathname === "/widget/config") {
      return json(response, 200, { texts: TEXTS[searchParams.get("language")], ...this.config });
    }
    const session = pathname.match(/^\/sessions\/([^/]+)(\/history)?$/);
    if (session && request.method === "DELETE") {
      this.forgotten.push(session[1]);
      this.sessions.delete(session[1]);
      return json(response, 200, { message: "forgotten" });
    }
    if (session) return json(response, 200, { session_id: session[1], history: this.sessions.get(session[1]) ?? [] });
    if (pathname === "/feedback") {
      const body = await bodyOf(request);
      if (!this.takesFeedback) return problem(response, 404, "not_found", "There is nothing at this address.");
      this.rated.push(body);
      return response.writeHead(204).end();
    }
    if (pathname === "/handoff") {
      this.handedOff.push(await bodyOf(request));
      if (this.handedOff.length === 1) return problem(response, 429, "rate_limited", "Too many requests.");
      return json(response, 202, { reference: "H-7K2M4Q" });
    }
    if (pathname === "/chat/stream") {
      const body = await bodyOf(request);
      this.asked.push(body);
      this.languages.push(request.headers["accept-language"]);
      const id = body.session_id ?? `session-${this.asked.length}-0123456789abcdef`;
      return this.answer(new Answer(response, id, body.message, this.sessions), body);
    }
    return problem(response, 404, "not_found", "There is nothing at this address.");
  }
}

/** One answer on its way. */
class Answer {
  constructor(response, id, question, sessions) {
    Object.assign(this, { response, id, question, sessions, text: "", sources: [] });
    this.left = new Promise((resolve) => response.on("close", resolve));
  }

  refuse(status, code, detail, headers = {}) {
    return problem(this.response, status, code, detail, headers);
  }

  begin(sources = SOURCES) {
    this.sources = sources;
    this.response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    this.raw(spelled("session", { session_id: this.id }) + spelled("sources", sources));
    return this;
  }

  raw(text) {
    this.response.write(text);
  }

  /** `cited` are the places in the sources that the numbers so far stand for. */
  say(text, cited) {
    this.text += text;
    this.raw(spelled("delta", { text, cited }));
    return this;
  }

  done({ response = this.text, sources = this.sources, degraded = null, ...more } = {}) {
    this.remember(response);
    this.response.end(spelled("done", { escalation: null, ...more, response, sources, degraded, timestamp: "2026-01-01T00:00:00.000Z" }));
  }

  remember(text) {
    const said = this.sessions.get(this.id) ?? [];
    this.sessions.set(this.id, [
      ...said,
      { role: "user", content: this.question },
      { role: "assistant", content: text },
    ]);
  }

  /** All of it at once; `size` is how many characters a piece has. */
  whole(text, sources = SOURCES, { size = 7, ...more } = {}) {
    this.begin(sources);
    for (let at = 0; at < text.length; at += size) this.say(text.slice(at, at + size));
    this.done(more);
  }
}

export function spelled(name, data) {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

async function bodyOf(request) {
  let text = "";
  for await (const piece of request) text += piece;
  return JSON.parse(text);
}

function json(response, status, data) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(data));
}

function problem(response, status, code, detail, headers = {}) {
  const body = { type: "about:blank", title: code, status, detail, code, request_id: "r" };
  response.writeHead(status, { "Content-Type": "application/problem+json", ...headers }).end(JSON.stringify(body));
}
