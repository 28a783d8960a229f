// Which addresses may become links. Everything that comes from an answer or a source passes through here.

const SCHEMES = ["http:", "https:", "mailto:"];

/**
 * The address in its normal form; null where it is broken, relative to an unknown page, or of a scheme that can run or
 * hide something. A path from the root is one of the server's own pages, at `base`.
 */
export function safeHref(address, base) {
  try {
    const text = String(address).trim();
    const url = /^\/(?![/\\])/.test(text) ? new URL(text, base) : new URL(text);
    return SCHEMES.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** Whether an address that `safeHref` has passed leaves the site that the visitor is on. */
export const leavesSite = (href) => new URL(href).origin !== location.origin;

/** Makes `anchor` lead to an address that `safeHref` has passed; in a tab of its own where it leaves the site. */
export function pointTo(anchor, href) {
  anchor.setAttribute("href", href);
  if (!leavesSite(href)) return;
  anchor.setAttribute("target", "_blank");
  anchor.setAttribute("rel", "noopener");
}
