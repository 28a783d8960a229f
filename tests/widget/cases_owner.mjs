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

    const tables = { gaps: "question,count,", questions: "question,count,", cited: "url,title,times", never_cited: "url,title", usage: "day,questions," };
    await page.getByText("Figures by day", { exact: true }).first().click();
    for (const [name, begin] of Object.entries(tables)) {
      const [file] = await Promise.all([page.waitForEvent("download"), page.locator(`[data-csv=${name}]`).click()]);
      assert.ok((await readFile(await file.path(), "utf8")).startsWith(begin), name);
    }

    await page.reload();
    await page.locator("#gaps table").waitFor();
    await page.getByRole("button", { name: "Forget the key" }).click();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await context.close();
  }
}

export async function the_owner_adds_documents_and_removes_one({ visitor, given }) {
  const { context, open } = await visitor({ viewport: { width: 390, height: 900 } });
  const { page, axe } = await open(`${given.base_url}/admin`);
  await page.getByLabel("A key with the scope").fill(given.key);
  await page.getByRole("button", { name: "Open" }).click();
  const list = page.getByRole("region", { name: "Documents" });
  await page.getByText("No document was added").waitFor();

  const file = (name, text) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
  await page.getByLabel("Drop files here").setInputFiles([file("feeding.md", "# Feeding\n\nTwelve grams."), file("bad.exe", "MZ"), file("empty.txt", "")]);
  await list.getByRole("row", { name: /feeding.md live 1/ }).waitFor({ timeout: 30_000 });
  await list.getByRole("row", { name: /empty.txt failed empty file/ }).waitFor({ timeout: 30_000 });
  await page.getByRole("alert").filter({ hasText: "bad.exe: bad.exe is not of a type that is taken" }).waitFor();
  assert.equal(await page.locator("#sending p").count(), 0);
  assert.deepEqual(await faults(page, axe), []);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);

  const dropped = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["# <img src=x onerror=alert(1)>\n\nwords"], "<b>dropped.md"));
    return data;
  });
  await page.dispatchEvent("#drop", "drop", { dataTransfer: dropped });
  await list.getByRole("row", { name: /<b>dropped.md live/ }).waitFor({ timeout: 30_000 });

  page.on("dialog", (dialog) => dialog.accept());
  await list.getByRole("button", { name: "Remove feeding.md" }).click();
  await list.getByRole("row", { name: /feeding.md/ }).waitFor({ state: "detached" });
  await context.close();
}
