/**
 * The conversation: rows placed by (date, id), each message once. Changes are gathered and shown together, so that
 * a thousand missed messages cost one layout. Whoever reads older messages is not moved by newer ones.
 *
 * The rows are one stretch of the history without a hole. It ends at the newest message, or before it when the page
 * shows the surroundings of a message, or when its reader is elsewhere and the rows have become too many: then newer
 * messages are counted and not shown, until the reader goes to the newest ones.
 */

import { texts } from "./page.js";
import { Row } from "./row.js";

/** Closer to the end than this is at the end. */
const AT_END_PX = 100;
/** Above so many rows, those at the far end are let go: first at this number, then down to the other. */
const ROWS_MAX = 6_000;
const ROWS_KEPT = 5_000;
/** How long changes are gathered: about a frame. */
const GATHER_MS = 15;

export class Timeline {
  /** Where the messages before the oldest row are; empty when there are none. */
  before;
  /** Where the messages after the newest row are; empty when there are none, or when that is not known. */
  after;
  /** Whether messages after the newest row are left out. */
  isCut;
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
   * @param {import("./voice.js").Voice} parts.voice is told what is no news, and of what is
   * @param {HTMLOListElement} parts.list holds the server's rows
   * @param {string} parts.before
   * @param {string} parts.after
   * @param {(news: {messages: object[], first: ?Row, wasAtEnd: boolean}) => void} parts.onNew messages came at the end
   */
  constructor({ scroller, log, voice, list, before, after, onNew }) {
    Object.assign(this, { scroller, log, voice, list, before, after, isCut: after !== "" });
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

  /** The newest row. */
  get newest() {
    return this.#rows.at(-1);
  }

  /** The oldest row that `is` true of. */
  find(is) {
    return this.#rows.find(is);
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
    this.voice.expect(changes.filter(({ message }) => message && !this.#byId.has(message.id)).length);
    const messages = [];
    this.#keepPlace(() => {
      for (const { message, id } of changes) {
        if (!message) this.#take(id);
        else if (this.#put(message)) messages.push(message);
      }
    });
    if (!wasAtEnd && this.#rows.length > ROWS_MAX) this.#cutAfter(ROWS_KEPT);
    const first = messages.map(({ id }) => this.#byId.get(id)).find((row) => row);
    this.#liftLine(first);
    if (messages.length > 0) this.#onNew({ messages, first, wasAtEnd });
  }

  /**
   * Shows a newly loaded history, to its newest message, in place of all rows. What is in both stays as it is, so that nothing flickers and
   * nothing is read out again.
   */
  replace(messages, before) {
    this.#waiting.length = 0;
    const kept = new Set(messages.map((message) => message.id));
    this.#quietly(() =>
      this.#keepPlace(() => {
        for (const id of [...this.#byId.keys()]) if (!kept.has(id)) this.#take(id);
        this.#cutAt("", false);
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
    if (this.#rows.length > ROWS_MAX) this.#cutAfter(ROWS_KEPT);
  }

  /** Puts a page of newer messages after all rows. */
  append(messages, after) {
    this.flush();
    this.#quietly(() =>
      this.#stay(() => {
        this.#cutAt("", false);
        for (const message of messages) this.#put(message);
        this.#cutAt(after ?? "", Boolean(after));
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

  /** Draws a line before `row`: from there on all is unread. Nothing takes the line away. */
  showUnreadFrom(row) {
    this.list.querySelector(".unread-from")?.classList.remove("unread-from");
    if (!row) return;
    row.li.dataset.unread = texts.unread;
    row.li.classList.add("unread-from");
  }

  /** What is new stands under the line, also when that was drawn before a message of a time to come. */
  #liftLine(first) {
    const line = this.list.querySelector(".unread-from");
    const isAbove = first && line && first.li.compareDocumentPosition(line) & Node.DOCUMENT_POSITION_FOLLOWING;
    if (isAbove) this.showUnreadFrom(first);
  }

  /** Brings a row into sight. Says whether it is there. */
  show(id) {
    const row = this.#byId.get(id);
    if (!row) return false;
    this.list.querySelector(".shown")?.classList.remove("shown");
    row.li.classList.add("shown");
    row.li.scrollIntoView({ block: "center" });
    return true;
  }

  showOwner(name) {
    if (name === this.#owner) return;
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
    // A page that was opened at a message stays there.
    let isHeld = !this.isCut && !location.hash;
    if (isHeld) this.scrollToEnd();
    let top = scroller.scrollTop;
    const look = () => {
      // Only who scrolls up lets go: the composer may have grown since, and its observer not have told yet.
      isHeld = this.isAtEnd || (isHeld && scroller.scrollTop >= top);
      top = scroller.scrollTop;
    };
    scroller.addEventListener("scroll", look, { passive: true });
    const observer = new ResizeObserver(() => isHeld && !this.isCut && this.scrollToEnd());
    observer.observe(scroller);
    observer.observe(scroller.firstElementChild);
  }

  #later(change) {
    this.#waiting.push(change);
    // A timer and not an animation frame: those rest while the page is hidden.
    this.#timer ||= setTimeout(() => this.flush(), GATHER_MS);
  }

  /** Says whether a new row came at the end, or before nothing but messages of a time to come: their dates are their writers'. */
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
    if (isLast && this.isCut) {
      row.li.remove();
      return true;
    }
    const isNewest = isLast || this.#rows[index].time > Date.now();
    this.list.insertBefore(row.li, this.#rows[index]?.li ?? null);
    this.#know(row, index);
    this.#followFrom(index);
    return isNewest;
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

  /** Lets go of all rows but the oldest `count`. */
  #cutAfter(count) {
    for (const row of this.#rows.slice(count)) this.#take(row.id);
    this.#cutAt("", true);
  }

  #cutAt(after, isCut) {
    this.after = after;
    this.isCut = isCut;
    this.list.closest(".column").querySelector(".newer").hidden = !after;
  }

  /** Makes changes without having them read out: a loaded page is not news. */
  #quietly(change) {
    this.voice.hush();
    change();
  }

  /** Makes changes under the reader's eyes: at the end they stay at the end, elsewhere the row they read stays. */
  #keepPlace(change) {
    if (this.isAtEnd && !this.isCut) {
      change();
      this.scrollToEnd();
    } else {
      this.#stay(change);
    }
  }

  #stay(change) {
    const read = this.#firstInSight();
    const top = read?.article.getBoundingClientRect().top;
    change();
    if (read?.li.isConnected) this.scroller.scrollTop += read.article.getBoundingClientRect().top - top;
  }

  #firstInSight() {
    const edge = this.scroller.getBoundingClientRect().top;
    let [low, high] = [0, this.#rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#rows[middle].li.getBoundingClientRect().bottom > edge) high = middle;
      else low = middle + 1;
    }
    return this.#rows[low];
  }
}
