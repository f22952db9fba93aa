/**
 * How far the reader has read: the count of what came since, in the title and on the button that leads there, and the
 * line before it. All that is shown counts as read while somebody looks at the end of it.
 */

import { counted, isAttended, texts } from "./page.js";

export class Reading {
  #count = 0;
  #direct = 0;
  #title = document.title;

  /**
   * @param {object} parts
   * @param {import("./timeline.js").Timeline} parts.timeline
   * @param {HTMLButtonElement} parts.jump leads to the newest message
   * @param {() => void} parts.onRead all is read
   */
  constructor({ timeline, jump, onRead }) {
    Object.assign(this, { timeline, jump, onRead });
    const look = () => this.look();
    timeline.scroller.addEventListener("scroll", look, { passive: true });
    addEventListener("focus", look);
    document.addEventListener("visibilitychange", look);
    this.look();
  }

  /** Messages of others came at the end; `first` is the row of the first one that is shown. */
  came(count, first, wasAtEnd) {
    if (wasAtEnd && isAttended()) return this.look();
    if (this.#count === 0) this.timeline.showUnreadFrom(first);
    this.#count += count;
    this.look();
  }

  /** So many direct messages wait elsewhere. */
  showDirect(count) {
    this.#direct = count;
    this.#show();
  }

  /** Looks where the reader is. */
  look() {
    const { isAtEnd, isCut } = this.timeline;
    if (isAtEnd && !isCut && isAttended()) {
      this.#count = 0;
      this.onRead();
    }
    this.#show();
  }

  #show() {
    const isAway = !this.timeline.isAtEnd || this.timeline.isCut;
    this.jump.hidden = !isAway;
    this.jump.textContent = this.#count === 0 ? texts.jump : counted(texts.jump_one, texts.jump_other, this.#count);
    const count = this.#count + this.#direct;
    document.title = count === 0 ? this.#title : `(${count}) ${this.#title}`;
  }
}
