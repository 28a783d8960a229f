// Shows /openapi.json to people: every route with its parameters, bodies and answers, and a form that tries it out.
// Needs no network beyond this server. Everything from the document becomes text, never markup.

const home = new URL(".", location.href);
let spec;

function el(tag, { className = "", text, ...rest } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), rest, className ? { className } : {});
  if (text !== undefined) node.textContent = text;
  node.append(...children.filter(Boolean));
  return node;
}

function resolved(schema = {}) {
  if (schema.$ref) return resolved(spec.components.schemas[schema.$ref.split("/").pop()]);
  if (schema.allOf?.length === 1) return { ...resolved(schema.allOf[0]), ...schema, allOf: undefined };
  return schema;
}

function typeName(schema) {
  const known = resolved(schema);
  if (known.const !== undefined) return JSON.stringify(known.const);
  if (known.enum) return known.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (known.anyOf) return known.anyOf.map(typeName).join(" | ");
  if (known.type === "array") return `${typeName(known.items)}[]`;
  return known.type ?? "any";
}

function bounds(schema) {
  const own = resolved(schema);
  const known = { ...(own.anyOf?.map(resolved).find((one) => one.type !== "null") ?? {}), ...own };
  const words = { minLength: "at least", maxLength: "at most", minimum: "from", maximum: "to", maxItems: "at most" };
  const said = Object.keys(words).filter((key) => known[key] !== undefined)
    .map((key) => `${words[key]} ${known[key]}${key.endsWith("Length") ? " characters" : key === "maxItems" ? " entries" : ""}`);
  if (known.default !== undefined && known.default !== null) said.push(`default ${JSON.stringify(known.default)}`);
  if (known.pattern && !known.pattern.includes("\\x00")) said.push(`matches ${known.pattern}`);
  return [known.description, said.join(", ")].filter(Boolean).join("; ");
}

// A value that fits the schema; in a request only what is required, or has an example.
function example(schema, { whole = true, depth = 0 } = {}) {
  const known = resolved(schema);
  if (known.examples?.length) return known.examples[0];
  if (known.default !== undefined && known.default !== null) return known.default;
  if (known.const !== undefined) return known.const;
  if (known.enum) return known.enum[0];
  if (known.anyOf) return example(known.anyOf[0], { whole, depth });
  if (known.type === "array") return depth > 4 ? [] : [example(known.items, { whole, depth: depth + 1 })];
  if (known.type === "object") {
    const names = Object.keys(known.properties ?? {}).filter((name) => whole || known.required?.includes(name));
    return Object.fromEntries(names.map((name) => [name, example(known.properties[name], { whole, depth: depth + 1 })]));
  }
  return { string: "…", integer: known.minimum ?? 0, number: 0, boolean: false }[known.type] ?? null;
}

// What stands between backticks is code.
const marked = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", { text: part }) : part));
const pretty = (value) => JSON.stringify(value, null, 2);
const contentOf = (described) => Object.entries(described?.content ?? {})[0] ?? [];

// Rows of name, type and meaning; the fields of objects inside follow their owner as `owner.field`.
function fields(schema, prefix = "", depth = 0) {
  const known = resolved(schema);
  if (known.type === "array") return fields(known.items, `${prefix}[]`, depth);
  if (known.anyOf) return known.anyOf.flatMap((one) => fields(one, prefix, depth));
  return Object.entries(known.properties ?? {}).flatMap(([name, field]) => {
    const place = prefix ? `${prefix}.${name}` : name;
    const row = [place + (known.required?.includes(name) ? " *" : ""), typeName(field), bounds(field)];
    return [row, ...(depth < 3 ? fields(field, place, depth + 1) : [])];
  });
}

function table(heads, rows) {
  const line = (cells, kind) => el("tr", {}, ...cells.map((text, place) =>
    kind === "td" && place === 0 ? el("td", {}, el("code", { text })) : el(kind, { text })));
  return el("table", {}, el("thead", {}, line(heads, "th")), el("tbody", {}, ...rows.map((row) => line(row, "td"))));
}

function answers(responses) {
  return Object.entries(responses).flatMap(([status, described]) => {
    const [type, media] = contentOf(described);
    if (!status.startsWith("2")) return [];
    const shown = [el("p", {}, el("code", { text: status }), ` ${described.description}${type ? `, ${type}` : ""}`)];
    const events = media?.["x-events"];
    const given = media?.example ?? (media?.schema && !events ? example(media.schema) : undefined);
    if (given !== undefined) shown.push(el("pre", { text: typeof given === "string" ? given : pretty(given) }));
    if (events) shown.push(table(["event", "type", "its data"], Object.entries(events).map(([name, schema]) =>
      [name, typeName(schema), fields(schema).map(([field]) => field).slice(0, 12).join(", ")])));
    return shown;
  });
}

const requestOf = (media) => media && (media.example ?? example(media.schema, { whole: false }));

