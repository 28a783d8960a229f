// Markdown to nodes while it streams. Never parses HTML, loads no image, and links only where `safeHref` agrees.
// Does not know what a citation leads to: `cite(number)` makes the node for `[1]`.

import * as smd from "streaming-markdown";
import { el, iconButton } from "./dom.js";
import { pointTo, safeHref } from "./links.js";

const DEEPEST = 24; // Beyond it, nesting is flattened: thousands of nested quotes would stall the page.
const CITATION = /^\s*\d{1,2}(\s*,\s*\d{1,2})*\s*$/;
const AFTER_URL = /[)\]}>.,;:!?'"*_]+$/;
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
    if (type === smd.TABLE) {
      const table = el("table");
      parent.append(el("div", { class: "table", tabindex: "0" }, table));
      return table;
    }
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
    const bar = el("div", { class: "bar" }, el("span"), button);
    parent.append(el("div", { class: "code", dir: "ltr" }, bar, el("pre", { tabindex: "0" }, code)));
    return code;
  }

  #end() {
    const { node, type, href } = this.#open.pop();
    if (type === smd.EQUATION_INLINE) node.append(")");
    if (type === smd.RAW_URL) this.#rawUrl(node);
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
