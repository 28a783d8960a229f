// Takes the frames of the animated picture from the real demo in Chromium: `node pictures.mjs ADDRESS FOLDER QUESTION`.

import { createRequire } from "node:module";
import { writeFile } from "node:fs/promises";

const [address, folder, question] = process.argv.slice(2);
const require = createRequire(new URL("../widget/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const SIZE = { width: 1060, height: 700 };
const EVERY_MS = 125;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
});
const context = await browser.newContext({ viewport: SIZE, colorScheme: "light" });
let page = await context.newPage();
context.on("page", (opened) => (page = opened));

let taking = true;
let frames = 0;
const camera = (async () => {
  while (taking) {
    const due = Date.now() + EVERY_MS;
    const shot = await page.screenshot().catch((error) => void console.error(error.message.split("\n")[0]));
    if (shot) await writeFile(`${folder}/${String(frames++).padStart(4, "0")}.png`, shot);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - Date.now())));
  }
})();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

await page.goto(`${address}/demo`);
const field = page.getByRole("textbox").first();
await field.waitFor();
await pause(600);
await field.pressSequentially(question, { delay: 45 });
await pause(400);
await field.press("Enter");
const source = page.locator('.answer a[href*="text="]').first();
await source.waitFor();
await pause(2500);
await source.scrollIntoViewIfNeeded();
await source.hover();
await pause(900);
await source.click();
await pause(3500);
taking = false;
await camera;
await browser.close();
