// The form that asks for a person: an address to answer to, a message, and whether what was said may go along.

import { el } from "./dom.js";

const LONGEST = 4000;

/**
 * `send({email, message, include_conversation})` gives the reference, or throws; `hasTurns` is whether anything was
 * said that could go along. `close` is called when the visitor is done.
 */
export function handoffForm({ t, hasTurns, send, close, say }) {
  const email = el("input", { type: "email", autocomplete: "email", required: true, maxlength: "254", dir: "ltr" });
  const message = el("textarea", { rows: "3", maxlength: String(LONGEST), dir: "auto" });
  const along = el("input", { type: "checkbox" });
  const trouble = el("p", { class: "trouble", role: "alert" });
  const submit = el("button", { class: "pill main", type: "submit" }, t("send"));
  const done = (words) => {
    form.replaceWith(el("p", { class: "note", tabindex: "-1" }, words));
    say(words);
  };
  const form = el(
    "form",
    { class: "reason person", "aria-label": t("person") },
    el("label", {}, t("yourMail"), email),
    el("label", {}, t("yourMessage"), message),
    hasTurns && el("label", { class: "check" }, along, el("span", {}, t("along"))),
    trouble,
    el("div", {}, submit, el("button", { class: "pill", type: "button", onclick: close }, t("cancel"))),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!message.value.trim() && !along.checked) {
      message.focus();
      return;
    }
    submit.disabled = true;
    trouble.textContent = "";
    try {
      const reference = await send({
        email: email.value.trim(),
        message: message.value.trim(),
        include_conversation: along.checked,
      });
      done(t("handedOff", { reference }));
    } catch (error) {
      trouble.textContent = t(error.code) || error.detail || t("internal_error");
      submit.disabled = false;
    }
  });
  return form;
}
