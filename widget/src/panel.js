// The chat itself: messages and the field below them. Lives in the page or in the launcher's dialog, and knows neither.

import { el, icon, iconButton } from "./dom.js";
import { handoffForm } from "./handoff.js";
import { pointTo, safeHref } from "./links.js";
import { pageContext } from "./page.js";
import { markedRow, recentList } from "./rows.js";
import { TurnView } from "./turn.js";

const NEAR_PX = 60; // Closer to the end than this counts as reading along.

export class Panel {
  #conversation;
  #settings;
  #t;
  #views = new Map();
  #pending = new Set();
  #frame = 0;
  #following = true;
  #asking = false;
  #handoff = null;
  #suggested = [];
  #parts;

  /** `config` is a promise of the server's own settings; `onclose` puts a close button into the header. */
  constructor({ conversation, config, settings, onclose }) {
    this.#conversation = conversation;
    this.#settings = settings;
    this.#t = settings.t;
    this.#build(onclose);
    conversation.addEventListener("change", ({ detail }) => this.#schedule(detail));
    this.#renderAll();
    config.then(
      (given) => this.#greet(given),
      () => this.#greet({}),
    );
  }

  /** Where typing goes on; on a touch screen not the field, whose keyboard would cover what there is to read. */
  focus() {
    const { field, log } = this.#parts;
    (matchMedia("(pointer: coarse)").matches ? log : field).focus({ preventScroll: true });
  }

  #build(onclose) {
    const t = this.#t;
    const name = el("span");
    const { logo, marked } = this.#settings;
    const title = el("h2", { id: "title" }, logo && el("img", { src: logo, alt: "" }), name);
    const log = el("div", { class: "log", tabindex: "0", role: "region", "aria-label": t("conversation") });
    const hello = el("div", { class: "hello", hidden: true });
    const unread = el("p", { class: "note", hidden: true }, icon("info"), el("span", {}, t("unread")));
    const undo = el("button", { class: "pill", type: "button", onclick: () => this.#undo() }, t("undo"));
    const undoable = el("p", { class: "note", hidden: true }, icon("info"), el("span"), undo);
    const list = el("div", { class: "list", hidden: true });
    const turns = el("div");
    const person = el("div", { class: "turn", hidden: true });
    log.append(hello, unread, turns, person);
    const field = el("textarea", {
      rows: "1",
      dir: "auto",
      enterkeyhint: "send",
      autocomplete: "off",
      "aria-label": t("placeholder"),
    });
    field.placeholder = this.#settings.placeholder ?? t("placeholder");
    const send = el("button", { class: "send", type: "submit" });
    const latest = iconButton("latest", t("latest"), () => this.#follow(), { class: "icon latest", hidden: true });
    const form = el("form", { class: "ask" }, field, send);
    const notice = el("p", { class: "notice", dir: "auto", hidden: true });
    const live = el("div", { class: "hidden", "aria-live": "polite", "aria-atomic": "true" });
    const fresh = iconButton("fresh", t("fresh"), () => this.#restart());
    const recent = iconButton("recent", t("recent"), () => this.#showRecent(list.hidden), { "aria-expanded": "false" });
    const selection = el("div", { class: "marked", role: "group", "aria-label": t("marked"), hidden: true });
    const close = onclose && iconButton("close", t("close"), onclose);
    this.#parts = { title: name, log, list, hello, unread, turns, field, send, latest, live, fresh, recent, notice };
    Object.assign(this.#parts, { undoable, person, selection });
    marked?.addEventListener("change", () => this.#showMarked());
    this.#showMarked();
    this.node = el(
      "section",
      { class: "panel", "aria-labelledby": "title" },
      el("header", {}, title, recent, fresh, close),
      undoable,
      log,
      list,
      el("footer", {}, latest, selection, form, notice),
      live,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#conversation.busy) this.#conversation.stop();
      else this.#ask(field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#conversation.busy) this.#ask(field.value);
    });
    field.addEventListener("input", () => this.#showSend());
    log.addEventListener("scroll", () => {
      this.#following = this.#atEnd();
      latest.hidden = this.#following;
    });
    // A keyboard that opens, or a field that grows, must not push the last words out of sight.
    new ResizeObserver(() => this.#following && (log.scrollTop = log.scrollHeight)).observe(log);
  }

  #greet(config) {
    const { site_name: site, suggested_questions: suggested, ai_notice: notice = "on", privacy_url: privacy } = config;
    this.#handoff = config.handoff ?? null;
    this.#suggested = suggested ?? [];
    this.#warn(notice, privacy);
    for (const view of this.#views.values()) view.update(this.#conversation.takesFeedback);
    const { title, greeting, suggestions, logo } = this.#settings;
    const t = this.#t;
    this.#parts.title.textContent = title ?? site ?? t("title");
    const words = greeting ?? (site ? t("greeting", { site }) : t("greetingPlain"));
    const choices = (suggestions ?? suggested ?? []).slice(0, 4).map((question) => {
      const button = { type: "button", onclick: () => this.#ask(question) };
      return el("li", {}, el("button", button, el("span", { dir: "auto" }, question), icon("latest")));
    });
    this.#parts.hello.replaceChildren(
      el("div", {}, logo && el("img", { src: logo, alt: "" }), el("p", { class: "big", dir: "auto" }, words), el("p", { class: "hint" }, t("hint"))),
      ...(choices.length ? [el("ul", { "aria-label": t("suggestions") }, ...choices)] : []),
    );
  }

  /** That a machine answers stands below the field all the time: the law wants it at first contact at the latest. */
  #warn(notice, privacy) {
    const words = notice === "on" ? this.#t("notice") : notice === "off" ? "" : notice;
    const href = privacy && safeHref(privacy, this.#settings.base);
    const link = href && el("a", { target: "_blank", rel: "noopener" }, this.#t("privacy"));
    if (link) pointTo(link, href);
    const said = [words, link, this.#person(this.#t("person"), "plain")].filter(Boolean);
    this.#parts.notice.replaceChildren(...said.flatMap((one, place) => (place ? [" ", one] : [one])));
    this.#parts.notice.hidden = !said.length;
  }

  /** What leads to a person: a button for the form, else a link; null where the site has no such way. */
  #person(label, kind = "pill") {
    if (!this.#handoff) return null;
    if (this.#handoff.form) return el("button", { class: kind, type: "button", onclick: () => this.#askPerson() }, label);
    const href = safeHref(this.#handoff.url, this.#settings.base);
    const link = href && el("a", { class: kind, target: "_blank", rel: "noopener" }, label);
    if (link) pointTo(link, href);
    return link;
  }

  #askPerson() {
    const { person } = this.#parts;
    const close = () => {
      person.hidden = true;
      person.replaceChildren();
      this.focus();
    };
    const form = handoffForm({
      t: this.#t,
      hasTurns: this.#conversation.turns.some(({ state }) => state === "done"),
      send: (body) => this.#conversation.handOff({ ...body, page: pageContext(this.#settings.page) }),
      close,
      say: (words) => this.#say(words),
    });
    person.replaceChildren(form);
    person.hidden = false;
    form.querySelector("input").focus();
    form.scrollIntoView({ block: "nearest" });
  }

  #ask(text) {
    const question = text.trim();
    const last = this.#conversation.turns.at(-1);
    if (!question || this.#conversation.busy || last?.retryAtMs > Date.now()) return;
    // Who types keeps the field; who chose a suggestion, which is gone now, is put where the answer appears.
    if (!this.#parts.field.matches(":focus")) this.focus();
    this.#parts.field.value = "";
    const { page, marked } = this.#settings;
    const asked = this.#conversation.ask(question, { page: pageContext(page, marked?.text) });
    marked?.drop();
    this.#begin(asked);
  }

  async #begin(asked) {
    this.#asking = true;
    this.#following = true;
    this.#showRecent(false);
    this.#say(this.#t("searching"));
    await asked;
    this.#asking = false;
    this.#flush();
    const view = this.#views.get(this.#conversation.turns.at(-1));
    if (!view) return;
    const { state, problem, question } = view.turn;
    this.#say(state === "done" ? view.spoken : view.troubleText);
    // A question that has to be put in other words is handed back.
    if (problem?.status === 422 && !this.#parts.field.value) this.#parts.field.value = question;
    this.#showSend();
    const pauseMs = view.turn.retryAtMs - Date.now();
    if (pauseMs > 0) setTimeout(() => this.#showSend(), pauseMs + 50);
  }

  #restart() {
    this.#conversation.restart();
    this.#showRecent(false);
    this.focus();
    this.#sayUndoable();
  }

  #sayUndoable() {
    const { undoable } = this.#conversation;
    if (undoable) this.#say(`${this.#t(undoable)} ${this.#t("undo")}`);
  }

  /** The conversations of this browser in place of the present one. */
  async #showRecent(shown) {
    const { list, log, recent, latest } = this.#parts;
    const found = shown && (await this.#conversation.recent());
    list.hidden = !shown;
    log.hidden = shown;
    latest.hidden = shown || this.#atEnd();
    recent.ariaExpanded = String(shown);
    if (!found) return;
    const acts = { open: ({ id }) => this.#open(id), remove: (one) => this.#remove(one) };
    list.replaceChildren(...recentList(found, this.#t, acts));
  }

  #open(id) {
    this.#conversation.open(id);
    this.#showRecent(false);
    this.focus();
  }

  async #remove(one) {
    this.#conversation.remove(one);
    await this.#showRecent(true);
    this.#parts.recent.focus();
    this.#sayUndoable();
  }

  /** What the visitor has marked goes with the next question, and is shown before. */
  #showMarked() {
    const { selection } = this.#parts;
    const { marked } = this.#settings;
    selection.hidden = !marked?.text;
    if (selection.hidden) return;
    const drop = () => (marked.drop(), this.focus());
    selection.replaceChildren(...markedRow(marked.text, this.#t, { ask: (words) => this.#ask(words), drop }));
  }

  #undo() {
    this.#conversation.undo();
    if (!this.#parts.list.hidden) this.#showRecent(true);
    this.focus();
  }

  // Pieces arrive faster than a screen draws: they are collected for the next frame, or at once where none will come.
  #schedule(turn) {
    if (turn === null || !this.#views.has(turn)) {
      this.#renderAll();
      return;
    }
    this.#pending.add(turn);
    if (turn.state !== "streaming" || document.hidden) this.#flush();
    else this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    for (const turn of this.#pending) this.#views.get(turn)?.update(this.#conversation.takesFeedback);
    this.#pending.clear();
    this.#showSend();
    this.#parts.latest.classList.toggle("grows", this.#conversation.busy);
    if (this.#following && (this.#asking || this.#conversation.busy)) this.#keepUp();
  }

  #renderAll() {
    const { turns, takesFeedback, unread } = this.#conversation;
    const acts = {
      retry: (turn, again) => {
        this.focus(); // The button that was pressed goes.
        this.#begin(this.#conversation.retry(turn, again));
      },
      rate: async (turn, rating, reason) => {
        const taken = await this.#conversation.rate(turn, rating, reason);
        if (!this.#conversation.takesFeedback) this.focus();
        return taken;
      },
      say: (words) => this.#say(words),
      person: (label) => this.#person(label),
      suggested: () => this.#suggested,
      ask: (question) => this.#ask(question),
    };
    for (const [turn, view] of this.#views) {
      if (turns.includes(turn)) continue;
      view.dispose();
      view.node.remove();
      this.#views.delete(turn);
    }
    const fresh = turns.filter((turn) => !this.#views.has(turn));
    for (const turn of turns) {
      if (!this.#views.has(turn)) this.#views.set(turn, new TurnView(turn, this.#settings, acts));
      const view = this.#views.get(turn);
      view.update(takesFeedback);
      if (this.#parts.turns.children[turns.indexOf(turn)] !== view.node) this.#parts.turns.append(view.node);
    }
    this.#parts.hello.hidden = turns.length > 0 || unread;
    this.#parts.unread.hidden = !unread;
    const { undoable } = this.#conversation;
    this.#parts.undoable.hidden = !undoable;
    this.#parts.undoable.children[1].textContent = this.#t(undoable ?? "");
    this.#parts.recent.hidden = !this.#conversation.hasRecent && this.#parts.list.hidden;
    this.#parts.fresh.hidden = turns.length === 0 && !unread;
    this.#showSend();
    if (fresh.length) this.#keepUp();
  }

  #showSend() {
    const { send, field } = this.#parts;
    const { busy, turns } = this.#conversation;
    const label = this.#t(busy ? "stop" : "send");
    if (send.ariaLabel !== label) {
      send.ariaLabel = send.title = label;
      const drawing = icon(busy ? "stop" : "send");
      drawing.classList.toggle("halt", busy);
      send.replaceChildren(drawing);
    }
    const paused = turns.at(-1)?.retryAtMs > Date.now();
    send.ariaDisabled = String(!busy && (paused || !field.value.trim()));
  }

  /** Reads aloud once, for whoever asked here; another panel on the page stays silent. */
  #say(words) {
    this.#parts.live.textContent = words;
  }

  #atEnd() {
    const { log } = this.#parts;
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
  }

  // Follows the answer only until its question reaches the top: a long one is then read from its beginning, unless the
  // reader has gone further.
  #keepUp() {
    const { log, turns, latest } = this.#parts;
    const last = turns.lastElementChild;
    if (!last) return;
    const top = last.getBoundingClientRect().top - log.getBoundingClientRect().top + log.scrollTop - 12;
    const end = log.scrollHeight - log.clientHeight;
    log.scrollTop = log.scrollTop > top + 1 ? end : Math.min(end, top);
    latest.hidden = this.#atEnd();
  }

  #follow() {
    const { log } = this.#parts;
    log.scrollTo({ top: log.scrollHeight, behavior: "smooth" });
    this.#parts.field.focus({ preventScroll: true });
  }
}
