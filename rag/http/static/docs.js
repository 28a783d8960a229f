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
    if (media?.schema) shown.push(el("pre", { text: pretty(example(media.schema)) }));
    return shown;
  });
}

function tryIt(method, path, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => ({
    ...parameter, input: el("input", { name: parameter.name, value: parameter.schema?.default ?? "", required: !!parameter.required }),
  }));
  const [type, media] = contentOf(operation.requestBody);
  const body = media && el("textarea", { value: pretty(example(media.schema, { whole: false })), spellcheck: false });
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
    operation.description && el("p", { text: operation.description }),
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
    Object.entries(methods).map(([method, operation]) => card(method, path, operation)));
  document.getElementById("operations").replaceChildren(...operations);
  document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}

show().catch((error) => { document.getElementById("operations").textContent = `openapi.json cannot be read: ${error.message}`; })
  .finally(() => document.getElementById("operations").removeAttribute("aria-busy"));
