// What can go wrong, and what the chat says and does then.

import { assert, eventually, text } from "./chat.mjs";
import { SOURCES } from "./stub.mjs";

const INLINE = { body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" };

export async function stop_keeps_what_was_written_and_tells_the_server({ stub, visitor }) {
  let answer;
  stub.answer = (one) => (answer = one.begin().say("The warranty lasts "));
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.prose.getByText("The warranty lasts").waitFor();
  await chat.stop.click();
  await answer.left;
  await chat.answer.getByText("Stopped. This answer is not complete.").waitFor();
  assert.equal(await text(chat.prose), "The warranty lasts");
  stub.answer = (one) => one.whole("The warranty lasts 37 months [1].", SOURCES);
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.answered();
  assert.equal(await chat.answers.count(), 1);
  assert.deepEqual(
    stub.asked.map(({ message }) => message),
    ["How long?", "How long?"],
  );
  assert.deepEqual(stub.asked[1].history, []);
}

export async function what_an_answer_lacks_is_said_in_the_visitors_language({ stub, visitor }) {
  const degraded = "chat model unavailable: passages are quoted";
  stub.answer = (one) => one.whole("37 months.", [], { degraded, degraded_codes: ["model"] });
  const chat = await (await visitor()).open(stub.page({ ...INLINE, html: 'lang="de"' }));
  await chat.page.getByRole("textbox").fill("Wie lange?");
  await chat.page.keyboard.press("Enter");
  await chat.answer.getByText("Unser Schreibassistent ist gerade nicht verfügbar").waitFor();
  stub.answer = (one) => one.whole("37 months.", [], { degraded, degraded_codes: ["a_code_of_tomorrow"] });
  await chat.page.getByRole("textbox").fill("Wie lange?");
  await chat.page.keyboard.press("Enter");
  await chat.answer.getByText(`Eingeschränkte Antwort (${degraded})`).waitFor();
}

export async function too_many_questions_show_a_countdown_and_then_go_on({ stub, visitor }) {
  const { context, open } = await visitor();
  await context.clock.install();
  stub.answer = (one) => one.refuse(429, "rate_limited", "Too many requests.", { "Retry-After": "42" });
  const chat = await open(stub.page(INLINE));
  await chat.ask("How long?");
  const again = chat.answer.getByRole("button", { name: /Try again/ });
  await chat.answer.getByText("many questions in a short time").waitFor();
  await chat.page.clock.runFor(1000);
  assert.match(await text(again), /^Try again in 4[012] s$/);
  assert.ok(await again.isDisabled());
  await chat.ask("Again?");
  assert.equal(stub.asked.length, 1, "nothing is sent before the time is over");
  stub.answer = (one) => one.whole("37 months.", []);
  await chat.page.clock.runFor(42_000);
  assert.equal(await text(again), "Try again");
  await again.click();
  await chat.answered();
}

export async function an_error_before_the_answer_says_what_the_server_said({ stub, visitor }) {
  stub.answer = (one) => one.refuse(503, "upstream_unavailable", "The language model cannot be reached at the moment.");
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answer.getByText("Our assistant cannot be reached right now.").waitFor();
  stub.answer = (one) => one.whole("37 months.", []);
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.answered();
}

export async function an_error_inside_the_answer_keeps_what_came_before_it({ stub, visitor }) {
  const problem = {
    title: "Model too slow",
    status: 504,
    detail: "The language model did not answer in time.",
    code: "upstream_timeout",
  };
  stub.answer = (one) => {
    one
      .begin()
      .say("The warranty ")
      .raw(`event: error\ndata: ${JSON.stringify(problem)}\n\n`);
    one.response.end();
  };
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answer.getByText("Our assistant took too long to answer.").waitFor();
  assert.equal(await text(chat.prose), "The warranty");
}

export async function a_connection_that_breaks_off_is_told_from_a_complete_answer({ stub, visitor }) {
  stub.answer = async (one) => {
    one.begin().say("The warranty ");
    await new Promise((resolve) => setTimeout(resolve, 50));
    one.response.destroy();
  };
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answer.getByText("The connection broke before the answer was complete.").waitFor();
  stub.answer = (one) => (one.begin().say("Half"), one.response.end());
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.prose.getByText("Half").waitFor();
  await chat.answer.getByText("The connection broke before the answer was complete.").waitFor();
}

export async function a_refused_question_is_handed_back_to_be_put_otherwise({ stub, visitor }) {
  stub.answer = (one) => one.refuse(422, "content_filtered", "The question was refused.");
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("Something rude");
  await chat.answer.getByText("Please put it in other words.").waitFor();
  assert.equal(await chat.field.inputValue(), "Something rude");
  assert.equal(await chat.answer.getByRole("button", { name: "Try again" }).count(), 0);
}

export async function a_server_that_is_down_and_comes_back_answers_on_retry({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  const { port } = stub;
  await stub.stop();
  await chat.ask("How long?");
  await chat.answer.getByText("The chat cannot be reached at the moment.").waitFor();
  await stub.listen(port);
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.answered();
}

export async function an_offline_question_is_sent_when_the_connection_is_back({ stub, visitor }) {
  const { context, open } = await visitor();
  const chat = await open(stub.page(INLINE));
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  await context.setOffline(true);
  await chat.ask("How long?");
  await chat.answer.getByText("You are offline.").waitFor();
  await context.setOffline(false);
  await chat.answered();
  assert.equal(await chat.answers.count(), 1);
}

export async function a_degraded_answer_says_what_was_missing({ stub, visitor }) {
  stub.answer = (one) =>
    one.whole("> 37 months\n\n[Warranty](https://docs.example/warranty) [1]", SOURCES, {
      degraded: "chat model unavailable: passages are quoted",
    });
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answer.getByText("Limited answer (chat model unavailable: passages are quoted)").waitFor();
  await chat.answered();
}

export async function further_quotes_are_folded_below_the_best_one({ stub, visitor }) {
  const quotes = "Best of all. See [Returns](https://docs.example/returns).\n\n[Warranty](https://docs.example/warranty) [1]";
  const more = "#### More from the docs\n\n> 45 days\n\n[Returns](https://docs.example/returns) [2]";
  stub.answer = (one) => one.whole(`${quotes}\n\n${more}`, SOURCES, { degraded: "no model", generated: "quoted" });
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answered();
  const folded = chat.prose.locator("details");
  assert.equal(await folded.locator("blockquote").isVisible(), false);
  assert.equal(await chat.prose.locator("h4").count(), 0);
  const colour = (one) => one.evaluate((node) => getComputedStyle(node).color);
  assert.equal(await colour(chat.prose.getByText("Best of all")), await colour(chat.prose));
  assert.equal(await chat.prose.getByRole("link", { name: "Returns" }).first().isVisible(), true);
  await folded.getByText("More from the docs").click();
  assert.equal(await folded.getByText("45 days").isVisible(), true);
  const cite = folded.getByRole("link", { name: /^Source 2/ });
  assert.equal(await cite.getAttribute("href"), SOURCES[1].url);
  await chat.page.reload();
  await chat.answered();
  assert.equal(await chat.prose.locator("details blockquote").isVisible(), false);
  assert.deepEqual(await chat.faults(), []);
}

export async function messages_that_cannot_be_loaded_are_not_passed_over_in_silence({ stub, visitor }) {
  const { context, open } = await visitor();
  const chat = await open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answered();
  await context.route("**/history", (route) =>
    route.fulfill({ status: 503, json: { code: "state_unavailable", detail: "x" } }),
  );
  await chat.page.reload();
  await chat.page.getByText("Earlier messages cannot be loaded right now.").waitFor();
  await context.unroute("**/history");
  await chat.page.evaluate(() => dispatchEvent(new Event("online")));
  await chat.answered();
}

export async function without_storage_the_chat_works_and_forgets({ stub, visitor }) {
  const { context, open } = await visitor();
  await context.addInitScript(() => {
    for (const name of ["localStorage", "sessionStorage"]) {
      Object.defineProperty(window, name, {
        get() {
          throw new DOMException("denied", "SecurityError");
        },
      });
    }
  });
  const chat = await open(stub.page(INLINE));
  await chat.ask("How long?");
  await chat.answered();
  await chat.ask("And then?");
  await chat.answered(2);
  assert.equal(stub.asked[1].session_id, "session-1-0123456789abcdef", "within one page the conversation goes on");
}

export async function an_answer_is_read_aloud_once_and_in_sentences({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page(INLINE));
  await chat.page.evaluate(() => {
    const live = document.querySelector("rag-chat").shadowRoot.querySelector("[aria-live]");
    window.heard = [];
    new MutationObserver(() => window.heard.push(live.textContent)).observe(live, {
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
  stub.answer = (one) =>
    one.whole("# Warranty\n\nIt lasts **37 months** [1].\n\n- Probes too\n- Not pumps", SOURCES, { size: 2 });
  await chat.ask("How long?");
  await chat.answered();
  await eventually(async () =>
    assert.deepEqual(await chat.page.evaluate(() => window.heard), [
      "Searching the pages …",
      "Warranty. It lasts 37 months. Probes too. Not pumps. 3 sources.",
    ]),
  );
}
