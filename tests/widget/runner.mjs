// Runs cases in one Chromium: reads `{"case", "given"}` as JSON lines, writes `{"case", "error"}`. Knows no case by name.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Stub } from "./stub.mjs";
import { Chat } from "./chat.mjs";

const [widgetFolder, widgetFile, chromium] = process.argv.slice(2);
const require = createRequire(`${widgetFolder}/package.json`);
const playwright = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");
const groups = ["asking", "safety", "states", "surroundings", "real", "visits", "owner", "handoff"];
const modules = await Promise.all(
  groups.map((name) => import(fileURLToPath(new URL(`./cases_${name}.mjs`, import.meta.url)))),
);
const cases = Object.assign({}, ...modules);

const browser = await playwright.chromium.launch({
  executablePath: chromium,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

async function run(name, given) {
  const stub = await Stub.start(widgetFile);
  const contexts = [];
  const faults = [];
  // A visitor of their own: storage, size and preferences. `open(address)` gives the chat on that page.
  const visitor = async (options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
    context.setDefaultTimeout(8000);
    contexts.push(context);
    const open = async (address) => {
      const page = await context.newPage();
      page.on("pageerror", (error) => faults.push(String(error)));
      await page.goto(address);
      return new Chat(page, axe);
    };
    return { context, open };
  };
  try {
    if (!cases[name]) throw new Error(`there is no case ${name}`);
    await cases[name]({ stub, visitor, given });
    if (faults.length) throw new Error(`the page threw: ${faults.join("; ")}`);
    return null;
  } catch (error) {
    return error.stack ?? String(error);
  } finally {
    await Promise.all(contexts.map((context) => context.close()));
    await stub.stop();
  }
}

console.log(JSON.stringify({ cases: Object.keys(cases) }));
for await (const line of createInterface({ input: process.stdin })) {
  const { case: name, given } = JSON.parse(line);
  console.log(JSON.stringify({ case: name, error: await run(name, given) }));
}
await browser.close();
