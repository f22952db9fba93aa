/**
 * What is read out to those who listen. The log reads out each message that comes, which is right for a conversation
 * and unbearable for a flood: of one, only the number is said.
 */

import { counted, texts } from "./page.js";

/** More messages than this within the time below are a flood. */
const MESSAGES_MAX = 5;
const WINDOW_MS = 5_000;
/** Browsers tell assistive technology of a change a moment after it was made: so long the log stays silent after it. */
const SETTLE_MS = 500;

export class Voice {
  #windowBegan = -Infinity;
  /** How many messages came in this window, and whether they are said as a number. */
  #count = 0;
  #isFlood = false;
  #timer = 0;
  #silentUntil = 0;

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.log a live region
   * @param {HTMLElement} parts.news another one, for the number
   */
  constructor({ log, news }) {
    Object.assign(this, { log, news });
  }

  /** So many messages are about to be put in. */
  expect(count) {
    const now = performance.now();
    if (now - this.#windowBegan > WINDOW_MS) {
      this.#windowBegan = now;
      // What is still to be said of a flood counts: its number is that of the whole flood.
      if (!this.#isFlood) this.#count = 0;
    }
    this.#count += count;
    if (this.#count <= MESSAGES_MAX) return;
    this.#isFlood = true;
    this.#silence(this.#windowBegan + WINDOW_MS);
  }

  /** What is about to change is not news: a page of older messages, the same history again. */
  hush() {
    this.#silence(performance.now() + SETTLE_MS);
  }

  #silence(until) {
    this.#silentUntil = Math.max(this.#silentUntil, until);
    this.log.setAttribute("aria-live", "off");
    this.#timer ||= setTimeout(() => this.#speak(), this.#silentUntil - performance.now());
  }

  #speak() {
    this.#timer = 0;
    const rest = this.#silentUntil - performance.now();
    if (rest > 0) {
      this.#timer = setTimeout(() => this.#speak(), rest);
      return;
    }
    this.log.removeAttribute("aria-live");
    if (!this.#isFlood) return;
    this.news.textContent = counted(texts.jump_one, texts.jump_other, this.#count);
    this.#isFlood = false;
    this.#count = 0;
  }
}
