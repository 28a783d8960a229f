// The owner's page on the real server, after a month of traffic.

import { readFile } from "node:fs/promises";

import { assert } from "./chat.mjs";

async function faults(page, axe) {
  await page.evaluate(await readFile(axe, "utf8"));
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
  });
}

export async function the_owner_reads_the_month_on_a_desk_and_on_a_phone({ visitor, given }) {
  for (const [width, colorScheme] of [
    [1200, "light"],
    [390, "dark"],
  ]) {
    const { context, open } = await visitor({ viewport: { width, height: 900 }, colorScheme });
    const { page, axe } = await open(`${given.base_url}/admin`);
    await page.getByLabel("A key with the scope").fill("wrong-key-wrong-key-wrong-key-wrong");
    await page.getByRole("button", { name: "Open" }).click();
    await page.getByRole("alert").filter({ hasText: "The credential is wrong" }).waitFor();
    assert.deepEqual(await faults(page, axe), []);

    await page.getByLabel("A key with the scope").fill(given.key);
    await page.getByRole("button", { name: "Open" }).click();
    await page.locator("#gaps table").waitFor();
    const shown = await page.locator("#page").innerText();
    for (const words of [...given.words, "no page on it", "found, but disliked"]) assert.ok(shown.includes(words), words);
    assert.deepEqual(await faults(page, axe), []);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);

    const [file] = await Promise.all([page.waitForEvent("download"), page.locator("[data-csv=gaps]").click()]);
    assert.ok((await readFile(await file.path(), "utf8")).startsWith("question,count,"));

    await page.reload();
    await page.locator("#gaps table").waitFor();
    await page.getByRole("button", { name: "Forget the key" }).click();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await context.close();
  }
}
