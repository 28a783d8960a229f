// Every word a visitor can read or hear. English comes with the chat; the visitor's language, and words of the owner's,
// come from the server when the chat opens: eleven languages in this file would cost each visitor 8 kB.

import { en } from "../../rag/chat/texts.json";

// What the button in the corner is called before anything is fetched; the languages that the server has.
const OPEN = {
  en: en.open,
  de: "Chat öffnen",
  fr: "Ouvrir le chat",
  es: "Abrir el chat",
  it: "Apri la chat",
  pt: "Abrir o chat",
  nl: "Chat openen",
  pl: "Otwórz czat",
  ja: "チャットを開く",
  zh: "打开聊天",
  ar: "فتح المحادثة",
};

/**
 * `t(key, values)` for a language tag such as `de-AT`; `t.lang` is the language that was found, `t.learn(texts)` takes
 * its sentences. An unknown key gives the empty string.
 */
export function translator(tag) {
  const lang = [tag.slice(0, 2).toLowerCase()].find((one) => Object.hasOwn(OPEN, one)) ?? "en";
  let table = { ...en, open: OPEN[lang] };
  const t = (key, values = {}) =>
    Object.hasOwn(table, key) ? table[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "") : "";
  const learn = (texts) => (table = { ...table, ...texts });
  return Object.assign(t, { lang, learn });
}
