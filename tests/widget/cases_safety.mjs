// Answers and sources that mean harm. Whatever they hold, it is shown as text: nothing runs, loads, or leads astray.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { assert, text } from "./chat.mjs";
import { source } from "./stub.mjs";

const EVIL = "http://evil.example";

const HOSTILE = `Hello <script>window.harmed = "script"</script> <img src=x onerror="window.harmed='img'">
<svg onload="window.harmed='svg'"></svg> <iframe srcdoc="<script>parent.harmed='frame'</script>"></iframe>

[click](javascript:window.harmed='link') [tabbed](java\tscript:alert(1)) [data](data:text/html,<script>1</script>)
[vb](vbscript:x) [file](file:///etc/passwd) [blob](blob:${EVIL}/1) [spaced]( javascript:alert(1) )
![remote](${EVIL}/pixel.png) ![](${EVIL}/empty.png) ![d](data:image/svg+xml;base64,AAAA)
[![nested](${EVIL}/nested.png)](javascript:alert(2)) <javascript:alert(3)> javascript:alert(4)
[ref]: ${EVIL}/ref "x"
<a href="javascript:alert(5)">anchor</a> <style>*{display:none}</style> <base href="${EVIL}">

| a <img src=${EVIL}/cell.png> | [b](javascript:1) |
|---|---|
| <b onclick=alert(1)>c</b> | ![x](${EVIL}/row.png) |

- [ ] <input autofocus onfocus=alert(1)>
> <object data="${EVIL}"></object>

\`\`\`html" onmouseover="alert(1)
<script>window.harmed = "code"</script>
\`\`\`

[good](https://docs.example/page) [mail](mailto:help@docs.example) [9](javascript:alert(6)) [1]`;

async function faceHostility({ stub, visitor }, size) {
  const { context, open } = await visitor();
  const strange = [];
  context.on("request", (request) => {
    if (!request.url().startsWith(stub.origin) && !request.url().startsWith("data:,")) strange.push(request.url());
  });
  stub.answer = (answer) =>
    answer.whole(HOSTILE, [source("javascript:alert(7)", "<img src=x onerror=alert(8)>", "<b>x</b>")], { size });
  const chat = await open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("<img src=x onerror=\"window.harmed='question'\">");
  await chat.answered();
  const found = await chat.page.evaluate(() => {
    const root = document.querySelector("rag-chat").shadowRoot;
    const all = [...root.querySelectorAll("*")];
    return {
      harmed: window.harmed ?? null,
      forbidden: all
        .map((node) => node.localName)
        .filter((name) => /^(script|img|iframe|object|style|base|input|a:)$/.test(name)),
      handlers: all.flatMap((node) => node.getAttributeNames()).filter((name) => name.startsWith("on")),
      links: all.filter((node) => node.hasAttribute("href")).map((node) => node.getAttribute("href")),
      sources: all.filter((node) => node.hasAttribute("src")).length,
      text: root.querySelector(".md").textContent,
    };
  });
  assert.equal(found.harmed, null);
  assert.deepEqual(found.forbidden, []);
  assert.deepEqual(found.handlers, []);
  assert.equal(found.sources, 0);
  assert.deepEqual(strange, []);
  for (const link of found.links) assert.match(link, /^(https?:|mailto:)/);
  assert.ok(
    found.links.includes("https://docs.example/page") && found.links.includes("mailto:help@docs.example"),
    "sound links stay",
  );
  for (const words of ["<script>", "onerror", "remote", "nested", "anchor"])
    assert.ok(found.text.includes(words), `${words} is shown as text`);
}

export async function a_hostile_answer_is_only_text(world) {
  await faceHostility(world, 10_000);
}

export async function a_hostile_answer_split_over_tokens_is_only_text(world) {
  await faceHostility(world, 1);
}

export async function a_hostile_answer_in_crooked_pieces_is_only_text(world) {
  await faceHostility(world, 5);
}

export async function a_hostile_history_is_only_text({ stub, visitor }) {
  const { context, open } = await visitor();
  const id = "session-of-somebody-0123456789";
  stub.sessions.set(id, [
    { role: "user", content: "<b>hi</b>" },
    { role: "assistant", content: HOSTILE },
  ]);
  stub.page({ body: "<rag-chat></rag-chat>" });
  await context.addInitScript(([key, value]) => localStorage.setItem(key, value), [`rag-chat:${stub.origin}/`, id]);
  const chat = await open(`${stub.origin}/page`);
  await chat.answered();
  assert.equal(await chat.page.evaluate(() => window.harmed ?? null), null);
  assert.equal(await chat.page.locator("rag-chat img, rag-chat script, rag-chat b:text('hi')").count(), 0);
}

export async function thousands_of_nested_quotes_do_not_stall_the_page({ stub, visitor }) {
  stub.answer = (answer) =>
    answer.whole(`${">".repeat(20_000)} deep\n\n${"- ".repeat(5000)}list\n\nand on.`, [], { size: 3000 });
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("Deep?");
  await chat.answered();
  const depth = await chat.page.evaluate(() => {
    const walk = (node) => 1 + Math.max(0, ...[...node.children].map(walk));
    return walk(document.querySelector("rag-chat").shadowRoot.querySelector(".md"));
  });
  assert.ok(depth < 40, `${depth} levels`);
  assert.ok((await text(chat.prose)).includes("deep"));
}

