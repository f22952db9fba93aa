/** The link to older messages, which works without a script, becomes a button that loads them in place. */

import { texts } from "./page.js";

export class Older {
  /** Changes since an older page was asked for: that page may not know them. */
  #journal = null;
  #button = document.createElement("button");

  /**
   * @param {object} parts
   * @param {import("./timeline.js").Timeline} parts.timeline
   * @param {(place: string) => Promise<{messages: object[], before: ?string}>} parts.load a page at least as new as
   *   what the timeline has seen
   */
  constructor({ timeline, load }) {
    Object.assign(this, { timeline, load });
    const button = this.#button;
    button.type = "button";
    button.className = "quiet";
    document.getElementById("older").replaceWith(button);
    button.addEventListener("click", () => this.#press());
    // Pressed by being near: whoever scrolls back finds the messages there.
    this.sight = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#press(), {
      root: timeline.scroller,
      rootMargin: "300px 0px 0px",
    });
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
    this.#button.textContent = texts.older;
    this.#button.parentElement.hidden = !this.timeline.before;
    // An observer tells of changes only: when the button is still in sight, it must look anew.
    this.sight.unobserve(this.#button);
    this.sight.observe(this.#button);
  }

  async #press() {
    const { timeline } = this;
    if (this.#journal || !timeline.before) return;
    const changes = (this.#journal = []);
    this.#button.textContent = texts.loading_older;
    timeline.log.setAttribute("aria-busy", "true");
    try {
      const page = await this.load(timeline.before);
      if (this.#journal !== changes) return;
      timeline.prepend(page.messages, page.before);
      this.#journal = null;
      for (const { message, id } of changes) {
        if (message) timeline.upsert(message);
        else timeline.remove(id);
      }
    } catch (error) {
      console.warn("Older messages could not be loaded:", error);
      this.sight.disconnect();
      timeline.log.setAttribute("aria-busy", "false");
      // Nor pressed by being in sight: somebody must want it.
      this.#button.textContent = texts.older_failed;
      if (this.#journal === changes) this.#journal = null;
      return;
    }
    this.show();
  }
}
