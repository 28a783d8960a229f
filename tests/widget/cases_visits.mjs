// Visits on the real server: its own page is let in by itself, and a page of any other origin gets nowhere.

import { assert, eventually, text } from "./chat.mjs";

const QUESTION = "How long does the warranty last?";

export async function where_visits_are_required_the_chat_begins_one_and_is_answered({ visitor, given }) {
  const { context, open } = await visitor();
  const begun = [];
  context.on("response", (response) => {
    if (response.url() === `${given.base_url}/visit`) begun.push(response.status());
  });
  const chat = await open(`${given.base_url}/demo`);
  await chat.field.waitFor();
  await chat.ask(QUESTION);
  await chat.answered();
  assert.ok((await text(chat.prose)).includes("37 months"), await text(chat.prose));
  assert.deepEqual(begun, given.visits);
  // Kept for the tab: a reload needs no other, and a conversation is read with it.
  await chat.page.reload();
  await chat.field.waitFor();
  await eventually(async () => assert.ok((await text(chat.prose)).includes("37 months")));
  assert.deepEqual(begun, given.visits);
  assert.deepEqual(await context.cookies(), []);
}

export async function a_visit_that_the_server_does_not_want_any_more_is_replaced({ visitor, given }) {
  const { open } = await visitor();
  const chat = await open(`${given.base_url}/demo`);
  await chat.field.waitFor();
  await chat.ask(QUESTION);
  await chat.answered();
  await chat.page.evaluate(() => {
    for (const [key, value] of Object.entries(sessionStorage)) {
      if (key.endsWith(":visit")) sessionStorage.setItem(key, value.replace(/"token":"[^.]+/, '"token":"eyJhbGciOiJub25lIn0'));
    }
  });
  await chat.page.reload();
  await chat.field.waitFor();
  await eventually(async () => assert.ok((await text(chat.prose)).includes("37 months")));
  await chat.ask(QUESTION);
  await chat.answered(2);
}

export async function a_visit_is_renewed_before_it_ends({ visitor, given }) {
  const { context, open } = await visitor();
  let begun = 0;
  context.on("request", (request) => (begun += request.url() === `${given.base_url}/visit`));
  const chat = await open(`${given.base_url}/demo`);
  await chat.field.waitFor();
  await chat.ask(QUESTION);
  await chat.answered();
  assert.equal(begun, 1);
  const age = (minutes) =>
    chat.page.evaluate((ms) => {
      const now = Date.now;
      Date.now = () => now() + ms;
    }, minutes * 60_000);
  await age(47);
  await chat.ask(QUESTION);
  await chat.answered(2);
  assert.equal(begun, 1, "not before 80 % of the hour");
  await age(2);
  await chat.ask(QUESTION);
  await chat.answered(3);
  await eventually(() => assert.equal(begun, 2));
}

export async function a_page_of_a_foreign_origin_gets_nowhere({ stub, visitor, given }) {
  const { open } = await visitor();
  // The site's own page, and what a thief may have copied there.
  const home = (await open(`${given.base_url}/demo`)).page;
  const stolen = await home.evaluate(async () => {
    const visit = await fetch("/visit", { method: "POST" });
    const { token } = await visit.json();
    const asked = await fetch("/search", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: '{"query": "warranty"}',
    });
    return { token, status: asked.status };
  });
  assert.equal(stolen.status, 200);
  const evil = (await open(stub.page({ name: "evil", head: "<meta name='referrer' content='unsafe-url'>" }))).page;
  const got = await evil.evaluate(
    async ({ base, token }) => {
      const json = { "Content-Type": "application/json" };
      const bearer = { ...json, Authorization: `Bearer ${token}` };
      const body = '{"query": "warranty", "message": "How long does the warranty last?"}';
      const read = async (path, options) => {
        try {
          const response = await fetch(`${base}${path}`, options);
          return response.type === "opaque" ? "nothing to read" : `${response.status} ${await response.text()}`;
        } catch (error) {
          return "refused by the browser";
        }
      };
      const framed = (attributes) =>
        new Promise((resolve) => {
          const frame = Object.assign(document.createElement("iframe"), attributes);
          frame.onload = () => {
            try {
              resolve(frame.contentDocument?.body.textContent.includes("warranty") ? "read" : "nothing to read");
            } catch {
              resolve("nothing to read");
            }
          };
          document.body.append(frame);
        });
      const sandboxed = (path, options) =>
        new Promise((resolve) => {
          addEventListener("message", ({ data }) => resolve(data), { once: true });
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          const call = `fetch(${JSON.stringify(base + path)}, ${JSON.stringify(options)})`;
          frame.srcdoc = `<script>${call}.then((r) => r.text(), () => "refused by the browser")
            .then((said) => parent.postMessage(said, "*"))</script>`;
          document.body.append(frame);
        });
      const streamed = (path) =>
        new Promise((resolve) => {
          const events = new EventSource(base + path);
          events.onmessage = () => resolve("read");
          events.onerror = () => (events.close(), resolve("refused by the browser"));
        });
      const posted = (path) =>
        new Promise((resolve) => {
          const frame = Object.assign(document.createElement("iframe"), { name: `frame${path}` });
          document.body.append(frame);
          const form = Object.assign(document.createElement("form"), {
            action: base + path,
            method: "POST",
            enctype: "text/plain",
            target: frame.name,
          });
          const field = Object.assign(document.createElement("input"), { name: body.slice(0, -1) + ', "x": "', value: '"}' });
          form.append(field);
          document.body.append(form);
          frame.onload = () => resolve("nothing to read");
          form.submit();
        });
      return {
        "a visit": await read("/visit", { method: "POST", headers: json, body: "{}" }),
        "a visit, unread": await read("/visit", { method: "POST", mode: "no-cors", body: "{}" }),
        "a visit in a sandbox": await sandboxed("/visit", { method: "POST", headers: json, body: "{}" }),
        "a search": await read("/search", { method: "POST", headers: json, body }),
        "a search, unread": await read("/search", { method: "POST", mode: "no-cors", body }),
        "a search with the stolen visit": await read("/search", { method: "POST", headers: bearer, body }),
        "the same, unread": await read("/search", { method: "POST", mode: "no-cors", headers: bearer, body }),
        "the same in a sandbox": await sandboxed("/search", { method: "POST", headers: bearer, body }),
        "a chat with the stolen visit": await read("/chat", { method: "POST", headers: bearer, body }),
        "OpenAI's chat": await read("/v1/chat/completions", {
          method: "POST",
          headers: bearer,
          body: '{"messages": [{"role": "user", "content": "warranty"}]}',
        }),
        "a form": await posted("/chat"),
        "events": await streamed("/chat/stream"),
        "the page in a frame": await framed({ src: `${base}/demo` }),
        "a history": await read("/sessions/a-session-of-somebody/history", {}),
      };
    },
    { base: given.base_url, token: stolen.token },
  );
  const nothing = ["refused by the browser", "nothing to read"];
  assert.deepEqual(
    Object.entries(got).filter(([, said]) => !nothing.includes(said)),
    [],
  );
}
