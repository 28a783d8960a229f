// A visitor asks: from the first visit to the second tab.

import { assert, eventually, text } from "./chat.mjs";
import { source, SOURCES, spelled } from "./stub.mjs";

const OF_ONE_PAGE = [
  source("https://docs.example/guide#a", "Guide › Probes › Length", "## Length\n\nThe **probe** is `2 m` [long](https://x.example)."),
  source("https://docs.example/guide#b", "Guide › Cables › Length", "Cables."),
  source("https://docs.example/guide#c", "Guide › Prices", "Prices."),
  source("https://docs.example/other", "Other › Prices", "Prices too."),
];

export async function chips_are_one_a_page_and_no_two_have_the_same_words({ stub, visitor }) {
  stub.answer = (one) => one.whole("So [1][2][3][4].", OF_ONE_PAGE);
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  const pages = chat.answer.locator(".sources > ul > li");
  assert.equal(await pages.count(), 2);
  const words = await chat.answer.locator(".sources .chip > span:not(.hidden)").allInnerTexts();
  assert.deepEqual(words, ["Probes › Length", "Cables › Length", "Prices", "Prices"]);
  assert.deepEqual(await chat.answer.locator(".sources .page").allInnerTexts(), ["Guide", "Other"]);
  const card = chat.page.getByRole("tooltip");
  await chat.answer.locator(".sources .chip").first().hover();
  assert.equal(await card.innerText(), "Length The probe is 2 m long.");
  await chat.page.mouse.move(0, 0);
  await card.waitFor({ state: "hidden" });
  await chat.answer.locator(".sources .chip").nth(1).focus();
  assert.equal(await card.innerText(), "Cables.");
}

