/**
 * The conversation: rows placed by (date, id), each message once. Changes are gathered and shown together, so that
 * a thousand missed messages cost one layout. Whoever reads older messages is not moved by newer ones.
 */

import { Row } from "./row.js";

/** Closer to the end than this is at the end. */
const AT_END_PX = 100;

export class Timeline {
  /** Where the messages before the oldest row are; empty when there are none. */
  before;
  /** The reader's name: their own rows are marked. */
  #owner = "";
  /** @type {Row[]} in order */
  #rows = [];
  /** @type {Map<string, Row>} */
  #byId = new Map();
  /** Changes that are not shown yet, in order. */
  #waiting = [];
  #timer = 0;
  #onNew;

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.scroller scrolls `log`
   * @param {HTMLElement} parts.log
   * @param {HTMLOListElement} parts.list holds the server's rows
   * @param {string} parts.before
   * @param {(count: number, wasAtEnd: boolean) => void} parts.onNew messages came at the end
   */
  constructor({ scroller, log, list, before, onNew }) {
    Object.assign(this, { scroller, log, list, before });
    this.#onNew = onNew;
    this.#takeOverScrolling();
    this.#quietly(() => {
      for (const li of list.children) this.#know(new Row(li), this.#rows.length);
      this.#followAll();
    });
  }

  get size() {
    return this.#rows.length;
  }

  get isAtEnd() {
    const { scrollHeight, clientHeight, scrollTop } = this.scroller;
    return scrollHeight - clientHeight - scrollTop < AT_END_PX;
  }

  has(id) {
    return this.#byId.has(id);
  }

  /** Puts a message in, or in its new form; soon. */
  upsert(message) {
    this.#later({ message });
  }

  /** Takes a message out; soon. */
  remove(id) {
    this.#later({ id });
  }

  /** Shows all that was put in or taken out, now. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const changes = this.#waiting.splice(0);
    if (changes.length === 0) return;
    const wasAtEnd = this.isAtEnd;
    let added = 0;
    this.#keepPlace(() => {
      for (const { message, id } of changes) {
        if (message) added += this.#put(message) ? 1 : 0;
        else this.#take(id);
      }
    });
    if (added > 0) this.#onNew(added, wasAtEnd);
  }

  /**
   * Shows a newly loaded history in place of all rows. What is in both stays as it is, so that nothing flickers and
   * nothing is read out again.
   */
  replace(messages, before) {
    this.#waiting.length = 0;
    const kept = new Set(messages.map((message) => message.id));
    this.#quietly(() =>
      this.#keepPlace(() => {
        for (const id of [...this.#byId.keys()]) if (!kept.has(id)) this.#take(id);
        // With nothing before them, no message is too old to be put in.
        this.before = "";
        for (const message of messages) this.#put(message);
        this.before = before ?? "";
      }),
    );
  }

  /** Puts a page of older messages before all rows. */
  prepend(messages, before) {
    this.flush();
    this.#quietly(() =>
      this.#keepPlace(() => {
        this.before = "";
        for (const message of messages) this.#put(message);
        this.before = before ?? "";
      }),
    );
  }

  /** Lets go of all rows before `oldest`, which are to be found at `before`. */
  keepFrom(oldest, before) {
    this.flush();
    this.#keepPlace(() => {
      while (this.#rows.length > 0 && this.#rows[0].isBefore(oldest)) this.#take(this.#rows[0].id);
    });
    this.before = before;
  }

  showOwner(name) {
    this.#owner = name;
    for (const row of this.#rows) row.showOwn(name);
  }

  scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /**
   * Without a script the page begins, and stays, at its end because its flow is reversed. With one it flows forward,
   * as tools and assistive technology expect, and the end is held here: also when the composer grows.
   */
  #takeOverScrolling() {
    const { scroller } = this;
    scroller.classList.add("forward");
    this.scrollToEnd();
    let isHeld = true;
    scroller.addEventListener("scroll", () => (isHeld = this.isAtEnd), { passive: true });
    const observer = new ResizeObserver(() => isHeld && this.scrollToEnd());
    observer.observe(scroller);
    observer.observe(scroller.firstElementChild);
  }

  #later(change) {
    this.#waiting.push(change);
    // A timer and not an animation frame: those rest while the page is hidden.
    this.#timer ||= setTimeout(() => this.flush(), 10);
  }

  /** Says whether a new row came at the end. */
  #put(message) {
    const known = this.#byId.get(message.id);
    if (known) {
      const isMoved = known.date !== message.date;
      known.fill(message);
      known.showOwn(this.#owner);
      const index = this.#rows.indexOf(known);
      if (!isMoved) {
        this.#followFrom(index);
        return false;
      }
      this.#forget(index);
      this.#place(known);
      return false;
    }
    const row = Row.create(message);
    row.showOwn(this.#owner);
    return this.#place(row);
  }

  #place(row) {
    const index = this.#indexFor(row);
    // Older than all that is loaded: it belongs to a page that is not loaded yet, which will bring it along.
    if (index === 0 && this.before && this.#rows.length > 0) {
      row.li.remove();
      return false;
    }
    const isLast = index === this.#rows.length;
    this.list.insertBefore(row.li, this.#rows[index]?.li ?? null);
    this.#know(row, index);
    this.#followFrom(index);
    return isLast;
  }

  #take(id) {
    const row = this.#byId.get(id);
    if (!row) return;
    this.#forget(this.#rows.indexOf(row));
    row.li.remove();
  }

  #know(row, index) {
    this.#rows.splice(index, 0, row);
    this.#byId.set(row.id, row);
  }

  #forget(index) {
    const [row] = this.#rows.splice(index, 1);
    this.#byId.delete(row.id);
    this.#followFrom(index);
  }

  /** Where a row belongs, looked for from the end: that is where most come in. */
  #indexFor(row) {
    let index = this.#rows.length;
    while (index > 0 && row.isBefore(this.#rows[index - 1])) index -= 1;
    return index;
  }

  /** The row at `index` and the one after it may stand after another row than they did. */
  #followFrom(index) {
    for (const at of [index, index + 1]) this.#rows[at]?.follow(this.#rows[at - 1]);
  }

  #followAll() {
    this.#rows.forEach((row, index) => row.follow(this.#rows[index - 1]));
  }

  /** Makes changes without having them read out: a loaded page is not news. */
  #quietly(change) {
    this.log.setAttribute("aria-busy", "true");
    change();
    this.log.setAttribute("aria-busy", "false");
  }

  /** Makes changes under the reader's eyes: at the end they stay at the end, elsewhere the row they read stays. */
  #keepPlace(change) {
    if (this.isAtEnd) {
      change();
      this.scrollToEnd();
      return;
    }
    const edge = this.scroller.getBoundingClientRect().top;
    const read = this.#rows.find((row) => row.li.getBoundingClientRect().bottom > edge);
    const top = read?.article.getBoundingClientRect().top;
    change();
    if (read?.li.isConnected) this.scroller.scrollTop += read.article.getBoundingClientRect().top - top;
  }
}
