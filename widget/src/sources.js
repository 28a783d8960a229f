// The sources below an answer: one chip a page, its sections in it. Words only: a passage's Markdown is not shown as such.

import { el } from "./dom.js";
import { leavesSite, pointTo, safeHref } from "./links.js";

const BETWEEN = " › "; // As the server joins a passage's headings.
const CARD_CHARS = 260;

/**
 * @param {{url: string, title: string, content_preview: string}[]} sources  by number
 * @param {Set<number>} cited  the numbers that the answer cites
 * @returns {Node[]}
 */
export function sourceLists(sources, cited, t, base) {
  const card = el("div", { class: "card", role: "tooltip", id: "card", hidden: true, dir: "auto" });
  const list = (chosen) => el("ul", {}, ...pages(chosen).map((page) => chip(page, { t, base, card })));
  const numbered = sources.map((source, i) => ({ ...source, number: i + 1 }));
  const first = numbered.filter(({ number }) => cited.has(number));
  const rest = numbered.filter(({ number }) => !cited.has(number));
  if (!first.length) return [el("h3", {}, t("related")), list(rest), card];
  const more = el("details", {}, el("summary", {}, `${t("more")} (${rest.length})`), list(rest));
  return [el("h3", {}, t("sources")), list(first), rest.length > 0 && more, card].filter(Boolean);
}

/** Sources of one page together, those with one address and one name as one section with several numbers. */
function pages(sources) {
  const found = new Map();
  for (const source of sources) {
    const { url = "", title } = source;
    const headings = (title || url).split(BETWEEN);
    const address = url.split("#")[0] || headings[0];
    if (!found.has(address)) found.set(address, { name: headings[0], sections: [] });
    const { sections } = found.get(address);
    const same = url && sections.find((one) => one.url === url && one.title === title);
    if (same) same.numbers.push(source.number);
    else sections.push({ ...source, headings, numbers: [source.number] });
  }
  const all = [...found.values()];
  for (const { sections } of all) {
    for (const section of sections) section.words = section.headings.at(-1);
    const twice = sections.filter(({ words }, i) => sections.some((other, j) => i !== j && other.words === words));
    for (const section of twice) section.words = section.headings.slice(-2).join(BETWEEN);
    const still = sections.filter(({ words }, i) => sections.findIndex((other) => other.words === words) !== i);
    for (const section of still) section.words += `: ${plain(section.content_preview).slice(0, 40)} …`;
  }
  const shown = ({ name, sections }) => [name, ...sections.map(({ words }) => words)].join();
  const names = all.map(shown);
  all.forEach((page, i) => {
    // Two pages that bear one name are told apart by their addresses.
    if (names.indexOf(names[i]) !== names.lastIndexOf(names[i])) page.name += ` (${page.sections[0].url.split("#")[0]})`;
  });
  return all;
}

function chip({ name, sections }, { t, base, card }) {
  const links = sections.flatMap((section) => sectionLink(section, { t, base, card }));
  const alone = sections.length === 1 && sections[0].words === name;
  return el("li", {}, ...links, !alone && el("span", { class: "page" }, el("bdi", {}, name)));
}

function sectionLink({ url, words, numbers, content_preview: preview }, { t, base, card }) {
  const content = [...numbers.map((one) => el("b", {}, String(one))), el("span", { dir: "auto" }, words)];
  const text = plain(preview);
  const href = safeHref(url, base);
  if (href) {
    const link = el("a", { class: "chip" }, ...content);
    if (leavesSite(href)) link.append(el("span", { class: "hidden" }, `, ${t("newTab")}`));
    pointTo(link, href);
    if (text) showOn(link, card, text);
    return [link];
  }
  // The site's address is not known to the server: the passage itself is shown instead of its page.
  const passage = el("p", { class: "passage", hidden: true, dir: "auto" }, text);
  const button = el(
    "button",
    { class: "chip", type: "button", "data-number": numbers[0], "aria-expanded": "false" },
    ...content,
  );
  button.addEventListener("click", () => {
    passage.hidden = !passage.hidden;
    button.ariaExpanded = String(!passage.hidden);
  });
  return [button, passage];
}

function showOn(link, card, text) {
  const show = () => {
    card.textContent = text.length > CARD_CHARS ? `${text.slice(0, CARD_CHARS)} …` : text;
    card.hidden = false;
    link.setAttribute("aria-describedby", card.id);
    card.style.insetBlockEnd = `${card.parentNode.getBoundingClientRect().bottom - link.getBoundingClientRect().top + 8}px`;
  };
  const hide = () => {
    card.hidden = true;
    link.removeAttribute("aria-describedby");
  };
  for (const event of ["mouseenter", "focus"]) link.addEventListener(event, show);
  for (const event of ["mouseleave", "blur"]) link.addEventListener(event, hide);
}

/** A passage's words without the marks of Markdown. */
export function plain(markdown = "") {
  return markdown
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/^\s*\|?[\s:|-]*-{3}[\s:|-]*$/gm, " ")
    .replace(/^\s{0,3}(#{1,6}|>|[-*+])\s+/gm, "")
    .replace(/```\w*|[*`~]{1,3}/g, "")
    .replace(/\s*\|\s*/g, " · ")
    .replace(/\s+/g, " ")
    .replace(/^[ ·]+|[ ·]+$/g, "");
}