export async function the_page_is_told_of_questions_answers_and_feedback({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.page.evaluate(() => {
    window.told = [];
    for (const name of ["question", "answer", "feedback"]) {
      document.addEventListener(`ragchat:${name}`, ({ type, detail }) => window.told.push([type, detail]));
    }
  });
  await chat.ask("How long?");
  await chat.answered();
  await chat.answer.getByRole("button", { name: "Helpful", exact: true }).click();
  await chat.answer.getByText("Thank you for your feedback.").waitFor();
  const told = await chat.page.evaluate(() => window.told);
  assert.deepEqual(told.map(([type]) => type), ["ragchat:question", "ragchat:answer", "ragchat:feedback"]);
  assert.equal(told[1][1].answer, "The warranty lasts **37 months** [1].");
  assert.equal(told[2][1].rating, "up");
  await chat.page.reload();
  await chat.answered();
  const thumb = chat.answer.getByRole("button", { name: "Helpful", exact: true });
  assert.equal(await thumb.getAttribute("aria-pressed"), "true", "the thumb is remembered");
}

export async function a_first_visit_shows_a_button_and_fetches_nothing({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page());
  await chat.launcher.waitFor();
  assert.deepEqual(stub.paths, ["GET /page", "GET /widget.js"]);
}

export async function the_open_chat_greets_with_the_sites_name_and_its_questions({ stub, visitor }) {
  const chat = await (await (await visitor()).open(stub.page())).openDialog();
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  await chat.page.getByRole("button", { name: "How long does the warranty last?" }).click();
  await chat.answered();
  assert.equal(stub.asked[0].message, "How long does the warranty last?");
}

export async function data_attributes_win_over_the_servers_settings({ stub, visitor }) {
  const script = `data-title="Ask Ada" data-greeting="What now?" data-placeholder="Go on" data-suggestions="One?|Two?"`;
  const chat = await (await (await visitor()).open(stub.page({ script }))).openDialog();
  const seen = await text(chat.dialog);
  for (const words of ["Ask Ada", "What now?", "One?", "Two?"]) assert.ok(seen.includes(words), `${words} in ${seen}`);
  assert.ok(!seen.includes("Brinewell"), seen);
  assert.equal(await chat.field.getAttribute("placeholder"), "Go on");
}

export async function words_are_shown_as_they_arrive({ stub, visitor }) {
  let answer;
  stub.answer = (one) => (answer = one.begin());
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.page.getByText("Searching the pages").first().waitFor();
  await eventually(() => assert.ok(answer));
  answer.say("The warranty ");
  await eventually(async () => assert.equal(await text(chat.prose), "The warranty"));
  answer.say("lasts **37");
  // The parser holds the last letter back, which may begin a mark.
  await eventually(async () => assert.match(await text(chat.prose), /^The warranty lasts 3/));
  answer.say(" months**.").done();
  await chat.answered();
  assert.equal(await text(chat.prose.locator("strong")), "37 months");
}

export async function events_cut_inside_letters_and_lines_are_put_together({ stub, visitor }) {
  stub.answer = async (answer) => {
    answer.begin();
    const rest =
      spelled("delta", { text: "Größe: 8 €, 温度 🐠" }).replaceAll("\n", "\r\n") +
      ": a comment\n\n" +
      spelled("done", { response: "Größe: 8 €, 温度 🐠", sources: [], degraded: null });
    for (const byte of Buffer.from(rest)) {
      answer.response.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    answer.response.end();
  };
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How big?");
  await chat.answered();
  assert.equal(await text(chat.prose), "Größe: 8 €, 温度 🐠");
}

export async function a_citation_split_over_tokens_leads_to_its_source({ stub, visitor }) {
  stub.answer = (answer) => answer.whole("It lasts 37 months [1]. Returns take 45 days [1, 2].", SOURCES, { size: 1 });
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  const first = chat.prose.getByRole("link", { name: "Source 1: Warranty › Length" }).first();
  assert.equal(await first.getAttribute("href"), SOURCES[0].url);
  assert.equal(await first.getAttribute("rel"), "noopener");
  assert.equal(await first.getAttribute("target"), "_blank");
  assert.equal(await text(chat.prose), "It lasts 37 months 1. Returns take 45 days 12.");
  const chips = chat.answer.locator(".sources > ul .chip");
  assert.deepEqual(await chips.evaluateAll((all) => all.map((one) => one.getAttribute("href"))), [
    SOURCES[0].url,
    SOURCES[1].url,
  ]);
  await chat.answer.getByText("Also found (1)").click();
  await chat.answer.getByRole("link", { name: "Prices and plans" }).waitFor();
}

export async function a_source_without_an_address_shows_its_passage_instead({ stub, visitor }) {
  stub.answer = (answer) => answer.whole("See [1].", [source("guide/api.md", "REST API", "It listens on port 8731.")]);
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("Which port?");
  await chat.answered();
  await chat.prose.getByRole("button", { name: "Source 1: REST API" }).press("Enter");
  await chat.answer.getByText("It listens on port 8731.").waitFor();
  await chat.answer.getByRole("button", { name: "1 REST API" }).click();
  await chat.answer.getByText("It listens on port 8731.").waitFor({ state: "hidden" });
  assert.equal(await chat.answer.getByRole("link").count(), 0);
}

export async function a_page_of_the_servers_own_is_linked_wherever_the_chat_stands({ stub, visitor }) {
  stub.cors = true;
  const address = "/demo/pages/api/#limits:~:text=at%20most";
  stub.answer = (answer) => answer.whole(`See [API](${address}) [1].`, [source(address, "API", "At most 12.")], { size: 3 });
  const from = `http://localhost:${stub.port}`;
  const chat = await (await visitor()).open(stub.page({ from, body: "<rag-chat></rag-chat>" }));
  await chat.ask("Where?");
  await chat.answered();
  const links = await chat.answer.locator("[href]").evaluateAll((all) => all.map((one) => one.getAttribute("href")));
  assert.deepEqual(links, Array(3).fill(from + address));
}

export async function the_whole_answer_replaces_pieces_that_were_taken_back({ stub, visitor }) {
  stub.answer = (answer) =>
    answer
      .begin()
      .say("It is so [7].")
      .done({ response: "It is so [1].", sources: [SOURCES[1]] });
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("Is it?");
  await chat.answered();
  assert.equal(await text(chat.prose), "It is so 1.");
  assert.equal(await chat.prose.getByRole("link").getAttribute("href"), SOURCES[1].url);
}

export async function a_follow_up_carries_the_conversation_on({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  await chat.ask("And after that?");
  await chat.answered(2);
  const [first, second] = stub.asked;
  assert.equal(first.session_id, undefined);
  assert.equal(second.session_id, "session-1-0123456789abcdef");
  assert.deepEqual(
    second.history.map(({ role }) => role),
    ["user", "assistant"],
  );
  assert.equal(second.history[0].content, "How long?");
}

export async function a_reload_keeps_conversation_and_citations({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  const before = await text(chat.answer);
  await chat.page.reload();
  await chat.answered();
  assert.equal(await text(chat.answer), before);
  await chat.page.getByText("How long?").waitFor();
  const kept = await chat.page.evaluate(() => Object.values(localStorage).join());
  assert.ok(!kept.includes("warranty") && !kept.includes("How long"), `only ids outlive the tab: ${kept}`);
}

export async function a_second_tab_follows_the_first({ stub, visitor }) {
  const person = await visitor();
  const first = await person.open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await first.ask("How long?");
  await first.answered();
  const second = await person.open(`${stub.origin}/page`);
  await second.answered();
  await second.ask("And then?");
  await second.answered(2);
  await first.answered(2);
  assert.equal(stub.asked[1].session_id, "session-1-0123456789abcdef");
  await second.page.getByRole("button", { name: "New conversation" }).click();
  await eventually(async () => assert.equal(await first.answers.count(), 0));
}

export async function a_deleted_conversation_is_forgotten_everywhere({ stub, visitor }) {
  const { context, open } = await visitor();
  await context.clock.install();
  const chat = await open(stub.page({ body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  const { recent, list } = listOf(chat);
  await chat.ask("How long?");
  await chat.answered();
  await chat.page.getByRole("button", { name: "New conversation" }).click();
  await chat.page.getByText("Ask anything about Brinewell").waitFor();
  assert.equal(await chat.answers.count(), 0);
  await chat.ask("Anew?");
  await chat.answered();
  assert.equal(stub.asked[1].session_id, undefined);
  assert.deepEqual(stub.asked[1].history, []);
  await recent.click();
  assert.deepEqual(await list.locator("span").allInnerTexts(), ["Anew?", "How long?"]);
  const remove = list.getByRole("button", { name: "Delete" });
  await remove.last().click();
  await chat.page.getByText("The conversation is deleted.", { exact: true }).waitFor();
  await eventually(async () => assert.equal(await remove.count(), 1));
  assert.deepEqual(await chat.faults(), []);
  await chat.page.getByRole("button", { name: "Undo" }).click();
  await eventually(async () => assert.equal(await remove.count(), 2));
  await chat.page.clock.runFor(20_000);
  assert.deepEqual(stub.forgotten, []);
  await remove.last().click();
  await chat.page.clock.runFor(11_000);
  await eventually(() => assert.deepEqual(stub.forgotten, ["session-1-0123456789abcdef"]));
  await eventually(async () => assert.equal(await chat.page.getByRole("button", { name: "Undo" }).count(), 0));
  await remove.click();
  await chat.page.goto("about:blank");
  await eventually(() => assert.equal(stub.forgotten.length, 2, "leaving the page deletes at once"));
}

export async function earlier_conversations_are_listed_and_go_on({ stub, visitor }) {
  const person = await visitor();
  const chat = await person.open(stub.page({ body: "<rag-chat></rag-chat>" }));
  const { recent, list } = listOf(chat);
  assert.ok(await recent.isHidden(), "there is none yet");
  await chat.ask("How long?");
  await chat.answered();
  await chat.page.getByRole("button", { name: "New conversation" }).click();
  await chat.ask("And what does it cost?");
  await chat.answered();
  await recent.click();
  await list.getByRole("button", { name: "How long?" }).click();
  await chat.page.locator(".question").getByText("How long?").waitFor();
  assert.equal(await text(chat.prose), "The warranty lasts 37 months 1.");
  assert.equal(await chat.prose.getByRole("link").getAttribute("href"), SOURCES[0].url, "this tab knows its sources");
  await chat.ask("And then?");
  await chat.answered(2);
  assert.equal(stub.asked[2].session_id, "session-1-0123456789abcdef");
  stub.sessions.delete("session-2-0123456789abcdef"); // As the server does after a day.
  await recent.click();
  await eventually(async () => assert.deepEqual(await list.locator("span").allInnerTexts(), ["How long?"]));
}

function listOf(chat) {
  return { recent: chat.page.getByRole("button", { name: "Recent conversations" }), list: chat.page.locator(".list") };
}

export async function an_answer_of_the_model_can_be_asked_for_again({ stub, visitor }) {
  stub.answer = (one) => one.whole("37 months [1].", SOURCES, { generated: "model" });
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  const again = chat.page.getByRole("button", { name: "Answer again" });
  for (const [place, question] of ["How long?", "Really?"].entries()) {
    await chat.ask(question);
    await chat.answered(place + 1);
  }
  assert.equal(await again.count(), 1, "only the last one");
  stub.answer = (one) => one.refuse(503, "upstream_unavailable", "Down.");
  await again.click();
  await chat.answer.getByText("Our assistant cannot be reached").waitFor();
  stub.answer = (one) => one.whole("Yes, 37 months [1].", SOURCES, { generated: "quoted" });
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.answered(2);
  assert.equal(await chat.answers.count(), 2);
  assert.equal(await again.count(), 0, "what is quoted would be the same again");
  const { message, session_id, history, regenerate } = stub.asked.at(-1);
  assert.deepEqual([message, session_id, regenerate], ["Really?", "session-1-0123456789abcdef", true]);
  assert.deepEqual(history.map(({ content }) => content), ["How long?", "37 months [1]."]);
  assert.equal(stub.asked[1].regenerate, undefined);
}

export async function an_answer_that_people_wrote_says_so({ stub, visitor }) {
  stub.answer = (one) => one.whole("37 months.", [], { generated: "quoted", own_words: stub.asked.length > 1 });
  const chat = await (await visitor()).open(stub.page({ body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  const label = chat.answer.getByText("Written by our team");
  await chat.ask("How long?");
  await chat.answered();
  assert.equal(await label.isVisible(), false);
  await chat.ask("How long, please?");
  await chat.answered(2);
  await label.waitFor();
  assert.deepEqual(await chat.faults(), []);
  await chat.page.reload();
  await chat.answered(2);
  assert.equal(await label.isVisible(), true);
}

export async function a_server_that_comes_late_brings_the_words_along({ stub, visitor }) {
  const { context, open } = await visitor();
  await context.route("**/widget/config*", (route) => route.abort());
  const chat = await open(stub.page({ body: "<rag-chat></rag-chat>", html: 'lang="de"' }));
  await chat.ask("Wie lange?");
  await chat.answer.getByText("The chat cannot be reached at the moment.").waitFor();
  await context.unroute("**/widget/config*");
  await chat.answer.getByRole("button", { name: "Try again" }).click();
  await chat.answer.getByRole("button", { name: "Antwort kopieren" }).waitFor();
}

export async function a_new_conversation_can_be_undone({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  await chat.ask("How long?");
  await chat.answered();
  await chat.page.getByRole("button", { name: "New conversation" }).click();
  await chat.page.getByText("A new conversation has begun.", { exact: true }).waitFor();
  assert.deepEqual(await chat.faults(), []);
  await chat.page.getByRole("button", { name: "Undo" }).click();
  await chat.answered();
  assert.equal(await text(chat.prose), "The warranty lasts 37 months 1.");
  assert.equal(await chat.page.getByRole("button", { name: "Undo" }).count(), 0);
  await chat.page.getByRole("button", { name: "New conversation" }).click();
  await chat.ask("Anew?");
  await chat.answered();
  assert.equal(await chat.page.getByRole("button", { name: "Undo" }).count(), 0, "who asks has decided");
  assert.deepEqual(stub.forgotten, [], "it stays among the recent ones");
}

export async function two_chats_on_a_page_are_one_conversation({ stub, visitor }) {
  const page = stub.page({ script: "data-launcher", body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" });
  const chat = await (await visitor()).open(page);
  await chat.ask("How long?");
  await chat.answered();
  await chat.openDialog();
  await chat.dialog.getByText("The warranty lasts").first().waitFor();
  assert.deepEqual(stub.asked.length, 1);
}

export async function thumbs_are_sent_with_the_place_of_the_answer_and_a_reason({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  stub.answer = (answer) => answer.whole("Then it ends.", []);
  await chat.ask("And then?");
  await chat.answered(2);
  await chat.answers.nth(0).getByRole("button", { name: "Helpful", exact: true }).click();
  await chat.page.getByText("Thank you for your feedback.").first().waitFor();
  await chat.answer.getByRole("button", { name: "Not helpful" }).click();
  await chat.answer.getByLabel("What was missing or wrong?").fill("Too short");
  await chat.answer.getByRole("button", { name: "Send" }).click();
  await eventually(() => assert.equal(stub.rated.length, 2));
  const id = "session-1-0123456789abcdef";
  assert.deepEqual(stub.rated, [
    { session_id: id, rating: "up", message_index: 1 },
    { session_id: id, rating: "down", reason: "Too short" },
  ]);
}

export async function a_thumb_down_without_a_reason_counts_when_the_page_is_left({ stub, visitor }) {
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  await chat.answer.getByRole("button", { name: "Not helpful" }).click();
  await chat.answer.getByLabel("What was missing or wrong?").waitFor();
  assert.deepEqual(stub.rated, []);
  await chat.page.goto("about:blank");
  await eventually(() => assert.deepEqual(stub.rated, [{ session_id: "session-1-0123456789abcdef", rating: "down" }]));
}

export async function numbers_lead_to_the_passages_that_they_stand_for_from_the_first_token_on({ stub, visitor }) {
  let answer;
  stub.answer = (one) => (answer = one.begin(SOURCES).say("Returns take 45 days [1], it lasts ", [1]));
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  const addresses = () => chat.prose.locator(".cite").evaluateAll((all) => all.map((one) => one.getAttribute("href")));
  await chat.ask("Returns?");
  await eventually(async () => assert.deepEqual(await addresses(), [SOURCES[1].url]));
  answer.say("37 months [2].", [1, 0]).done({ sources: [SOURCES[1], SOURCES[0], SOURCES[2]] });
  await chat.answered();
  assert.deepEqual(await addresses(), [SOURCES[1].url, SOURCES[0].url]);
  const chips = chat.answer.locator(".sources > ul .chip");
  assert.deepEqual(await chips.evaluateAll((all) => all.map((one) => one.getAttribute("href"))), [
    SOURCES[1].url,
    SOURCES[0].url,
  ]);
}

export async function thumbs_vanish_where_the_server_takes_none({ stub, visitor }) {
  stub.takesFeedback = false;
  const chat = await (await visitor()).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("How long?");
  await chat.answered();
  await chat.answer.getByRole("button", { name: "Helpful", exact: true }).click();
  await eventually(async () => assert.equal(await chat.page.getByRole("button", { name: /elpful/ }).count(), 0));
}

export async function the_sites_questions_in_an_answer_are_buttons_that_ask_them({ stub, visitor }) {
  const listed = "Hello!\n\nYou could ask:\n\n- What does it cost?\n- Something else?";
  stub.answer = (one) => one.whole(stub.asked.length === 1 ? listed : "40 euros.", []);
  const chat = await (await visitor({ locale: "nl-NL" })).open(stub.page({ body: "<rag-chat></rag-chat>" }));
  await chat.ask("hi");
  const button = chat.page.locator(".answer .asks").getByRole("button");
  assert.deepEqual(await button.allInnerTexts(), ["What does it cost?"]);
  await button.click();
  await eventually(() => assert.equal(stub.asked[1]?.message, "What does it cost?"));
  assert.equal(stub.languages[1], "en", "the server is told which language the page speaks");
  await chat.page.locator(".answer").nth(1).getByText("40 euros.").waitFor();
  assert.equal(await chat.page.locator(".answer .sources:not([hidden])").count(), 0);
}
