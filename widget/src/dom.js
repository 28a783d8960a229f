// Makes nodes. The only ways in are attributes and text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  chat: "M21 12a8 8 0 0 1-8 8H4l1.8-3.2A8 8 0 1 1 21 12Z",
  close: "M6 6l12 12M18 6 6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8Z",
  fresh: "M12 20h8M16.5 4.5a2.1 2.1 0 0 1 3 3L8 19l-4 1 1-4Z",
  up: "M7 11v9H4v-9Zm0 0 4-7a2 2 0 0 1 2 2v4h5a2 2 0 0 1 2 2.3l-1.1 6A2 2 0 0 1 17 20H7",
  copy: "M9 9h11v11H9ZM5 15H4V4h11v1",
  check: "M5 12l5 5 9-10",
  recent: "M12 7v5l3 2M4 9a9 9 0 1 1-1 4M3 4v5h5",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  expand: "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7",
  retry: "M20 11a8 8 0 1 0-2.3 5.7M20 5v6h-6",
  latest: "M12 5v14M6 13l6 6 6-6",
  info: "M12 11v6M12 7.5v.01M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0Z",
  warning: "M12 10v4M12 17v.01M12 4 3 20h18Z",
};

/**
 * An element with attributes, listeners (`onclick: …`) and children; `false`, `null` and `undefined` are left out.
 * @param {string} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node|string|null|false|undefined)} children
 */
export function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/** A line drawing in the text's colour; hidden from screen readers, so its button needs a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name === "down" ? "up" : name]); // Turned over by the style sheet.
  for (const [key, value] of [
    ["viewBox", "0 0 24 24"],
    ["aria-hidden", "true"],
    ["focusable", "false"],
  ]) {
    svg.setAttribute(key, value);
  }
  svg.append(path);
  return svg;
}

/** A button that is only an icon; `label` is its name and its tooltip. */
export function iconButton(name, label, onclick, given = {}) {
  return el(
    "button",
    { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...given },
    icon(name),
  );
}
