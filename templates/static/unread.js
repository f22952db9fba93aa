/**
 * What is unread in the places beside this page. Nobody signs in, so the server can not know it: this browser keeps
 * for each place up to where it was read, `date id` as in the order of the history, and all its tabs share that.
 */

import { loadMessages } from "./history.js";
import { storage } from "./page.js";
import { placeOf } from "./row.js";

const KEY = "seen.";
/** More than this is said as "50+". */
export const COUNT_MAX = 50;

/** The key of a topic: `room=general`, `inbox=Ana`. */
export const keyOf = (topic) => new URLSearchParams(topic).toString();

export class Unread {
  /** @type {Map<string, Map<string, {place: string, isForMe: boolean}>>} by key, then by id */
  #counts = new Map();
  /** What came before this browser's first visit is not news to it. */
  #since;

  /** @param {(key: string) => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.#since = storage.get("since") ?? "";
    if (!this.#since) storage.set("since", (this.#since = new Date().toISOString()));
    // Another tab has read on.
    addEventListener("storage", ({ key }) => {
      const place = key?.split(`corriente.${KEY}`)[1];
      if (place) this.#forgetUntil(place, this.seen(place));
    });
  }

  /** Up to where a place was read. */
  seen(key) {
    return storage.get(KEY + key) ?? this.#since;
  }

  /** A message of a place: unread when it lies after what was read. */
  add(key, message, isForMe) {
    const place = placeOf(message);
    if (place <= this.seen(key)) return;
    const messages = this.#counts.get(key) ?? new Map();
    if (messages.size < COUNT_MAX) messages.set(message.id, { place, isForMe });
    this.#counts.set(key, messages);
    this.onChange(key);
  }

  /** A message is gone, wherever it was. */
  remove(id) {
    for (const [key, messages] of this.#counts) if (messages.delete(id)) this.onChange(key);
  }

  /** All of a place is read, up to `place`. */
  read(key, place) {
    if (place > this.seen(key)) storage.set(KEY + key, place);
    this.#forgetUntil(key, place);
  }

  count(key) {
    return this.#counts.get(key)?.size ?? 0;
  }

  isForMe(key) {
    return [...(this.#counts.get(key)?.values() ?? [])].some((message) => message.isForMe);
  }

  /** Counts what came while nobody here followed a place. `isForMe` is asked of each message; `null` leaves it out. */
  async catchUp(topic, isForMe) {
    const key = keyOf(topic);
    const { messages } = await loadMessages({ ...topic, limit: COUNT_MAX });
    for (const message of messages) {
      const answer = isForMe(message);
      if (answer !== null) this.add(key, message, answer);
    }
  }

  #forgetUntil(key, seen) {
    const messages = this.#counts.get(key);
    if (!messages) return;
    for (const [id, { place }] of messages) if (place <= seen) messages.delete(id);
    this.onChange(key);
  }
}
