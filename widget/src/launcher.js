// The button in the corner and the dialog it opens: beside the page, which stays in use, or over the whole of a phone,
// where focus stays in. Knows no messages.

import { el, icon } from "./dom.js";

const FOCUSABLE = "button:not([disabled]), [href], textarea, summary, [tabindex='0']";
const COVERS = "(max-width: 560px), (max-height: 420px)"; // As in styles.css.

export class Launcher {
  #host;
  #memory;
  #covers = matchMedia(COVERS);
  #makePanel;
  #button;
  #dialog;
  #panel = null;
  #opening = false;
  #givenBack = null;
  #pageOverflow = "";

  /** `makePanel(onclose)`, a promise of a panel, is called when the dialog opens for the first time: until then nothing is fetched. */
  constructor({ host, memory, settings, makePanel }) {
    this.#host = host;
    this.#memory = memory;
    this.#makePanel = makePanel;
    const { t, label, left, shortcut } = settings;
    const mac = /Mac|iP/.test(navigator.platform);
    this.#button = el(
      "button",
      {
        class: "launch",
        type: "button",
        "aria-haspopup": "dialog",
        "aria-expanded": "false",
        "aria-keyshortcuts": shortcut && `${mac ? "Meta" : "Control"}+${shortcut}`,
        onclick: () => this.open(),
      },
      icon("chat"),
      label ? el("span", {}, label) : el("span", { class: "hidden" }, t("open")),
      shortcut && el("kbd", { "aria-hidden": "true" }, `${mac ? "⌘" : "Ctrl "}${shortcut}`),
    );
    if (shortcut) {
      addEventListener("keydown", (event) => {
        const pressed = (mac ? event.metaKey : event.ctrlKey) && !event.altKey && !event.shiftKey;
        if (!pressed || event.key.toUpperCase() !== shortcut || !host.isConnected) return;
        event.preventDefault();
        if (this.#dialog.hidden) this.open();
        else this.#panel.focus();
      });
    }
    this.#dialog = el("div", {
      class: "dialog",
      role: "dialog",
      "aria-labelledby": "title",
      tabindex: "-1",
      hidden: true,
    });
    this.#dialog.addEventListener("keydown", (event) => this.#onKey(event));
    // Over a phone's whole screen, the page that a link leads to would stay behind the chat.
    this.#dialog.addEventListener("click", (event) => {
      if (this.#covers.matches && event.target.closest("a[href]:not([target])")) this.close();
    });
    this.#covers.addEventListener("change", () => this.#fitModality());
    this.node = el("div", { class: left ? "left" : "right" }, this.#button, this.#dialog);
    // It stays open from page to page, without taking the focus from the page that the visitor went to.
    if (memory.open && !this.#covers.matches) queueMicrotask(() => this.open({ focus: false }));
  }

  async open({ focus = true } = {}) {
    if (!this.#dialog.hidden || this.#opening) return;
    this.#memory.open = true;
    this.#opening = true;
    this.#givenBack = this.#host.ownerDocument.activeElement;
    if (!this.#panel) {
      this.#panel = await this.#makePanel(() => this.close());
      this.#dialog.append(this.#panel.node);
    }
    if (!this.#opening) return; // Closed meanwhile.
    this.#opening = false;
    this.#dialog.hidden = false;
    this.#button.hidden = true;
    this.#button.ariaExpanded = "true";
    this.#coverPhone(true);
    if (focus) this.#panel.focus();
  }

  close() {
    this.#memory.open = false;
    this.#opening = false;
    this.#dialog.hidden = true;
    this.#button.hidden = false;
    this.#button.ariaExpanded = "false";
    this.#coverPhone(false);
    const back = this.#givenBack;
    // Whoever opened it with the button gets the button back, others what they had focused before.
    if (back && back !== this.#host && back !== document.body && back.isConnected) back.focus();
    else this.#button.focus();
  }

  #onKey(event) {
    if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation();
      this.close();
    }
    if (event.key !== "Tab" || !this.#covers.matches) return;
    const stops = [...this.#dialog.querySelectorAll(FOCUSABLE)].filter((one) => one.checkVisibility());
    const [first, last] = [stops[0], stops.at(-1)];
    const here = this.#dialog.getRootNode().activeElement;
    if (event.shiftKey && (here === first || here === this.#dialog)) {
      event.preventDefault();
      last.focus();
    } else if (!event.shiftKey && here === last) {
      event.preventDefault();
      first.focus();
    }
  }

  // A phone's keyboard covers the page without resizing it: the dialog follows what is left to see.
  #coverPhone(opened) {
    const view = window.visualViewport;
    const page = document.documentElement.style;
    if (!opened) {
      view?.removeEventListener("resize", this.#fit);
      view?.removeEventListener("scroll", this.#fit);
      page.overflow = this.#pageOverflow;
      return;
    }
    this.#pageOverflow = page.overflow;
    this.#fitModality();
    view?.addEventListener("resize", this.#fit);
    view?.addEventListener("scroll", this.#fit);
    this.#fit();
  }

  #fitModality() {
    const covers = this.#covers.matches;
    if (covers) this.#dialog.ariaModal = "true";
    else this.#dialog.removeAttribute("aria-modal");
    if (!this.#dialog.hidden) document.documentElement.style.overflow = covers ? "hidden" : this.#pageOverflow;
  }

  #fit = () => {
    const view = window.visualViewport;
    if (!view || view.scale > 1.01) return;
    this.#dialog.style.setProperty("--visible", `${view.height}px`);
    this.#dialog.style.setProperty("--top", `${view.offsetTop}px`);
  };
}