// The same request for a terminal, for Python and for a page.
function samples(method, path, operation) {
  const [type, media] = contentOf(operation.requestBody);
  const body = requestOf(media);
  const url = new URL(path.slice(1), home).href.replaceAll("%7B", "{").replaceAll("%7D", "}");
  const key = operation.responses["401"];
  const streams = "text/event-stream" in (operation.responses["200"]?.content ?? {});
  const bare = JSON.stringify(body);
  const curl = [`curl ${streams ? "-N " : ""}${method === "get" || body ? "" : `-X ${method.toUpperCase()} `}${url}`,
    key && `-H "Authorization: Bearer $KEY"`, body && `-H "Content-Type: ${type}"`, body && `-d '${bare.replaceAll("'", "'\\''")}'`];
  const python = [`"${url}"`, key && `headers={"Authorization": f"Bearer {key}"}`, body && `json=${bare}`].filter(Boolean).join(", ");
  const options = [method !== "get" && `method: "${method.toUpperCase()}"`,
    (key || body) && `headers: { ${[key && "Authorization: `Bearer ${key}`", body && `"Content-Type": "${type}"`].filter(Boolean).join(", ")} }`,
    body && `body: JSON.stringify(${bare})`].filter(Boolean);
  return {
    curl: curl.filter(Boolean).join(" \\\n  "),
    Python: streams
      ? `import httpx\n\nwith httpx.stream("${method.toUpperCase()}", ${python}) as answer:\n    for line in answer.iter_lines():\n        print(line)`
      : `import httpx\n\nanswer = httpx.${method}(${python})\nprint(answer.text)`,
    JavaScript: `const answer = await fetch("${url}"${options.length ? `, {\n  ${options.join(",\n  ")},\n}` : ""});\n${streams
      ? "for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) console.log(piece);"
      : `console.log(await answer.${Object.keys(operation.responses["200"]?.content ?? {})[0] === "application/json" ? "json" : "text"}());`}`,
  };
}

function tabs(texts) {
  const code = el("pre", { tabIndex: 0, className: "sample" });
  const buttons = Object.entries(texts).map(([name, text]) => {
    const button = el("button", { type: "button", className: "tab", text: name });
    button.addEventListener("click", () => {
      buttons.forEach((one) => one.setAttribute("aria-pressed", one === button));
      code.textContent = text;
    });
    return button;
  });
  buttons[0].click();
  return [el("div", { className: "tabs" }, ...buttons), code];
}

function tryIt(method, path, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => ({
    ...parameter, input: el("input", { name: parameter.name, value: parameter.schema?.default ?? "", required: !!parameter.required }),
  }));
  const [type, media] = contentOf(operation.requestBody);
  const body = media && el("textarea", { value: pretty(requestOf(media)), spellcheck: false });
  const key = operation.responses["401"] && el("input", { type: "password", autocomplete: "off" });
  const button = el("button", { text: "Send" });
  const output = el("pre", { hidden: true });
  output.setAttribute("aria-live", "polite");
  const labelled = (text, input) => input && el("label", { text }, input);
  const form = el("form", {}, ...inputs.map(({ name, input }) => labelled(name, input)),
    labelled("Admin key", key), labelled(`Body, ${type}`, body), button, output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const filled = inputs.reduce((so, one) => so.replace(`{${one.name}}`, encodeURIComponent(one.input.value)), path);
    const url = new URL(filled.slice(1), home);
    inputs.filter((one) => one.in === "query" && one.input.value).forEach((one) => url.searchParams.set(one.name, one.input.value));
    const headers = { ...(body ? { "Content-Type": type } : {}), ...(key?.value ? { Authorization: `Bearer ${key.value}` } : {}) };
    button.disabled = true;
    output.hidden = false;
    output.textContent = "…";
    try {
      const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body?.value });
      const told = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      const head = `${answer.status} ${answer.statusText}\n${told}\n\n`;
      let text = "";
      const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece; reader && !(piece = await reader.read()).done; ) output.textContent = head + (text += piece.value);
      try { text = pretty(JSON.parse(text)); } catch { /* events and plain text stay as they came */ }
      output.textContent = head + text;
    } catch (error) {
      output.textContent = `No answer: ${error.message}`;
    } finally {
      button.disabled = false;
    }
  });
  return form;
}

function card(method, path, operation) {
  const [, media] = contentOf(operation.requestBody);
  const parameters = (operation.parameters ?? []).map((one) =>
    [one.name + (one.required ? " *" : ""), `${typeName(one.schema)}, in ${one.in}`, one.description ?? bounds(one.schema)]);
  const problems = Object.entries(operation.responses).filter(([status]) => !status.startsWith("2"));
  const headed = (text, ...nodes) => (nodes.some(Boolean) ? [el("h3", { text }), ...nodes] : []);
  const body = el("div", { className: "body" },
    operation.description && el("p", {}, ...marked(operation.description)),
    ...headed("Request", ...tabs(samples(method, path, operation))),
    ...headed("Parameters", parameters.length && table(["name", "type", ""], parameters)),
    ...headed("Body", media && table(["field", "type", ""], fields(media.schema))),
    ...headed("Answer", ...answers(operation.responses)),
    ...headed("Errors", problems.length && el("p", { className: "quiet",
      text: problems.map(([status, one]) => `${status} ${one.description}`).join(" · ") })),
    ...headed("Try it", tryIt(method, path, operation)));
  return el("details", { className: "operation", id: operation.operationId }, el("summary", {},
    el("span", { className: `method ${method}`, text: method.toUpperCase() }), el("code", { text: path }),
    el("span", { className: "quiet", text: operation.summary ?? "" })), body);
}

async function show() {
  spec = await (await fetch(new URL("openapi.json", home))).json();
  document.title = `${spec.info.title}: API`;
  for (const [id, text] of [["site", spec.info.title], ["version", spec.info.version], ["about", spec.info.description]])
    document.getElementById(id).textContent = text;
  const operations = Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ tag: operation.tags?.[0], node: card(method, path, operation) })));
  document.getElementById("operations").replaceChildren(...spec.tags.flatMap(({ name, description }) => [
    el("h2", { text: name }), el("p", { className: "quiet", text: description }),
    ...operations.filter(({ tag }) => tag === name).map(({ node }) => node)]));
  document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}

show().catch((error) => { document.getElementById("operations").textContent = `openapi.json cannot be read: ${error.message}`; })
  .finally(() => document.getElementById("operations").removeAttribute("aria-busy"));
