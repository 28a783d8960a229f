// Markdown to nodes while it streams. Never parses HTML, loads no image, and links only where `safeHref` agrees.
// Does not know what a citation leads to: `cite(number)` makes the node for `[1]`.

import * as smd from "streaming-markdown";
import { el, iconButton } from "./dom.js";
import { pointTo, safeHref } from "./links.js";

const DEEPEST = 24; // Beyond it, nesting is flattened: thousands of nested quotes would stall the page.
const TALL_PX = 300;
const CITATION = /^\s*\d{1,2}(\s*,\s*\d{1,2})*\s*$/;
const AFTER_URL = /[)\]}>.,;:!?'"*_]+$/;
// Comments, strings and the commonest keywords, whatever the language.
const PARTS =
  /((?<=^|\s)(?:#|\/\/).*|"[^"\n]*"|'[^'\n]*'|\b(?:async|await|class|const|def|else|export|for|from|function|if|import|let|new|return)\b)/m;
const CODE = [smd.CODE_BLOCK, smd.CODE_FENCE, smd.CODE_INLINE];

const TAGS = {
  [smd.BLOCKQUOTE]: "blockquote",
  [smd.PARAGRAPH]: "p",
  [smd.LINE_BREAK]: "br",
  [smd.RULE]: "hr",
  [smd.HEADING_1]: "h3",
  [smd.HEADING_2]: "h3",
  [smd.HEADING_3]: "h3",
  [smd.HEADING_4]: "h4",
  [smd.HEADING_5]: "h4",
  [smd.HEADING_6]: "h4",
  [smd.ITALIC_AST]: "em",
  [smd.ITALIC_UND]: "em",
  [smd.STRONG_AST]: "strong",
  [smd.STRONG_UND]: "strong",
  [smd.STRIKE]: "s",
  [smd.CODE_INLINE]: "code",
  [smd.LINK]: "a",
  [smd.RAW_URL]: "a",
  [smd.LIST_UNORDERED]: "ul",
  [smd.LIST_ORDERED]: "ol",
  [smd.LIST_ITEM]: "li",
  [smd.EQUATION_BLOCK]: "p",
};

export class Markdown {
  #parser;
  #open;
  #cite;
  #t;
  #base;
  #held = null;

  /** Writes below `root`. `cite(number)` returns a node; `t(key)` gives words; `base` is the server's address. */
  constructor(root, { cite, t, base }) {
    this.#cite = cite;
    this.#t = t;
    this.#base = base;
    this.#open = [{ node: root, type: smd.DOCUMENT }];
    this.#parser = smd.parser({
      data: null,
      add_token: (_, type) => this.#begin(type),
      end_token: () => this.#end(),
      add_text: (_, text) => this.#text(text),
      set_attr: (_, type, value) => this.#attribute(type, value),
    });
  }

  /** A further piece, cut anywhere. */
  write(piece) {
    for (const part of piece.split(/([$\n])/)) if (part) this.#feed(part);
  }

  /** After the last piece: what was left open is closed. */
  finish() {
    smd.parser_end(this.#parser);
    while (this.#open.length > 1) this.#end();
  }

  // The parser takes the marks before code inside a quote for code, and loses count of quotes after it.
  #feed(part) {
    if (this.#held !== null) {
      this.#held += part;
      if (/^[> ]{0,80}$/.test(this.#held)) return;
      part = this.#held;
      this.#held = null;
      for (let depth = this.#quotes; depth > 0; depth--) part = part.replace(/^ {0,3}> ?/, "");
    }
    const quoted = this.#inQuotedFence;
    // A lone dollar would open a formula that swallows the rest of the answer.
    smd.parser_write(this.#parser, part === "$" && this.#inProse() ? "\\$" : part);
    if (!part.endsWith("\n")) return;
    if (this.#inQuotedFence) this.#held = "";
    else if (quoted) this.#parser.blockquote_idx = 0;
  }

  get #quotes() {
    return this.#open.filter(({ type }) => type === smd.BLOCKQUOTE).length;
  }

  get #inQuotedFence() {
    return this.#top.type === smd.CODE_FENCE && this.#quotes > 0;
  }

  #inProse() {
    const { tokens, len, token, pending, indent_len: indent } = this.#parser;
    const here = tokens[len];
    const verbatim = CODE.includes(here) || token === smd.RAW_URL || here === smd.IMAGE || pending.startsWith("](");
    return !verbatim && pending[0] !== "`" && pending !== "\\" && indent < 4;
  }

  get #top() {
    return this.#open[this.#open.length - 1];
  }

  #begin(type) {
    const parent = this.#top.node;
    if (this.#open.length > DEEPEST) {
      this.#open.push({ node: parent, type: null });
      return;
    }
    this.#open.push({ node: this.#make(type, parent), type });
  }

  #make(type, parent) {
    if (type === smd.CODE_FENCE || type === smd.CODE_BLOCK) return this.#code(parent);
    if (type === smd.TABLE) return this.#framed(parent, el("div", { class: "table", tabindex: "0" }), el("table"));
    if (type === smd.TABLE_ROW) {
      const tag = parent.querySelector("thead") ? "tbody" : "thead";
      const section = parent.querySelector(tag) ?? parent.appendChild(el(tag));
      return section.appendChild(el("tr"));
    }
    if (type === smd.TABLE_CELL) {
      return parent.appendChild(parent.parentNode.nodeName === "THEAD" ? el("th", { scope: "col" }) : el("td"));
    }
    const node = parent.appendChild(el(TAGS[type] ?? "span"));
    if (type === smd.CHECKBOX) node.textContent = "☐ ";
    if (type === smd.EQUATION_INLINE) node.textContent = "(";
    return node;
  }

  #code(parent) {
    const code = el("code");
    const button = iconButton("copy", this.#t("copyCode"), () => copied(button, code.textContent, this.#t));
    return this.#framed(parent, el("pre", { tabindex: "0" }), code, button);
  }

  /** `content`, that may be larger than there is room: then a button shows it over the whole page. */
  #framed(parent, scroller, content, button = "") {
    const t = this.#t;
    const expand = iconButton("expand", t("expand"), () => enlarge(frame, t), { hidden: true });
    const bar = el("div", { class: "bar", hidden: !button }, el("span"), button, expand);
    const frame = el("div", { class: "code", dir: button ? "ltr" : null }, bar, scroller);
    scroller.append(content);
    parent.append(frame);
    new ResizeObserver(() => {
      expand.hidden = scroller.scrollWidth <= scroller.clientWidth && scroller.clientHeight < TALL_PX;
      bar.hidden = expand.hidden && !button;
    }).observe(content);
    return content;
  }

  #end() {
    const { node, type, href } = this.#open.pop();
    if (type === smd.EQUATION_INLINE) node.append(")");
    if (type === smd.RAW_URL) this.#rawUrl(node);
    if (type === smd.CODE_FENCE) colour(node);
    if (type !== smd.LINK || node.hasAttribute("href")) return;
    if (href === undefined && CITATION.test(node.textContent)) {
      const numbers = node.textContent.match(/\d+/g).map(Number);
      node.replaceWith(...numbers.map(this.#cite));
      return;
    }
    // Square brackets that were no link stay what they were; a link that may not be one keeps its words.
    if (href === undefined) {
      node.prepend("[");
      node.append("]");
    }
    node.replaceWith(...node.childNodes);
  }

  #rawUrl(node) {
    const [after] = node.textContent.match(AFTER_URL) ?? [""];
    const address = node.textContent.slice(0, node.textContent.length - after.length);
    const href = safeHref(address, this.#base);
    if (href) {
      node.textContent = address;
      pointTo(node, href);
      node.after(after);
    } else {
      node.replaceWith(node.textContent);
    }
  }

  #text(text) {
    const { node, type } = this.#top;
    if (type === smd.CHECKBOX) return;
    const last = node.lastChild;
    if (last?.nodeType === Node.TEXT_NODE) last.appendData(text);
    else node.append(text);
  }

  #attribute(type, value) {
    const top = this.#top;
    if (type === smd.HREF && top.type === smd.LINK) {
      top.href = value;
      const href = safeHref(value.trim().split(/\s/)[0], this.#base);
      if (href) pointTo(top.node, href);
    } else if (type === smd.START && top.type === smd.LIST_ORDERED) {
      top.node.setAttribute("start", String(parseInt(value, 10) || 1));
    } else if (type === smd.CHECKED && top.type === smd.CHECKBOX) {
      top.node.textContent = "☑ ";
    } else if (type === smd.LANG && top.type === smd.CODE_FENCE) {
      top.node.parentNode.previousSibling.firstChild.textContent = value.trim().split(/\s/)[0].slice(0, 24);
    }
  }
}

