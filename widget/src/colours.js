// Makes a site's accent colour readable wherever it is used, whatever the site has chosen.
// Contrast and luminance as WCAG 2.2 defines them; 4.5 is its level AA for text.

const WHITE = [255, 255, 255];
const BLACK = [0, 0, 0];
const ENOUGH = 4.5;

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/**
 * Gives `node` its theme and the colours that follow from the accent: to be called when either may have changed.
 * @param {HTMLElement} node  in a document, so that its colours can be computed
 * @param {{theme?: string, accent?: string}} given  "light" or "dark", else the visitor's own; any CSS colour
 */
export function dress(node, { theme, accent }) {
  node.classList.toggle("dark", theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  if (accent) node.style.setProperty("--a", accent);
  const probe = node.appendChild(document.createElement("i"));
  const [accentRgb, ground] = ["var(--a)", "var(--bg)"].map((value) => {
    probe.style.color = value;
    return rgbOf(getComputedStyle(probe).color);
  });
  probe.remove();
  node.style.setProperty("--on", textOn(accentRgb));
  node.style.setProperty("--link", readable(accentRgb, ground));
}

/** What is written on `accent`: white where that can be read, else black; one of the two always can. */
function textOn(accent) {
  return css(contrast(WHITE, accent) >= ENOUGH ? WHITE : BLACK);
}

/** `accent`, moved towards black or white until it can be read as text on `background`. */
function readable(accent, background) {
  const target = luminance(background) > 0.18 ? BLACK : WHITE;
  for (let share = 0; share < 1; share += 0.05) {
    const mixed = accent.map((value, i) => Math.round(value + (target[i] - value) * share));
    // A little more than needed, for the tinted grounds beside the plain one.
    if (contrast(mixed, background) >= ENOUGH + 0.7) return css(mixed);
  }
  return css(target);
}

/** Any colour that CSS computes, as [red, green, blue]; modern spaces go through one pixel of a canvas. */
function rgbOf(computed) {
  const plain = computed.match(/^rgba?\(([\d.]+)[, ]+([\d.]+)[, ]+([\d.]+)/);
  if (plain) return plain.slice(1, 4).map(Number);
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = computed;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function css(rgb) {
  return `rgb(${rgb.join(" ")})`;
}
