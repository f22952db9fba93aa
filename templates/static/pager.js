/**
 * A link to older or newer messages, which works without a script, becomes a button that loads them in place. It is
 * also pressed by being near: whoever scrolls there finds the messages.
 */

import { texts } from "./page.js";

export class Pager {
  /** Changes since a page was asked for: that page may not know them. */
  #journal = null;
  #button = document.createElement("button");
  #sight;

  /**
   * @param {object} parts
   * @param {import("./timeline.js").Timeline} parts.timeline
   * @param {HTMLAnchorElement} parts.link
   * @param {() => string} parts.place where the page is; empty when there is none
   * @param {(place: string) => Promise<object>} parts.load a page at least as new as what the timeline has seen
   * @param {(page: object) => void} parts.put shows it
   */
  constructor({ timeline, link, place, load, put }) {
    Object.assign(this, { timeline, place, load, put, label: link.textContent });
    const button = this.#button;
    button.type = "button";
    button.className = "quiet";
    link.replaceWith(button);
    button.addEventListener("click", () => this.#press());
    const press = (entries) => entries.some((entry) => entry.isIntersecting) && this.#press();
    this.#sight = new IntersectionObserver(press, { root: timeline.scroller, rootMargin: "300px 0px" });
    this.show();
  }

  /** A change that the page under way may not know: it is applied once more on top of it. */
  note(change) {
    this.#journal?.push(change);
  }

  /** The page under way is of no use any more. */
  forget() {
    this.#journal = null;
  }

  /** Shows the button as it is now. */
  show() {
    this.timeline.log.setAttribute("aria-busy", "false");
    this.#button.textContent = this.label;
    this.#button.parentElement.hidden = !this.place();
    // An observer tells of changes only: when the button is still in sight, it must look anew.
    this.#sight.unobserve(this.#button);
    this.#sight.observe(this.#button);
  }

  async #press() {
    const { timeline } = this;
    const place = this.place();
    if (this.#journal || !place) return;
    const changes = (this.#journal = []);
    this.#button.textContent = texts.loading;
    timeline.log.setAttribute("aria-busy", "true");
    try {
      const page = await this.load(place);
      if (this.#journal !== changes) return;
      this.put(page);
      this.#journal = null;
      for (const { message, id } of changes) {
        if (message) timeline.upsert(message);
        else timeline.remove(id);
      }
    } catch (error) {
      console.warn("A page of messages could not be loaded:", error);
      this.#sight.disconnect();
      timeline.log.setAttribute("aria-busy", "false");
      // Nor pressed by being in sight: somebody must want it.
      this.#button.textContent = texts.loading_failed;
      if (this.#journal === changes) this.#journal = null;
      return;
    }
    this.show();
  }
}