function colour(code) {
  const parts = code.textContent.split(PARTS);
  const tag = (part) => (/["']/.test(part[0]) ? "s" : /\w/.test(part[0]) ? "b" : "i");
  code.replaceChildren(...parts.map((part, i) => (i % 2 ? el(tag(part), {}, part) : part)));
}

/** Shows a copy of `frame` over the page. Escape and a click beside it close it, and focus returns by itself. */
function enlarge(frame, t) {
  const [bar, scroller] = frame.children;
  const close = iconButton("close", t("close"), () => big.close());
  const large = el("div", { class: "code", dir: frame.dir }, el("div", { class: "bar" }, bar.firstChild.cloneNode(true), close));
  large.append(scroller.cloneNode(true));
  const big = el("dialog", { "aria-label": t("expand"), onclose: () => big.remove() }, large);
  big.addEventListener("click", ({ target }) => target === big && big.close());
  frame.closest(".root").append(big);
  big.showModal();
}

/** Puts `text` on the clipboard and shows on `button` that it is there. */
export async function copied(button, text, t) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return; // Refused by the page's permissions: the text can still be selected.
  }
  const { ariaLabel } = button;
  button.classList.add("done");
  button.ariaLabel = button.title = t("copied");
  setTimeout(() => {
    button.classList.remove("done");
    button.ariaLabel = button.title = ariaLabel;
  }, 2000);
}
