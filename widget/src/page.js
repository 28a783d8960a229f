// What the chat tells of the page around it: as much as `data-page` allows, and of what is marked only what the chat shows
// to the visitor.

const LONGEST = { title: 500, selection: 2000 }; // The server takes no more.
const CHATS = "rag-chat, rag-chat-launcher";

/** What the visitor has marked on the page: `text`, and a "change" when it is another one. */
export class Marked extends EventTarget {
  text = "";

  constructor() {
    super();
    document.addEventListener("selectionchange", () => this.#look());
    this.#look();
  }

  /** It is used up, or not wanted. */
  drop() {
    this.#set("");
  }

  #look() {
    const focused = document.activeElement;
    // What is marked inside the chat is no part of the page, and what stands in the page's own fields is private.
    if (focused?.matches(`${CHATS}, input, textarea`)) return;
    this.#set(String(getSelection()).trim());
  }

  #set(text) {
    if (text === this.text) return;
    this.text = text;
    this.dispatchEvent(new Event("change"));
  }
}

/** `mode` is "off", "title" or "text". The address goes without what stands after its path: that may name a person. */
export function pageContext(mode, marked) {
  if (mode === "off") return undefined;
  const title = cut(document.title, LONGEST.title);
  const selection = marked ? cut(marked, LONGEST.selection) : undefined;
  return { url: location.origin + location.pathname, title, selection };
}

// Not through the middle of a letter that takes two units.
function cut(text, longest) {
  return text.slice(0, longest).replace(/[\uD800-\uDBFF]$/, "");
}
