// What popular readers of Markdown make of answers: a line of JSON with answers in, a line with addresses out.
// With raw HTML allowed and addresses linked by themselves, as the least careful page would use them.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../widget/package.json", import.meta.url));
const { marked } = require("marked");
const showdown = require("showdown");
const MarkdownIt = require("markdown-it").default ?? require("markdown-it");
const folder = (name) => import(require.resolve(name));
const { micromark } = await folder("micromark");
const { gfm, gfmHtml } = await folder("micromark-extension-gfm");
const { parseFragment } = await folder("parse5");

const markdownIt = new MarkdownIt({ html: true, linkify: true });
markdownIt.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
const converter = new showdown.Converter({ tables: true, simplifiedAutoLink: true, strikethrough: true });

const readers = {
  marked: (text) => marked.parse(text),
  "markdown-it": (text) => markdownIt.render(text),
  showdown: (text) => converter.makeHtml(text),
  gfm: (text) => micromark(text, { allowDangerousHtml: true, extensions: [gfm()], htmlExtensions: [gfmHtml()] }),
};

/** Every attribute that loads, leads or runs, as [name, value]. */
function reach(node, found = []) {
  for (const { name, value } of node.attrs ?? []) {
    if (name.startsWith("on") || ["href", "src", "srcset", "action", "formaction", "data", "poster", "style"].includes(name)) {
      found.push([name, value]);
    }
  }
  for (const child of node.childNodes ?? []) reach(child, found);
  if (node.content) reach(node.content, found);
  return found;
}

for await (const line of createInterface({ input: process.stdin })) {
  const found = JSON.parse(line).map((text) =>
    Object.fromEntries(Object.entries(readers).map(([name, read]) => [name, reach(parseFragment(read(text)))])),
  );
  console.log(JSON.stringify(found));
}
