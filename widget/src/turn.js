// One question and its answer on the screen. Shows what the turn says and hands every wish to `acts`; decides nothing.

import { el, icon, iconButton } from "./dom.js";
import { leavesSite, pointTo, safeHref } from "./links.js";
import { copied, Markdown } from "./markdown.js";
import { sourceLists } from "./sources.js";

export class TurnView {
  turn;
  #t;
  #base;
  #acts;
  #own;
  #written = "";
  #markdown = null;
  #cites = [];
  #body = el("div", { class: "md", dir: "auto" });
  #waiting;
  #sources;
  #note;
  #trouble = el("div");
  #actions;
  #reason = el("div");
  #person = el("div");
  #timer = 0;
  #left = () => {};
  #finished = false;
  #shownSources = null;
  #shownTrouble = null;

  /** `acts` has retry(turn, again), rate(turn, rating, reason), say(text), person(label): a button, or
   * null, suggested(): the site's questions, and ask(question). */
  constructor(turn, { t, base }, acts) {
    this.turn = turn;
    this.#t = t;
    this.#base = base;
    this.#acts = acts;
    this.#sources = el("div", { class: "sources", hidden: true });
    this.#note = el("p", { class: "note", hidden: true }, icon("info"), el("span"));
    this.#own = el("p", { class: "note own", hidden: true }, icon("check"), el("span", {}, t("own")));
    this.#waiting = el("div", { class: "dots" }, el("i"), el("i"), el("i"), el("span", {}, t("searching")));
    this.#actions = el("div", { class: "actions", hidden: true });
    const answer = el(
      "div",
      { class: "answer", role: "group", "aria-label": t("answer") },
      this.#waiting,
      this.#own,
      this.#body,
      this.#note,
      this.#sources,
      this.#trouble,
      this.#actions,
      this.#reason,
      this.#person,
    );
    this.node = el("div", { class: "turn" }, answer);
    if (turn.question !== null) {
      const marked = turn.page?.selection;
      const question = el(
        "div",
        {},
        marked && el("blockquote", { dir: "auto" }, marked),
        el("p", { dir: "auto" }, turn.question),
      );
      this.node.prepend(el("div", { class: "question" }, el("span", { class: "hidden" }, `${t("you")}: `), question));
    }
  }

