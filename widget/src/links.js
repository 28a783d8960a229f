// Which addresses may become links. Everything that comes from an answer or a source passes through here.

const SCHEMES = ["http:", "https:", "mailto:"];

/** The address in its normal form; null where it is relative, broken, or of a scheme that can run or hide something. */
export function safeHref(address) {
  try {
    const url = new URL(String(address).trim());
    return SCHEMES.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** Makes `anchor` lead to an address that `safeHref` has passed, in a tab of its own. */
export function pointTo(anchor, href) {
  anchor.setAttribute("href", href);
  anchor.setAttribute("target", "_blank");
  anchor.setAttribute("rel", "noopener");
}
