// The same chat on the real server: four workers, the emulated model, and the server's own /demo page.

import { assert, eventually, text } from "./chat.mjs";

const QUESTION = "How long does the warranty last?";

/** The demo page's inline chat, on the server that the test started. */
async function demo({ visitor, given }, options) {
  const { context, open } = await visitor(options);
  await context.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  const chat = await open(`${given.base_url}/demo`);
  await chat.field.waitFor();
  return chat;
}

export async function on_the_real_server_a_question_is_answered_with_its_source(world) {
  const chat = await demo(world);
  await chat.ask(QUESTION);
  await chat.answered();
  assert.ok((await text(chat.prose)).includes("37 months"), await text(chat.prose));
  const cite = chat.prose.getByRole("link", { name: /^Source 1/ }).first();
  const address = await cite.getAttribute("href");
  assert.ok(address.startsWith("https://brinewell.example/warranty"), address);
  const chip = chat.answer.locator(".sources .chip").first();
  assert.equal(await chip.getAttribute("href"), address);
  assert.deepEqual(await chat.page.evaluate(() => window.violations), []);
  assert.deepEqual(await chat.faults(), []);
}

export async function a_click_on_a_citation_opens_the_page_at_the_cited_sentence(world) {
  const chat = await demo(world);
  await chat.page
    .context()
    .route("https://brinewell.example/**", (route) =>
      route.fulfill({ contentType: "text/html; charset=utf-8", body: world.given.page }),
    );
  await chat.ask(QUESTION);
  await chat.answered();
  const opened = chat.page.context().waitForEvent("page");
  await chat.prose
    .getByRole("link", { name: /^Source 1/ })
    .first()
    .click();
  const page = await opened;
  const sentence = page.getByText("37 months");
  await sentence.waitFor();
  await eventually(async () => {
    const { y } = await sentence.boundingBox();
    assert.ok(y > 0 && y < 800, `the sentence stands at ${y} px`);
  });
  assert.equal(await page.evaluate(() => window.opener), null);
}

export async function on_the_real_server_a_conversation_outlives_a_reload_and_reaches_a_second_tab(world) {
  const { visitor, given } = world;
  const person = await visitor();
  const chat = await person.open(`${given.base_url}/demo`);
  await chat.ask(QUESTION);
  await chat.answered();
  await chat.ask("And what does it cover?");
  await chat.answered(2);
  const before = await text(chat.prose);
  await chat.page.reload();
  await chat.answered(2);
  assert.equal(await text(chat.prose), before);
  const second = await person.open(`${given.base_url}/demo`);
  await second.answered(2);
  assert.equal(await text(second.prose), before);
}

export async function on_the_real_server_an_answer_can_be_stopped(world) {
  const chat = await demo(world);
  await chat.ask(QUESTION);
  await chat.prose.getByText("slowly").waitFor();
  await chat.stop.click();
  await chat.answer.getByText("Stopped. This answer is not complete.").waitFor();
  await chat.page.reload();
  await chat.page.getByText("Ask anything about").waitFor();
  assert.equal(await chat.answers.count(), 0, "a stopped answer is not remembered");
}

export async function on_the_real_server_a_thumb_with_a_reason_reaches_the_owner(world) {
  const chat = await demo(world);
  await chat.ask(QUESTION);
  await chat.answered();
  await chat.answer.getByRole("button", { name: "Not helpful" }).click();
  await chat.answer.getByLabel("What was missing or wrong?").fill(world.given.reason);
  await chat.answer.getByRole("button", { name: "Send" }).click();
  await chat.answer.getByText("Thank you for your feedback.").waitFor();
}

export async function on_the_real_server_the_limit_shows_a_countdown(world) {
  const chat = await demo(world);
  await chat.ask(QUESTION);
  await chat.answered();
  await chat.ask("And then?");
  const again = chat.answer.getByRole("button", { name: /^Try again in \d+ s$/ });
  await again.waitFor();
  assert.ok(await again.isDisabled());
}

export async function on_the_real_server_a_model_that_is_down_leaves_quoted_passages(world) {
  const chat = await demo(world);
  await chat.ask(QUESTION);
  await chat.answered();
  await chat.answer.getByText("Our writing assistant is unavailable").waitFor();
  assert.ok((await text(chat.prose)).includes("37 months"), await text(chat.prose));
}

export async function on_the_real_server_a_hostile_model_is_harmless(world) {
  const strange = [];
  const chat = await demo(world);
  chat.page.on("request", (request) => {
    if (!request.url().startsWith(world.given.base_url)) strange.push(request.url());
  });
  await chat.ask(QUESTION);
  await chat.answered();
  const found = await chat.page.evaluate(() => {
    const all = [...document.querySelector("rag-chat").shadowRoot.querySelector(".md").querySelectorAll("*")];
    return {
      harmed: window.harmed ?? null,
      names: all.map((node) => node.localName).filter((name) => /^(script|img|iframe|svg|style)$/.test(name)),
      links: all.filter((node) => node.hasAttribute("href")).map((node) => new URL(node.href).hostname),
    };
  });
  assert.equal(found.harmed, null);
  assert.deepEqual(found.names, []);
  assert.ok(!found.links.includes("evil.example"), found.links.join());
  assert.deepEqual(strange, []);
  assert.deepEqual(await chat.page.evaluate(() => window.violations), []);
}

export async function on_the_real_server_a_phone_gets_the_whole_screen(world) {
  const chat = await demo(world, {
    viewport: { width: 390, height: 780 },
    hasTouch: true,
    isMobile: true,
    colorScheme: "dark",
  });
  await chat.page.getByRole("button", { name: "Ask AI", exact: true }).click();
  await chat.settled();
  assert.deepEqual(await chat.dialog.boundingBox(), { x: 0, y: 0, width: 390, height: 780 });
  const field = chat.dialog.getByRole("textbox");
  await field.fill(QUESTION);
  await field.press("Enter");
  await eventually(async () => assert.ok((await text(chat.dialog.locator(".md").last())).includes("37 months")));
  await chat.page.getByRole("button", { name: "Close the chat" }).click();
  assert.equal(await chat.page.evaluate(() => document.documentElement.scrollWidth), 390);
}