  /** Brings the screen to what the turn says now. */
  update(takesFeedback) {
    const { state, text, sources } = this.turn;
    const degraded = this.#limits();
    this.#write(text, state !== "waiting" && state !== "streaming");
    this.#waiting.hidden = state !== "waiting";
    this.#own.hidden = this.turn.by !== "own";
    for (const cite of this.#cites) this.#resolve(cite);
    if (state === "done") this.#showSources(sources);
    this.#note.hidden = !degraded;
    this.#note.lastChild.textContent = degraded;
    if (state === "done") this.#offerQuestions();
    this.#showTrouble();
    this.#showActions(takesFeedback);
    this.#offerPerson();
  }

  /** The site's own questions, which the server lists where it has no answer, are buttons that ask them. */
  #offerQuestions() {
    const offered = new Set(this.#acts.suggested());
    for (const item of this.#body.querySelectorAll("li")) {
      const question = item.textContent.trim();
      if (item.querySelector("button, a") || !offered.has(question)) continue;
      const ask = { class: "pill suggestion", type: "button", dir: "auto", onclick: () => this.#acts.ask(question) };
      item.replaceChildren(el("button", ask, question));
      item.parentNode.classList.add("asks");
    }
  }

  /** A way to a person, where one could help better than this answer. */
  #offerPerson() {
    const offered = this.turn.state === "done" && this.turn.escalation && this.#acts.person(this.#t("person"));
    if (offered && !this.#person.childNodes.length) this.#person.append(offered);
  }

  /** What the answer lacks, in the visitor's words where its codes are known. */
  #limits() {
    const { degraded, degradedCodes: codes } = this.turn;
    if (!degraded) return "";
    const known = codes.map((code) => this.#t(`degraded_${code}`));
    return known.length && known.every(Boolean) ? known.join(" ") : this.#t("degraded", { reason: degraded });
  }

  /** The answer as it is read aloud: its words, then how many sources there are. */
  get spoken() {
    const copy = this.#body.cloneNode(true);
    for (const silent of copy.querySelectorAll(".cite, button:not(.suggestion), details")) silent.remove();
    for (const block of copy.querySelectorAll("p, li, h3, h4, td, th, pre")) {
      block.append(/[.!?:;,…]\s*$/.test(block.textContent) ? " " : ". ");
    }
    const count = this.turn.sources.length;
    const sources = count ? this.#t(count === 1 ? "answeredOne" : "answered", { n: count }) : "";
    const note = this.#note.hidden ? "" : this.#note.textContent;
    return [copy.textContent, note, sources]
      .join(" ")
      .replace(/\s+/g, " ")
      .replace(/ (?=[.,;:!?])/g, "")
      .trim();
  }

  /** What stands in place of the answer when something went wrong; empty where nothing did. */
  get troubleText() {
    return this.#trouble.querySelector("p")?.textContent ?? "";
  }

  dispose() {
    clearInterval(this.#timer);
    removeEventListener("pagehide", this.#left);
  }

  #write(text, complete) {
    // The whole answer may differ from its pieces, for instance where a citation was taken back.
    if (!this.#markdown || !text.startsWith(this.#written)) {
      this.#body.replaceChildren();
      this.#cites = [];
      this.#written = "";
      this.#finished = false;
      this.#markdown = new Markdown(this.#body, { t: this.#t, base: this.#base, cite: (number) => this.#cite(number) });
    }
    const piece = text.slice(this.#written.length);
    this.#written = text;
    if (piece) this.#markdown.write(piece);
    if (complete && !this.#finished) {
      this.#markdown.finish();
      this.#finished = true;
      this.#foldQuotes();
    }
  }

  /** What the server quotes beside the best passage is there for whoever wants it. */
  #foldQuotes() {
    const title = this.#t("moreQuotes"); // As the server writes it to those who read this language.
    const heading = [...this.#body.children].find((node) => node.nodeName === "H4" && node.textContent === title);
    if (!heading) return;
    const rest = [...this.#body.children].slice([...this.#body.children].indexOf(heading) + 1);
    heading.replaceWith(el("details", {}, el("summary", {}, title), ...rest));
  }

  #cite(number) {
    const unfold = (event) => {
      const chip = this.#sources.querySelector(`button[data-number="${number}"]`);
      if (!chip || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      if (chip.ariaExpanded === "false") chip.click();
      chip.focus();
    };
    const cite = el("a", { class: "cite", "data-number": number, onclick: unfold, onkeydown: unfold }, String(number));
    this.#cites.push(cite);
    return cite;
  }

  #resolve(cite) {
    const number = Number(cite.dataset.number);
    const source = this.turn.sources[number - 1];
    if (cite.source === source && source) return; // Made anew, it would lose the focus.
    cite.source = source;
    const href = source && safeHref(source.url, this.#base);
    for (const name of ["href", "target", "rel", "title", "aria-label", "role", "tabindex"]) cite.removeAttribute(name);
    if (!source) return;
    const label = this.#t("source", { n: number, title: source.title });
    cite.title = source.title;
    cite.ariaLabel = href && leavesSite(href) ? `${label}, ${this.#t("newTab")}` : label;
    if (href) {
      pointTo(cite, href);
    } else {
      cite.role = "button";
      cite.tabIndex = 0;
    }
  }

  #showSources(sources) {
    if (this.#shownSources === sources) return; // Made anew, it would lose focus and what is unfolded.
    this.#shownSources = sources;
    const cited = new Set(this.#cites.map((cite) => Number(cite.dataset.number)));
    this.#sources.hidden = !sources.length;
    this.#sources.replaceChildren(...sourceLists(sources, cited, this.#t, this.#base));
  }

  #showTrouble() {
    const { state, problem } = this.turn;
    if (this.#shownTrouble === state) return;
    this.#shownTrouble = state;
    clearInterval(this.#timer);
    if (state !== "stopped" && state !== "failed") {
      this.#trouble.replaceChildren();
      return;
    }
    const known = problem && (this.#t(problem.code) || (this.#t.lang === "en" && problem.detail));
    const words = problem ? known || problem.detail || this.#t("internal_error") : this.#t("stopped");
    const again = el(
      "button",
      { class: "pill", type: "button", onclick: () => this.#acts.retry(this.turn) },
      icon("retry"),
      el("span"),
    );
    this.#trouble.replaceChildren(
      problem
        ? el("div", { class: "note trouble" }, icon("warning"), el("div", {}, el("p", {}, words), again))
        : el("div", { class: "note" }, icon("info"), el("div", {}, el("p", {}, words), again)),
    );
    const tick = () => {
      const seconds = Math.ceil((this.turn.retryAtMs - Date.now()) / 1000);
      again.disabled = seconds > 0;
      again.lastChild.textContent = seconds > 0 ? this.#t("retryIn", { s: seconds }) : this.#t("retry");
      if (seconds <= 0) clearInterval(this.#timer);
    };
    this.#timer = setInterval(tick, 250);
    tick();
    if (problem?.code === "content_filtered" || problem?.code === "invalid_request") again.remove();
  }

  #showActions(takesFeedback) {
    const { state, rating, text } = this.turn;
    this.#actions.hidden = state !== "done";
    if (this.#actions.hidden) return;
    if (!this.#actions.childNodes.length) {
      const copy = iconButton("copy", this.#t("copyAnswer"), () => copied(copy, text, this.#t));
      const thumb = (name) => iconButton(name, this.#t(name), () => this.#rate(name), { "data-rating": name });
      // What is quoted, or written by people, would be the same again.
      const again =
        this.turn.by === "model" &&
        iconButton("retry", this.#t("again"), () => this.#acts.retry(this.turn, true), { class: "icon again" });
      this.#actions.append(...[thumb("up"), thumb("down"), copy, again].filter(Boolean), el("span"));
    }
    for (const thumb of this.#actions.querySelectorAll("[data-rating]")) {
      thumb.hidden = !takesFeedback;
      thumb.ariaPressed = String(thumb.dataset.rating === rating);
    }
    if (!takesFeedback) this.#reason.replaceChildren();
  }

  async #rate(rating) {
    if (rating === this.turn.rating) return;
    removeEventListener("pagehide", this.#left);
    this.#reason.replaceChildren();
    this.#thanks("");
    if (rating === "down") this.#askWhy();
    else if (await this.#acts.rate(this.turn, rating)) this.#thanks(this.#t("thanks"));
  }

  // The thumb is sent together with its reason, once: at the latest when the page goes.
  #askWhy() {
    const field = el("textarea", { rows: "2", maxlength: "1000", dir: "auto" });
    const close = async () => {
      removeEventListener("pagehide", this.#left);
      this.#reason.replaceChildren();
      this.#actions.querySelector("[data-rating=down]").focus();
      if (await this.#acts.rate(this.turn, "down", field.value.trim() || undefined)) this.#thanks(this.#t("thanks"));
    };
    this.#left = close;
    addEventListener("pagehide", this.#left);
    const form = el(
      "form",
      { class: "reason", onsubmit: (event) => (event.preventDefault(), close()) },
      el("label", {}, this.#t("reason"), field),
      el(
        "div",
        {},
        el("button", { class: "pill main", type: "submit" }, this.#t("sendReason")),
        el("button", { class: "pill", type: "button", onclick: () => ((field.value = ""), close()) }, this.#t("skip")),
      ),
    );
    this.#reason.replaceChildren(form);
    this.#actions.querySelector("[data-rating=down]").ariaPressed = "true";
    field.focus();
    form.scrollIntoView({ block: "nearest" });
  }

  #thanks(words) {
    this.#actions.lastChild.textContent = words;
    if (words) this.#acts.say(words);
  }
}
