// The chat as a visitor handles it. Finds things by what is seen or heard, not by how they are built, where it can.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

export class Chat {
  constructor(page, axe) {
    this.page = page;
    this.axe = axe;
    this.launcher = page.getByRole("button", { name: "Open the chat" });
    this.dialog = page.getByRole("dialog");
    this.field = page.getByRole("textbox", { name: "Type your question" });
    this.send = page.getByRole("button", { name: "Send", exact: true });
    this.stop = page.getByRole("button", { name: "Stop answering" });
    this.answers = page.locator(".answer");
    this.answer = this.answers.last();
    this.prose = this.answer.locator(".md");
    this.live = page.locator("[aria-live]");
  }

  async openDialog() {
    await this.launcher.click();
    await this.dialog.waitFor();
    return this;
  }

  /** Waits until the dialog has risen: sizes and contrast count when it stands. */
  async settled() {
    await this.dialog.evaluate((node) => Promise.all(node.getAnimations().map((one) => one.finished)));
  }

  async ask(question) {
    await this.field.fill(question);
    await this.field.press("Enter");
  }

  /** Waits until the last of `count` answers is complete. */
  async answered(count = 1) {
    await this.answers
      .nth(count - 1)
      .getByRole("button", { name: "Copy answer" })
      .waitFor();
  }

  /** What axe-core has to say, as sentences; the empty list is the aim. `rules` are some of its rules. */
  async faults(rules = undefined) {
    // Not by a script tag: a page with a strict policy would refuse it.
    await this.page.evaluate(await readFile(this.axe, "utf8"));
    return this.page.evaluate(async (runOnly) => {
      const { violations } = await window.axe.run(document, { resultTypes: ["violations"], runOnly });
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 150)).join(" | ")}`);
    }, rules);
  }

  /** The element that has the focus, inside shadow roots too: its label, else its tag. */
  focused() {
    return this.page.evaluate(() => {
      let node = document.activeElement;
      while (node.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
      return node.ariaLabel || node.textContent.trim() || node.tagName;
    });
  }
}

/** Waits for `check` to hold; the last thing it threw is the error. */
export async function eventually(check, { timeoutMs = 6000 } = {}) {
  const until = Date.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

export async function text(locator) {
  return (await locator.innerText()).replace(/\s+/g, " ").trim();
}

export { assert };