export async function a_strict_policy_is_kept_and_the_chat_still_looks_right({ stub, visitor }) {
  const csp =
    `default-src 'none'; script-src ${stub.origin}; connect-src ${stub.origin}; img-src data:; base-uri 'none'; ` +
    "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
  const { context, open } = await visitor();
  await context.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  const script = `data-launcher data-accent="#0a7d4f"`;
  const chat = await open(stub.page({ csp, script, body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  await chat.ask("How long?");
  await chat.answered();
  await chat.openDialog();
  await chat.dialog.getByText("The warranty lasts").first().waitFor();
  assert.deepEqual(await chat.page.evaluate(() => window.violations), []);
  const [corner, colour] = await chat.dialog.evaluate((node) => [
    getComputedStyle(node).position,
    getComputedStyle(node.querySelector(".question > div")).backgroundColor,
  ]);
  assert.equal(corner, "fixed");
  assert.equal(colour, "rgb(10, 125, 79)");
}

export async function prices_and_variables_with_dollars_do_not_swallow_the_answer({ stub, visitor }) {
  const answer =
    "Set $HOME and $PATH, costs $5 or \\$6.\n\n- **bold** in `echo $X` here\n\n```sh\necho $Y\n$Z\n```\n\n[link](https://docs.example/?a=$b)\n\nEnd $x";
  const seen = [];
  for (const size of [1, 4, 1000]) {
    stub.answer = (one) => one.whole(answer, [], { size });
    const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
    await chat.ask("Dollars?");
    await chat.answered();
    seen.push(await text(chat.prose));
    assert.equal(await chat.prose.getByRole("link").getAttribute("href"), "https://docs.example/?a=$b");
    assert.equal(await text(chat.prose.locator("strong")), "bold");
  }
  const expected = "Set $HOME and $PATH, costs $5 or $6. bold in echo $X here sh echo $Y $Z link End $x";
  assert.deepEqual(seen, [expected, expected, expected]);
}

export async function code_inside_a_quote_is_shown_without_the_quotes_marks({ stub, visitor }) {
  const answer =
    "> ## Run\n> First:\n> \n> ```sh\n> a $X\n>\n>   b > c\n> ```\n> \n> After.\n\n[Docs](https://docs.example/) [1]\n\n> Next";
  for (const size of [1, 3, 1000]) {
    stub.answer = (one) => one.whole(answer, [], { size });
    const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
    await chat.ask("How?");
    await chat.answered();
    assert.equal(await chat.prose.locator("pre").textContent(), "a $X\n\n  b > c");
    const shape = await chat.prose.evaluate((node) => [...node.children].map((child) => child.localName));
    assert.deepEqual(shape, ["blockquote", "p", "blockquote"], `in pieces of ${size}`);
    assert.equal(await chat.prose.locator("blockquote blockquote").count(), 0);
  }
}

export async function brackets_and_bare_addresses_are_read_as_people_mean_them({ stub, visitor }) {
  stub.answer = (one) =>
    one.whole(
      "An [aside], a[0] item. See https://docs.example/x. " +
        "(And [this](relative/page.md), [that](//evil.example), [those](/\\\\evil.example).)",
      [],
      { size: 3 },
    );
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("Brackets?");
  await chat.answered();
  assert.equal(await text(chat.prose), "An [aside], a0 item. See https://docs.example/x. (And this, that, those.)");
  const links = await chat.prose.locator("[href]").evaluateAll((all) => all.map((one) => one.getAttribute("href")));
  assert.deepEqual(links, ["https://docs.example/x"]);
}

export async function checked_answers_lead_nowhere_else_in_the_chat({ visitor, stub, given }) {
  const require = createRequire(new URL("../../widget/package.json", import.meta.url));
  const { outputFiles } = await require("esbuild").build({
    entryPoints: [fileURLToPath(new URL("../../widget/src/markdown.js", import.meta.url))],
    bundle: true,
    format: "iife",
    globalName: "chat",
    write: false,
  });
  const { context } = await visitor();
  const page = await context.newPage();
  await page.goto(stub.page({ body: "" }));
  await page.evaluate(outputFiles[0].text.replace(/^"use strict";\s*var chat =/, "window.chat ="));
  const found = await page.evaluate((answers) => {
    return answers.map((answer) => {
      const root = document.createElement("div");
      const options = { cite: (n) => document.createTextNode(`[${n}]`), t: (key) => key, base: "https://site.example/" };
      const markdown = new chat.Markdown(root, options);
      for (const piece of answer.match(/[\s\S]{1,7}/g) ?? []) markdown.write(piece);
      markdown.finish();
      return [...root.querySelectorAll("*")].flatMap((node) =>
        node.getAttributeNames().filter((name) => /^(href|src|on.*|style)$/.test(name)).map((name) => [name, node.getAttribute(name)]),
      );
    });
  }, given.answers);
  const own = ["https://site.example/", "https://partner.exa", "http://localhost:1", "mailto:"];
  const wrong = found.flatMap((reached, at) =>
    reached
      .filter(([name, value]) => name !== "href" || !own.some((start) => value.startsWith(start)))
      .map((one) => `${one} in ${JSON.stringify(given.answers[at])}`),
  );
  assert(wrong.length === 0, wrong.slice(0, 5).join("\n"));
  assert(found.flat().length > given.answers.length / 50, "hardly a link was left to look at");
}
