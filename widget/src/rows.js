// Small rows around the conversation: those before it, and what the visitor has marked on the page.

import { el, iconButton } from "./dom.js";

/** `{at, question, current}` each, with a button that opens it and one that deletes it. */
export function recentList(found, t, { open, remove }) {
  const rows = found.map((one, place) => {
    const when = new Date(one.at).toLocaleString(t.lang, { dateStyle: "medium", timeStyle: "short" });
    const words = el("span", { id: `recent${place}`, dir: "auto" }, one.question);
    const button = { type: "button", "aria-current": one.current && "true", onclick: () => open(one) };
    const bin = iconButton("remove", t("remove"), () => remove(one), { "aria-describedby": words.id });
    return el("li", {}, el("button", button, words, el("small", {}, when)), bin);
  });
  return [el("h3", { id: "recent" }, t("recent")), el("ul", { "aria-labelledby": "recent" }, ...rows)];
}

/** What is marked, a button that asks about it, and one that leaves it out. */
export function markedRow(text, t, { ask, drop }) {
  const explain = t("explain");
  return [
    el("blockquote", { dir: "auto" }, text),
    el("button", { class: "pill", type: "button", onclick: () => ask(explain) }, explain),
    iconButton("close", t("drop"), drop),
  ];
}
