// A way to a person: offered with an answer, or below the field; the form, its failure, and what it sends.

import { assert, eventually } from "./chat.mjs";

async function asked({ stub, visitor }, escalation) {
  const { open } = await visitor();
  stub.answer = (answer) => answer.whole("Nothing was found.", [], { escalation });
  const chat = await open(stub.page({ body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  await chat.field.waitFor();
  await chat.ask("Is there a discount?");
  await chat.answered();
  return chat;
}

export async function a_visitor_asks_for_a_person_and_gets_a_number(world) {
  const { stub } = world;
  stub.config = { ...stub.config, handoff: { form: true, url: null } };
  const chat = await asked(world, { reason: "nothing_found" });
  await chat.answer.getByRole("button", { name: "Ask a person" }).click();
  const form = chat.page.getByRole("form", { name: "Ask a person" });
  const along = form.getByRole("checkbox", { name: "Send this conversation too" });
  assert.equal(await along.isChecked(), false, "consent is asked for");
  assert.deepEqual(await chat.faults(), []);

  await form.getByRole("button", { name: "Send" }).click();
  assert.equal(stub.handedOff.length, 0, "without an address nothing is sent");
  await form.getByLabel("Your mail address").fill("ada@example.org");
  await form.getByLabel("Your message").fill("Please call.");
  await along.check();
  const told = chat.page.evaluate(
    () => new Promise((resolve) => document.addEventListener("ragchat:handoff", ({ detail }) => resolve(detail))),
  );
  await form.getByRole("button", { name: "Send" }).click();
  await form.getByText("Those were many questions").waitFor();
  await form.getByRole("button", { name: "Send" }).click();
  await chat.page.locator("p.note", { hasText: "its number is H-7K2M4Q" }).waitFor();
  assert.deepEqual(await told, { reference: "H-7K2M4Q" });
  const { email, message, include_conversation, session_id, page } = stub.handedOff[1];
  assert.deepEqual({ email, message, include_conversation }, { email: "ada@example.org", message: "Please call.", include_conversation: true });
  assert.equal(session_id, "session-1-0123456789abcdef");
  assert.equal(page.url, `${stub.origin}/page`);
  assert.equal(stub.asked[0].page.url, `${stub.origin}/page`);
}

export async function whoever_dislikes_two_answers_is_offered_a_person_with_the_second(world) {
  const { stub } = world;
  stub.config = { ...stub.config, handoff: { form: false, url: "https://www.example.com/contact" } };
  const { open } = await world.visitor();
  let count = 0;
  stub.answer = (answer) => answer.whole(`Answer ${++count}.`, [], {});
  const chat = await open(stub.page({ body: "<main><h1>A page</h1><rag-chat></rag-chat></main>" }));
  await chat.field.waitFor();
  const links = chat.page.getByRole("link", { name: "Ask a person" });
  for (const number of [1, 2]) {
    await chat.ask(`Question ${number}?`);
    await chat.answered();
    await eventually(async () => assert.equal(await links.count(), 1)); // The one below the field.
    await chat.answer.getByRole("button", { name: "Not helpful" }).click();
    await chat.answer.getByRole("button", { name: "Skip" }).click();
    await chat.answer.getByText("Thank you").waitFor();
  }
  await eventually(async () => assert.equal(await links.count(), 2));
  assert.equal(await chat.answer.getByRole("link", { name: "Ask a person" }).count(), 1);
}

export async function a_person_is_offered_below_the_field_and_only_where_there_is_one(world) {
  const { stub } = world;
  const without = await asked(world, { reason: "asked" });
  assert.equal(await without.page.getByText("Ask a person").count(), 0);

  stub.config = { ...stub.config, handoff: { form: false, url: "https://www.example.com/contact" } };
  const chat = await asked(world, null);
  const links = chat.page.getByRole("link", { name: "Ask a person" });
  await eventually(async () => assert.equal(await links.count(), 1));
  assert.equal(await links.first().getAttribute("href"), "https://www.example.com/contact");
}
