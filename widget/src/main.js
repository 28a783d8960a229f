// What the script tag does: defines <rag-chat>, and puts a launcher on pages that have none. The only place of wiring.

import { dress } from "./colours.js";
import { Conversation } from "./conversation.js";
import { el } from "./dom.js";
import { Launcher } from "./launcher.js";
import { Memory } from "./memory.js";
import { Marked } from "./page.js";
import { Panel } from "./panel.js";
import { Server } from "./server.js";
import { settingsOf } from "./settings.js";
import css from "./styles.css";

// An image with the name `currentScript`, which a visitor's comment may hold, would stand in the script's place.
const current = document.currentScript;
const script = current instanceof HTMLScriptElement ? current : document.querySelector("script[src*='widget.js']");
const scriptData = script?.dataset ?? {};
const home = scriptData.server ? `${scriptData.server.replace(/\/+$/, "")}/` : script?.src;
const base = new URL(".", new URL(home || "/", location.href));

const TEXTS_WAIT_MS = 2000;

const server = new Server(base);
const memory = new Memory(base.href);
let conversation;
let marked;
const talking = []; // What the chats of the page say their words with.
server.onconfig = ({ texts }, lang) => {
  for (const t of talking) if (t.lang === lang) t.learn(texts);
};

// Both are shared by all chats of a page, and made when the first one needs them: a launcher alone fetches nothing.
const shared = ({ t }) => {
  conversation ??= told(new Conversation({ server, memory }));
  const config = server.config(t.lang);
  conversation.load();
  return { conversation, config };
};

/** A panel in the words of the visitor; in English where they do not come. */
async function panelFor(settings, onclose) {
  talking.push(settings.t);
  const parts = shared(settings);
  const late = new Promise((resolve) => setTimeout(resolve, TEXTS_WAIT_MS));
  await Promise.race([parts.config, late]).catch(() => null);
  return new Panel({ ...parts, settings, onclose });
}

/** The page may count, or answer in its own way: what happens is told to it as events of `document`. */
function told(conversation) {
  for (const name of ["question", "answer", "feedback", "handoff"]) {
    conversation.addEventListener(name, ({ detail }) =>
      document.dispatchEvent(new CustomEvent(`ragchat:${name}`, { detail })),
    );
  }
  return conversation;
}

const darkness = matchMedia("(prefers-color-scheme: dark)");

/** A custom element whose content stands in a shadow root, where no style of the page reaches it. */
class Shadowed extends HTMLElement {
  static observedAttributes = ["data-theme", "data-accent"];
  #root = null;

  connectedCallback() {
    if (!this.#root) {
      const settings = settingsOf(this, scriptData, base);
      if (settings.page === "text") settings.marked = marked ??= new Marked();
      this.#root = el("div", { class: "root", lang: settings.t.lang, dir: settings.direction }, this.build(settings));
      // Adopted sheets need neither a nonce nor 'unsafe-inline' under a strict content security policy.
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(css);
      const shadow = this.attachShadow({ mode: "open" });
      shadow.adoptedStyleSheets = [sheet];
      shadow.append(this.#root);
    }
    this.attributeChangedCallback();
    darkness.addEventListener("change", this.#dress);
  }

  disconnectedCallback() {
    darkness.removeEventListener("change", this.#dress);
  }

  attributeChangedCallback() {
    if (this.#root) this.#dress();
  }

  #dress = () => dress(this.#root, settingsOf(this, scriptData, base));
}

class RagChat extends Shadowed {
  build(settings) {
    const place = el("div");
    panelFor(settings).then(({ node }) => place.replaceWith(node));
    return place;
  }
}

class RagChatLauncher extends Shadowed {
  #launcher;

  build(settings) {
    this.#launcher = new Launcher({
      host: this,
      memory,
      settings,
      makePanel: (onclose) => panelFor(settings, onclose),
    });
    return this.#launcher.node;
  }

  open() {
    this.#launcher.open();
  }

  close() {
    this.#launcher.close();
  }
}

function start() {
  const wanted = scriptData.launcher;
  const inline = document.querySelector("rag-chat") !== null;
  if (wanted === "false" || (inline && wanted === undefined)) return;
  if (!document.querySelector("rag-chat-launcher")) document.body.append(document.createElement("rag-chat-launcher"));
}

// A page may carry the tag twice; the first one counts.
if (!customElements.get("rag-chat")) {
  customElements.define("rag-chat", RagChat);
  customElements.define("rag-chat-launcher", RagChatLauncher);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
