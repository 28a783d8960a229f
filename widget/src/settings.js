// What the page says: data attributes of the element, then of the script tag, then what fits the page by itself.

import { translator } from "./strings.js";

/**
 * @param {HTMLElement} host  the element on the page
 * @param {DOMStringMap} scriptData  the script tag's data attributes
 * @param {URL} base  where the server is
 */
export function settingsOf(host, scriptData, base) {
  const given = (name) => host.dataset[name] ?? scriptData[name];
  const page = host.closest("[lang]")?.lang || document.documentElement.lang || navigator.language || "en";
  const direction = getComputedStyle(host).direction;
  return {
    t: translator(given("lang") || page),
    direction,
    base,
    title: given("title"),
    greeting: given("greeting"),
    placeholder: given("placeholder"),
    label: given("label"),
    logo: given("logo"),
    shortcut: given("shortcut")?.slice(0, 1).toUpperCase(),
    page: given("page") ?? "title",
    accent: given("accent"),
    theme: ["light", "dark"].find((one) => one === given("theme")),
    left: given("position") ? given("position").includes("left") : direction === "rtl",
    suggestions: given("suggestions")
      ?.split("|")
      .map((one) => one.trim())
      .filter(Boolean),
  };
}
