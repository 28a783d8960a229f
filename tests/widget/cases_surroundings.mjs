// The page around the chat, and the person before it: phones, themes, languages, keyboards, foreign styles.

import { assert, eventually, text } from "./chat.mjs";
import { SOURCES } from "./stub.mjs";

const LONG = `## How it is done\n\n1. Rinse the probe [1].\n2. Wait for **green**.\n\n| Part | Price |\n|---|---|\n| Probe | 29 € |\n\n\`\`\`bash\ncurl -H "X-Token: $TOKEN" http://brinewell.local:8731/v2/readings?with=a-very-long-query\n\`\`\`\n\nSee [the guide](https://docs.example/guide) [2].`;
const INLINE = "<main><h1>A page</h1><rag-chat></rag-chat></main>";

export async function on_a_phone_the_chat_takes_the_whole_screen_and_leaves_it({ stub, visitor }) {
  const person = await visitor({ viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
  const chat = await (await person.open(stub.page())).openDialog();
  await chat.settled();
  assert.deepEqual(await chat.dialog.boundingBox(), { x: 0, y: 0, width: 390, height: 780 });
  assert.notEqual(await chat.focused(), "Type your question", "the keyboard is not raised unasked");
  // The keyboard takes the lower half: the field must stay in what is left.
  await chat.page.setViewportSize({ width: 390, height: 420 });
  await eventually(async () => {
    const box = await chat.field.boundingBox();
    assert.ok(box.y + box.height <= 420, `field ends at ${box.y + box.height}`);
  });
  await chat.page.getByRole("button", { name: "Close the chat" }).click();
  assert.equal(await chat.dialog.count(), 0);
  assert.equal(await chat.page.evaluate(() => document.documentElement.style.overflow), "");
}

export async function nothing_scrolls_sideways_on_a_small_phone({ stub, visitor }) {
  stub.answer = (one) => one.whole(LONG, SOURCES);
  const person = await visitor({ viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
  const chat = await (await person.open(stub.page())).openDialog();
  await chat.ask("How is a-very-long-word-" + "x".repeat(80) + " calibrated?");
  await chat.answered();
  const [inner, outer] = await chat.dialog.locator(".log").evaluate((log) => [log.scrollWidth, log.clientWidth]);
  assert.ok(inner <= outer, `${inner} in ${outer}`);
}

export async function the_visitors_dark_theme_is_followed_and_the_pages_own_wins({ stub, visitor }) {
  const ground = (chat) => chat.page.locator(".panel").evaluate((node) => getComputedStyle(node).backgroundColor);
  const dark = await (await visitor({ colorScheme: "dark" })).open(stub.page({ body: INLINE }));
  assert.equal(await ground(dark), "rgb(21, 23, 28)");
  await dark.page.emulateMedia({ colorScheme: "light" });
  await eventually(async () => assert.equal(await ground(dark), "rgb(255, 255, 255)"));
  await dark.page.locator("rag-chat").evaluate((node) => (node.dataset.theme = "dark"));
  await eventually(async () => assert.equal(await ground(dark), "rgb(21, 23, 28)"));
}

export async function any_accent_colour_stays_readable({ stub, visitor }) {
  for (const [accent, colorScheme] of [
    ["#ffe14d", "light"],
    ["#101040", "dark"],
    ["oklch(0.8 0.15 150)", "light"],
    ["#777", "dark"],
  ]) {
    const chat = await (
      await visitor({ colorScheme })
    ).open(stub.page({ body: INLINE, head: `<style>:root { --rag-accent: ${accent} }</style>` }));
    await chat.ask("How long?");
    await chat.answered();
    assert.deepEqual(await chat.faults(["color-contrast"]), [], accent);
  }
}

export async function keyboard_alone_reaches_everything_and_focus_comes_back({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page());
  const { keyboard } = chat.page;
  await keyboard.press("Tab");
  await keyboard.press("Tab");
  assert.equal(await chat.focused(), "Open the chat");
  await keyboard.press("Enter");
  await eventually(async () => assert.equal(await chat.focused(), "Type your question"));
  await keyboard.type("How long?");
  await keyboard.press("Enter");
  await chat.answered();
  const visited = new Set();
  for (let i = 0; i < 24; i++) {
    await keyboard.press("Tab");
    visited.add(await chat.focused());
  }
  for (const name of [
    "New conversation",
    "Close the chat",
    "Conversation",
    "Helpful",
    "Not helpful",
    "Copy answer",
    "Send",
    "Type your question",
  ]) {
    assert.ok(visited.has(name), `${name} in ${[...visited].join(", ")}`);
  }
  assert.ok(
    [...visited].some((name) => name.startsWith("Source 1")),
    "citations are reached",
  );
  assert.ok(visited.has("a link"), "the page beside the chat stays in reach");
  assert.equal(await chat.dialog.getAttribute("aria-modal"), null);
  await chat.field.focus();
  await keyboard.press("Escape");
  assert.equal(await chat.dialog.count(), 0);
  assert.equal(await chat.focused(), "Open the chat");
}

export async function over_a_phones_screen_focus_stays_in_the_dialog({ stub, visitor }) {
  const chat = await (await (await visitor({ viewport: { width: 390, height: 844 } })).open(stub.page())).openDialog();
  assert.equal(await chat.dialog.getAttribute("aria-modal"), "true");
  const [forwards, backwards] = [new Set(), new Set()];
  for (const [keys, seen] of [
    ["Tab", forwards],
    ["Shift+Tab", backwards],
  ]) {
    for (let i = 0; i < 10; i++) {
      await chat.page.keyboard.press(keys);
      seen.add(await chat.focused());
    }
  }
  assert.ok(!forwards.has("a link") && !forwards.has("BODY"), [...forwards].join());
  assert.deepEqual([...backwards].sort(), [...forwards].sort());
}

export async function the_chat_stays_open_from_page_to_page_of_a_site({ stub, visitor }) {
  const next = stub.page({ name: "next" });
  stub.answer = (one) => one.whole(`It is on [the next page](${next}) and [elsewhere](https://docs.example/x).`, []);
  const chat = await (await (await visitor()).open(stub.page())).openDialog();
  await chat.ask("Where?");
  await chat.answered();
  const link = (name) => chat.prose.getByRole("link", { name });
  assert.equal(await link("elsewhere").getAttribute("target"), "_blank");
  await link("the next page").click();
  await chat.page.waitForURL(next);
  await chat.answered();
  assert.equal(await chat.focused(), await chat.page.evaluate(() => document.body.textContent.trim()), "the page keeps the focus");
  await chat.page.getByRole("button", { name: "Close the chat" }).click();
  await chat.page.reload();
  await chat.launcher.waitFor();
  assert.equal(await chat.dialog.count(), 0);
}

export async function a_link_on_a_phone_shows_its_page_and_not_the_chat({ stub, visitor }) {
  const next = stub.page({ name: "next" });
  stub.answer = (one) => one.whole(`It is on [the next page](${next}).`, []);
  const chat = await (await (await visitor({ viewport: { width: 390, height: 844 } })).open(stub.page())).openDialog();
  await chat.ask("Where?");
  await chat.answered();
  await chat.prose.getByRole("link").click();
  await chat.page.waitForURL(next);
  await chat.launcher.waitFor();
}

export async function a_refused_origin_is_explained_in_the_console({ stub, visitor }) {
  const said = [];
  const { context, open } = await visitor();
  context.on("console", (message) => said.push(message.text()));
  const chat = await open(stub.page({ from: `http://localhost:${stub.port}` }));
  await chat.openDialog();
  await eventually(() => assert.ok(said.some((one) => one.includes(`Add ${stub.origin} to its setting ALLOWED_ORIGINS`)), said.join()));
}

export async function it_says_that_an_ai_answers_and_links_the_privacy_statement({ stub, visitor }) {
  const notice = async (config) => {
    stub.config = { site_name: "Brinewell", suggested_questions: [], demo: false, ...config };
    const chat = await (await visitor()).open(stub.page({ body: INLINE }));
    await chat.page.getByText("Ask anything about Brinewell").waitFor();
    return chat.page.locator(".notice");
  };
  assert.match(await text(await notice({})), /^An AI answers here/);
  const own = await notice({ ai_notice: "A machine writes.", privacy_url: "https://docs.example/privacy" });
  assert.equal(await text(own), "A machine writes. Privacy");
  assert.equal(await own.getByRole("link").getAttribute("href"), "https://docs.example/privacy");
  assert.ok(await (await notice({ ai_notice: "off" })).isHidden());
}

export async function an_image_cannot_stand_in_the_scripts_place({ stub, visitor }) {
  const head = "</head><body><img name='currentScript' data-server='http://127.0.0.1:9' alt=''>";
  const chat = await (await (await visitor()).open(stub.page({ head }))).openDialog();
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
}

export async function axe_finds_nothing_in_any_state({ stub, visitor }) {
  stub.answer = (one) => one.whole(LONG, SOURCES, { degraded: "search is lexical alone" });
  for (const colorScheme of ["light", "dark"]) {
    const person = await visitor({ colorScheme });
    const chat = await person.open(stub.page({ script: "data-label='Ask us'" }));
    assert.deepEqual(await chat.faults(), [], "closed");
    await chat.page.getByRole("button", { name: "Ask us" }).click();
    await chat.page.getByText("Ask anything about Brinewell").waitFor();
    await chat.settled();
    assert.deepEqual(await chat.faults(), [], "greeting");
    await chat.ask("How is it calibrated?");
    await chat.answered();
    await chat.answer.getByRole("button", { name: "Not helpful" }).click();
    await chat.answer.getByLabel("What was missing or wrong?").waitFor();
    await chat.answer.getByText("Also found (1)").click();
    assert.deepEqual(await chat.faults(), [], "answer");
    stub.answer = (one) => one.refuse(429, "rate_limited", "x", { "Retry-After": "60" });
    await chat.ask("And then?");
    await chat.page.getByText("many questions in a short time").first().waitFor();
    assert.deepEqual(await chat.faults(), [], "429");
    stub.answer = (one) => one.whole(LONG, SOURCES, { degraded: "search is lexical alone" });
  }
}

export async function styles_leak_neither_in_nor_out({ stub, visitor }) {
  const head = `<style>
    * { color: rgb(255, 0, 0); font: 40px/3 serif !important; text-transform: uppercase; letter-spacing: 9px; direction: ltr }
    div, p, button, textarea, section { display: none !important; border: 9px solid red !important }
    rag-chat { margin-top: 10px }
  </style>`;
  const chat = await (
    await visitor()
  ).open(stub.page({ head, body: "<h1>A page</h1><b class='chip'>untouched</b><rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  const inside = await chat.prose.evaluate((node) => {
    const style = getComputedStyle(node);
    return [style.color, style.fontSize, style.textTransform, style.letterSpacing, style.display, style.borderTopWidth];
  });
  assert.deepEqual(inside, ["rgb(26, 29, 36)", "15px", "none", "normal", "block", "0px"]);
  const outside = await chat.page
    .locator("b.chip")
    .evaluate((node) => [getComputedStyle(node).color, getComputedStyle(node).borderRadius]);
  assert.deepEqual(outside, ["rgb(255, 0, 0)", "0px"]);
}

export async function a_page_written_from_right_to_left_is_mirrored({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ html: 'lang="en" dir="rtl"' }));
  const launcher = await chat.launcher.boundingBox();
  assert.ok(launcher.x < 100, `the button stands on the left: ${launcher.x}`);
  await chat.openDialog();
  assert.equal(await chat.field.evaluate((field) => getComputedStyle(field).direction), "rtl");
  await chat.ask("كم مدة الضمان؟");
  await chat.answered();
  const [close, title] = [
    await chat.page.getByRole("button", { name: "Close the chat" }).boundingBox(),
    await chat.dialog.locator("h2").boundingBox(),
  ];
  assert.ok(close.x < title.x, "the close button stands on the left");
}

export async function the_pages_language_is_spoken_or_the_one_asked_for({ stub, visitor }) {
  const german = await (await visitor()).open(stub.page({ html: 'lang="de-AT"' }));
  await german.page.getByRole("button", { name: "Chat öffnen" }).click();
  await german.page.getByText("Fragen Sie alles über Brinewell").waitFor();
  stub.answer = (one) => one.refuse(504, "upstream_timeout", "The language model did not answer in time.");
  await german.page.getByRole("textbox", { name: "Ihre Frage" }).fill("Wie lange?");
  await german.page.keyboard.press("Enter");
  await german.page.getByText("Unser Assistent hat nicht rechtzeitig geantwortet.").first().waitFor();
  const english = await (
    await visitor()
  ).open(stub.page({ html: 'lang="de"', script: 'data-lang="en"', name: "english" }));
  await english.launcher.waitFor();
}

export async function each_of_eleven_languages_is_spoken({ stub, visitor, given }) {
  const person = await visitor();
  for (const [lang, words] of Object.entries(given.texts)) {
    const dir = lang === "ar" ? "rtl" : "ltr";
    const chat = await person.open(stub.page({ html: `lang="${lang}" dir="${dir}"` }));
    await chat.page.getByRole("button", { name: words.open, exact: true }).click();
    await chat.page.getByText(words.notice, { exact: true }).waitFor();
    await chat.page.getByRole("textbox", { name: words.placeholder }).waitFor();
    await chat.page.getByRole("button", { name: words.close, exact: true }).click();
    await chat.page.close();
  }
}

export async function an_owners_own_words_are_shown({ stub, visitor }) {
  stub.config = { site_name: "Brinewell", texts: { hint: "Ask away, sailor." } };
  const chat = await (await visitor()).open(stub.page({ body: INLINE }));
  await chat.page.getByText("Ask away, sailor.").waitFor();
}

export async function who_wants_no_motion_sees_none({ stub, visitor }) {
  stub.answer = (one) => one.begin([]);
  const chat = await (await (await visitor({ reducedMotion: "reduce" })).open(stub.page())).openDialog();
  await chat.ask("How long?");
  await chat.page.getByText("Searching the pages").first().waitFor();
  assert.equal(await chat.page.evaluate(() => document.getAnimations().length), 0);
  assert.equal(await chat.dialog.evaluate((node) => node.getAnimations({ subtree: true }).length), 0);
}

export async function a_page_of_another_origin_may_embed_the_chat({ stub, visitor }) {
  stub.cors = true;
  const page = stub.page({ from: `http://localhost:${stub.port}` });
  const chat = await (await (await visitor()).open(page)).openDialog();
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  await chat.ask("How long?");
  await chat.answered();
  assert.ok((await text(chat.prose)).includes("37 months"));
}

export async function code_is_copied_as_it_was_written({ stub, visitor }) {
  const { context, open } = await visitor({ permissions: ["clipboard-read", "clipboard-write"] });
  stub.answer = (one) =>
    one.whole('Run:\n\n```bash\ncurl -H "X: $TOKEN" \\\n  http://x.example\n```\n', [], { size: 2 });
  const chat = await open(stub.page({ body: INLINE }));
  await chat.ask("How?");
  await chat.answered();
  await chat.answer.getByRole("button", { name: "Copy code" }).click();
  await chat.answer.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(
    await chat.page.evaluate(() => navigator.clipboard.readText()),
    'curl -H "X: $TOKEN" \\\n  http://x.example',
  );
  await context.close();
}

export async function who_goes_to_the_end_of_a_growing_answer_stays_there({ stub, visitor }) {
  let answer;
  const lines = (from) => Array.from({ length: 30 }, (_, i) => `Paragraph ${from + i}.\n\n`).join("");
  stub.answer = (one) => (answer = one.begin([]).say(lines(0)));
  const chat = await (await visitor()).open(stub.page({ body: INLINE }));
  await chat.ask("Tell me everything");
  await chat.page.getByRole("button", { name: "Go to the latest message" }).click();
  const inSight = (words) =>
    eventually(async () => {
      const [log, line] = [
        await chat.page.locator(".log").boundingBox(),
        await chat.prose.getByText(words).boundingBox(),
      ];
      assert.ok(line.y > log.y && line.y < log.y + log.height, `${words} at ${line.y}`);
    });
  await inSight("Paragraph 29.");
  answer.say(lines(30)).done();
  await chat.answered();
  await inSight("Paragraph 59.");
}

export async function after_a_retry_the_keyboard_is_still_in_the_dialog({ stub, visitor }) {
  stub.answer = (one) => one.refuse(503, "upstream_unavailable", "Down.");
  const chat = await (await (await visitor()).open(stub.page())).openDialog();
  await chat.ask("How long?");
  await chat.answer.getByText("Our assistant cannot be reached").waitFor();
  stub.answer = (one) => one.whole("37 months.", []);
  await chat.answer.getByRole("button", { name: "Try again" }).press("Enter");
  await chat.answered();
  assert.equal(await chat.focused(), "Type your question");
}

export async function a_reload_shows_the_end_of_the_conversation({ stub, visitor }) {
  const person = await visitor();
  const chat = await person.open(stub.page({ body: INLINE }));
  stub.answer = (one) => one.whole(Array.from({ length: 30 }, (_, i) => `Paragraph ${i}.`).join("\n\n"), []);
  await chat.ask("First?");
  await chat.answered();
  stub.answer = (one) => one.whole("Short.", []);
  await chat.ask("Second?");
  await chat.answered(2);
  await chat.page.reload();
  await chat.answered(2);
  await eventually(async () => {
    const [log, answer] = [await chat.page.locator(".log").boundingBox(), await chat.prose.boundingBox()];
    assert.ok(
      answer.y > log.y && answer.y + answer.height < log.y + log.height,
      `${answer.y} in ${log.y}+${log.height}`,
    );
  });
}

export async function a_long_answer_is_read_from_its_beginning({ stub, visitor }) {
  stub.answer = (one) => one.whole(Array.from({ length: 60 }, (_, i) => `Paragraph ${i}.`).join("\n\n"), []);
  const chat = await (await visitor()).open(stub.page({ body: INLINE }));
  await chat.ask("Tell me everything");
  await chat.answered();
  assert.ok(await chat.page.getByText("Paragraph 0.").first().isVisible());
  const log = await chat.page.locator(".log").boundingBox();
  const question = await chat.page.locator(".question").boundingBox();
  assert.ok(question.y >= log.y && question.y < log.y + 60, "the question stands at the top");
  await chat.page.getByRole("button", { name: "Go to the latest message" }).click();
  await eventually(async () => {
    const last = await chat.page.getByText("Paragraph 59.").first().boundingBox();
    assert.ok(last.y < log.y + log.height, "the end is in sight");
  });
}

export async function what_is_marked_on_the_page_goes_with_the_question_that_shows_it({ stub, visitor }) {
  const marked = "Rinse the probe. ".repeat(150).trim();
  const body = `<main><h1>A page</h1><p id="marked">${marked}</p><label>Yours <input value="private"></label></main>`;
  const mark = (chat) => chat.page.locator("#marked").click({ clickCount: 3, position: { x: 20, y: 8 } });
  const chat = await (await visitor()).open(stub.page({ body, script: "data-page='text' data-shortcut='i' data-label='Ask AI'" }));
  assert.equal(await chat.page.getByRole("button", { name: "Ask AI" }).getAttribute("aria-keyshortcuts"), "Control+I");
  await mark(chat);
  await chat.page.keyboard.press("Control+i");
  const row = chat.page.getByRole("group", { name: "Marked on the page" });
  await row.waitFor();
  await eventually(async () => assert.equal(await chat.focused(), "Type your question"));
  await chat.settled();
  assert.deepEqual(await chat.faults(), []);
  await row.getByRole("button", { name: "Explain this" }).click();
  await chat.answered();
  assert.ok(await row.isHidden());
  const { message, page } = stub.asked[0];
  assert.deepEqual([message, page], ["Explain this", { url: `${stub.origin}/page`, title: "A page", selection: marked.slice(0, 2000) }]);
  assert.match(await text(chat.page.locator(".question")), /Rinse the probe.*Explain this/);
  await mark(chat);
  await row.getByRole("button", { name: "Leave it out" }).click();
  await chat.page.locator("input").selectText();
  assert.ok(await row.isHidden(), "fields of the page are private");
  await chat.ask("And then?");
  await chat.answered(2);
  assert.equal(stub.asked[1].page.selection, undefined);
}

export async function of_the_page_no_more_is_told_than_it_allows({ stub, visitor }) {
  for (const [script, told] of [["data-page='off'", undefined], ["", { url: `${stub.origin}/page`, title: "A page" }]]) {
    const chat = await (await visitor()).open(`${stub.page({ script, body: INLINE })}?name=Ada#x`);
    await chat.page.evaluate(() => getSelection().selectAllChildren(document.querySelector("h1")));
    await chat.ask("How long?");
    await chat.answered();
    assert.deepEqual(stub.asked.at(-1).page, told);
  }
}

export async function code_and_tables_without_room_are_enlarged_over_the_page({ stub, visitor }) {
  const wide = `|${"A column|".repeat(9)}\n|${"---|".repeat(9)}\n|${"its value|".repeat(9)}`;
  stub.answer = (one) => one.whole(`${LONG}\n\n${wide}\n\n\`\`\`js\nlet a = "b"; // c\n\`\`\``, SOURCES);
  const chat = await (await (await visitor()).open(stub.page())).openDialog();
  await chat.ask("How?");
  await chat.answered();
  const expand = chat.answer.getByRole("button", { name: "Enlarge" });
  await eventually(async () => assert.equal(await expand.count(), 2, "the narrow ones need none"));
  await expand.last().click();
  const large = chat.page.getByRole("dialog", { name: "Enlarge" });
  const table = await large.getByRole("table").boundingBox();
  assert.ok(table.width > 420, `${table.width}`);
  assert.deepEqual(await chat.faults(), []);
  await chat.page.keyboard.press("Escape");
  await large.waitFor({ state: "detached" });
  assert.equal(await chat.focused(), "Enlarge");
  await chat.dialog.waitFor(); // Only the copy was closed.
  const code = chat.prose.locator("pre").last();
  assert.deepEqual(await code.locator("b, s, i").allInnerTexts(), ["let", '"b"', "// c"]);
  assert.equal(await code.innerText(), 'let a = "b"; // c');
}

export async function the_sites_logo_stands_in_header_and_greeting({ stub, visitor }) {
  const script = `data-logo="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 4'/%3E"`;
  const chat = await (await (await visitor()).open(stub.page({ script }))).openDialog();
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  assert.equal(await chat.dialog.locator("img[alt='']").count(), 2);
}
