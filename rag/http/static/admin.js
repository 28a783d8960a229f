"use strict";
// The owner's page: reads /admin/usage, /questions, /gaps and /feedback, and shows them. Everything is text, never HTML.
const $ = (id) => document.getElementById(id);
const KEY = "rag-admin-key";
let key = sessionStorage.getItem(KEY) || "";

function el(name, content, attributes = {}) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  node.append(...[content].flat().filter((one) => one !== null && one !== undefined).map((one) => (one instanceof Node ? one : String(one))));
  return node;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${key}`, ...(options.headers || {}) } });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
  throw Object.assign(new Error(problem.detail), { status: answer.status });
}
const read = async (path) => (await ask(path)).json();

const number = (value) => (value === null || value === undefined ? "–" : Number(value).toLocaleString("en"));
const percent = (value) => (value === null || Number.isNaN(value) ? "–" : `${Math.round(100 * value)} %`);
const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] || 0), 0);

function query() {
  const chosen = new URLSearchParams({ days: $("days").value });
  if ($("language").value) chosen.set("language", $("language").value);
  if ($("where").value.trim()) chosen.set("page", $("where").value.trim());
  return chosen.toString();
}

/** A table. `columns` are [heading, what to show of a row, true for a number or a class]. */
function table(rows, columns, empty, label = columns[0][0]) {
  if (!rows.length) return el("p", empty, { class: "quiet" });
  const head = el("tr", columns.map(([heading, , figure]) => el("th", heading, figure === true ? { class: "n", scope: "col" } : { scope: "col" })));
  const body = rows.map((row) => el("tr", columns.map(([, show, figure]) => el("td", show(row), figure ? { class: figure === true ? "n" : figure } : {}))));
  return el("div", el("table", [el("thead", head), el("tbody", body)]), { class: "scroll", tabindex: "0", role: "region", "aria-label": label });
}

function link(url, title) {
  const text = title || url;
  return /^(https?:\/\/|\/)/.test(url) ? el("a", text, { href: url, target: "_blank", rel: "noopener noreferrer" }) : text;
}

function tile(figure, meaning, bar) {
  const parts = [el("b", figure), el("span", meaning)];
  if (bar !== undefined) parts.push(el("progress", "", { max: "1", value: String(Math.min(1, bar)), "aria-label": meaning }));
  return el("div", parts, { class: "tile" });
}

function showTiles({ days, budget, build }) {
  const asked = sum(days, "questions");
  const well = sum(days, "answered") - sum(days, "uncited");
  const timed = days.filter((day) => day.first_token_ms !== null);
  const first = timed.length ? sum(timed, "first_token_ms") / timed.length / 1000 : null;
  const costs = days.filter((day) => day.cost !== null);
  const tokens = sum(days, "prompt_tokens") + sum(days, "completion_tokens");
  const hours = build.created_at ? (Date.now() - Date.parse(build.created_at)) / 36e5 : null;
  const tiles = [
    tile(number(asked), "questions"),
    tile(asked ? percent(well / asked) : "–", "answered, with sources"),
    costs.length ? tile(sum(costs, "cost").toFixed(2), "cost of answers, by your prices") : tile(number(tokens), "tokens"),
    tile(first === null ? "–" : `${first.toFixed(1)} s`, "to the first words, on average"),
    tile(number(sum(days, "degraded_minutes")), "minutes with limited answers"),
    tile(percent(asked ? sum(days, "cache_hits") / asked : NaN), "answered from memory"),
  ];
  if (budget) {
    const unit = budget.currency ? ` ${budget.currency}` : " tokens";
    tiles.push(tile(percent(Math.max(0, 1 - budget.spent / budget.limit)), `left of today's ${number(budget.limit)}${unit}`, budget.spent / budget.limit));
  }
  if (hours !== null) tiles.push(tile(hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} d`, `old is build ${build.id}`));
  $("tiles").replaceChildren(...tiles);
}

function showChart(days) {
  const wanted = Number($("days").value);
  const known = new Map(days.map((day) => [day.day, day]));
  const dates = Array.from({ length: wanted }, (_, back) => new Date(Date.now() - (wanted - 1 - back) * 864e5).toISOString().slice(0, 10));
  const most = Math.max(1, ...days.map((day) => day.questions));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${wanted * 10} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${number(sum(days, "questions"))} questions in ${wanted} days, at most ${number(most)} a day`);
  dates.forEach((date, place) => {
    const day = known.get(date);
    if (!day) return;
    for (const [name, value] of [["all", day.questions], ["answered", day.answered - day.uncited]]) {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = (98 * Math.max(0, value)) / most;
      for (const [attribute, given] of Object.entries({ x: place * 10 + 1, y: 100 - height, width: 8, height, class: name })) bar.setAttribute(attribute, given);
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${date}: ${day.questions} asked, ${day.answered - day.uncited} answered with sources`;
      bar.append(title);
      svg.append(bar);
    }
  });
  const legend = el("div", [el("span", [el("i", ""), "answered, with sources"]), el("span", [el("i", "", { class: "rest" }), "all others"]), el("span", `at most ${number(most)} a day`)], { class: "legend" });
  $("chart").replaceChildren(svg, legend);
}

const GOOD = new Set(["closed"]);
const others = (row) => row.examples.slice(1).map((example) => el("p", example, { class: "quiet" }));
function showGaps(gaps) {
  $("gaps").replaceChildren(table(gaps, [
    ["Question", (gap) => [el("b", gap.question), ...others(gap), gap.reason ? el("p", `“${gap.reason}”`, { class: "quiet" }) : null]],
    ["Asked", (gap) => number(gap.count), true],
    ["What is the matter", (gap) => el("span", gap.meaning, { class: `tag ${GOOD.has(gap.diagnosis) ? "good" : "bad"}` })],
    ["Nearest page", (gap) => (gap.nearest_url ? link(gap.nearest_url, gap.nearest_title) : "–")],
    ["Last asked", (gap) => gap.last_at.slice(0, 10), "date"],
  ], "Nothing: every question found its answer, or none was asked.", "Not answered well"));
}

function showQuestions(questions, mode) {
  $("questions").replaceChildren(
    ...(mode === "all" ? [] : [el("p", `QUESTION_LOG is ${mode}: ${mode === "off" ? "no question is kept." : "only what was not answered well is kept."}`, { class: "quiet" })]),
    table(questions, [
      ["Question", (row) => [row.question, ...others(row)]],
      ["Asked", (row) => number(row.count), true],
      ["Not answered", (row) => number(row.unanswered), true],
      ["Disliked", (row) => number(row.disliked), true],
      ["Language", (row) => row.language || "–"],
      ["From page, among others", (row) => row.page || "–"],
      ["Last asked", (row) => row.last_at.slice(0, 16).replace("T", " "), "date"],
    ], "No questions in this time.", "Most asked"),
  );
  const languages = new Set([...$("language").options].map((option) => option.value));
  for (const { language } of questions) if (language && !languages.has(language)) { languages.add(language); $("language").append(el("option", language)); }
}

function showRest(usage, thumbs) {
  $("thumbs").replaceChildren(table(thumbs, [
    ["Question", (row) => row.question], ["Thumb", (row) => el("span", row.rating, { class: `tag ${row.rating === "up" ? "good" : "bad"}` })],
    ["Reason", (row) => row.reason || "–"], ["Answer", (row) => row.answer.slice(0, 300)], ["Given", (row) => row.given_at.slice(0, 10), "date"],
  ], "No thumbs yet.", "Thumbs"));
  $("cited").replaceChildren(table(usage.cited.slice(0, 20), [["Page", (row) => link(row.url, row.title)], ["Times", (row) => number(row.times), true]], "No page was cited in this time.", "Cited most"));
  const never = usage.never_cited;
  $("never").replaceChildren(table(never.slice(0, 20), [["Page", (row) => link(row.url, row.title)]], "Every page was cited.", "Never cited"), ...(never.length > 20 ? [el("p", `and ${number(never.length - 20)} more`, { class: "quiet" })] : []));
  $("days-table").replaceChildren(table([...usage.days].reverse(), [
    ["Day", (day) => day.day, "date"], ["Asked", (day) => number(day.questions), true], ["Answered", (day) => number(day.answered), true],
    ["Own words", (day) => number(day.own_words), true], ["Quoted", (day) => number(day.quoted), true], ["Nothing found", (day) => number(day.nothing_found), true], ["Failed", (day) => number(day.failed), true],
    ["Tokens", (day) => number(day.prompt_tokens + day.completion_tokens), true], ["Cost", (day) => (day.cost === null ? "–" : day.cost.toFixed(3)), true],
    ["First words", (day) => (day.first_token_ms === null ? "–" : `${number(day.first_token_ms)} ms`), true], ["Limited", (day) => `${number(day.degraded_minutes)} min`, true],
  ], "Nothing was asked in this time.", "Figures by day"));
  const { build } = usage;
  $("index").replaceChildren(el("p", build.id ? `Build ${build.id}: ${number(build.passages)} passages of ${number(build.documents)} documents${build.added ? ` and ${number(build.added)} added ones` : ""}.` : "There is no sound build."));
  const kept = (build.kept || []).filter((id) => id !== build.id);
  $("kept").replaceChildren(...kept.map((id) => el("option", id)));
  $("kept").hidden = $("rollback").hidden = !kept.length;
}

const SETTLED = new Set(["live", "failed"]);
let looking = 0;

/** The added documents; looks again while there is one that something will become of. */
async function showDocuments() {
  clearTimeout(looking);
  const { documents } = await read("documents");
  $("documents").replaceChildren(table(documents, [
    ["Document", (row) => row.name],
    ["Status", (row) => [el("span", row.status, { class: `tag ${{ live: "good", failed: "bad" }[row.status] || ""}` }), row.reason ? el("p", row.reason, { class: "quiet" }) : null]],
    ["Passages", (row) => number(row.passages), true],
    ["Changed", (row) => row.updated_at.slice(0, 16).replace("T", " "), "date"],
    ["Remove", (row) => removal(row)],
  ], "No document was added beside the site.", "Documents"));
  if (documents.some((row) => !SETTLED.has(row.status))) looking = setTimeout(() => showDocuments().catch(trouble), 1500);
}

function removal({ id, name }) {
  const button = el("button", "Remove", { class: "plain", type: "button", "aria-label": `Remove ${name}` });
  button.addEventListener("click", async () => {
    if (!confirm(`Remove ${name} for good?`)) return;
    button.disabled = true;
    await ask(`documents/${id}`, { method: "DELETE" }).then(showDocuments).catch(trouble);
  });
  return button;
}

/** Sends one file; `fetch` tells nobody how far it is. */
function send(file) {
  const bar = el("progress", "", { max: "1", value: "0", "aria-label": file.name });
  const line = el("p", [file.name, " ", bar]);
  $("sending").append(line);
  return new Promise((sent) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("files", file);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && (bar.value = event.loaded / event.total));
    request.addEventListener("loadend", () => {
      line.remove();
      if (request.status !== 202) {
        let detail = request.status ? `The server answered ${request.status}.` : "It was not taken: the connection broke off.";
        try { detail = JSON.parse(request.responseText).detail; } catch { /* a proxy's words are no problem document */ }
        $("not-taken").append(el("p", `${file.name}: ${detail}`));
      }
      sent();
    });
    request.open("POST", "documents");
    request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.send(form);
  });
}

async function sendAll(files) {
  $("not-taken").replaceChildren();
  for (const file of files) await send(file);
  await showDocuments().catch(trouble);
}

async function showBuild() {
  const { state, said } = await read("admin/build");
  $("building").textContent = { never: "", running: "A build is running …", done: "The last build ended well.", failed: "The last build failed; the live one is untouched." }[state];
  $("said").hidden = !said;
  $("said").textContent = said;
  $("rebuild").disabled = state === "running";
  if (state === "running") setTimeout(() => showBuild().catch(trouble), 1500);
}

function trouble(error) {
  if (error.status === 401 || error.status === 403) return leave(error.message);
  $("trouble").textContent = error.message;
}

function leave(why = "") {
  key = "";
  sessionStorage.removeItem(KEY);
  $("page").hidden = true;
  $("login").hidden = false;
  $("refused").textContent = why;
}

async function show() {
  $("trouble").textContent = "";
  try {
    const usage = await read(`admin/usage?days=${$("days").value}`);
    $("login").hidden = true;
    $("page").hidden = false;
    $("site").textContent = usage.site_name;
    showTiles(usage);
    showChart(usage.days);
    const [questions, thumbs] = await Promise.all([read(`admin/questions?${query()}`), read("feedback?limit=50")]);
    showQuestions(questions.questions, usage.question_log);
    showRest(usage, thumbs.feedback);
    await showBuild();
    $("uploads").hidden = !usage.uploads;
    if (usage.uploads) await showDocuments();
    showGaps((await read(`admin/gaps?days=${$("days").value}`)).gaps);
  } catch (error) {
    trouble(error);
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem(KEY, key);
  $("key").value = "";
  show();
});
for (const id of ["days", "language", "where"]) $(id).addEventListener("change", show);
$("refresh").addEventListener("click", show);
$("leave").addEventListener("click", () => leave());
$("rebuild").addEventListener("click", () => ask("admin/build", { method: "POST" }).then(showBuild).catch(trouble));
$("rollback").addEventListener("click", () =>
  ask("admin/rollback", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ build: $("kept").value }) })
    .then(() => setTimeout(show, 2000))
    .catch(trouble),
);
const TABLES = {
  gaps: () => `admin/gaps?${query()}`,
  questions: () => `admin/questions?${query()}&limit=1000`,
  usage: () => `admin/usage?${query()}`,
  cited: () => `admin/usage?${query()}&table=cited`,
  never_cited: () => `admin/usage?${query()}&table=never_cited`,
  thumbs: () => "feedback?limit=1000",
};
for (const table of document.querySelectorAll("[data-csv]")) {
  table.setAttribute("role", "button");
  table.tabIndex = 0;
  const name = table.dataset.csv;
  const download = async () => {
    try {
      const file = await (await ask(`${TABLES[name]()}&format=csv`)).blob();
      const address = URL.createObjectURL(file);
      el("a", "", { href: address, download: `${name}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    } catch (error) {
      trouble(error);
    }
  };
  table.addEventListener("click", download);
  table.addEventListener("keydown", (event) => event.key === "Enter" && download());
}
$("files").addEventListener("change", () => sendAll([...$("files").files]).then(() => ($("files").value = "")));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") sendAll([...event.dataTransfer.files]);
  });
}
if (key) show();
