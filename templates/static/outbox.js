/**
 * What was written and is not confirmed yet: shown under the conversation, and kept by the browser until the server
 * confirms it, so that no text is lost by a reload. Retrying uses the same id, which makes it harmless.
 */

import { storage, texts } from "./page.js";
import { Row } from "./row.js";

const KEY = "outbox.";

export class Outbox {
  /** @type {Map<string, {message: object, row: Row}>} in the order of the list */
  #items = new Map();

  /**
   * @param {object} parts
   * @param {HTMLOListElement} parts.list
   * @param {string} parts.place which page this is: each restores its own
   * @param {() => ?Row} parts.previous the row above the list
   * @param {(message: object) => void} parts.onRetry
   * @param {(message: object) => void} parts.onDelete
   */
  constructor({ list, place, previous, onRetry, onDelete }) {
    Object.assign(this, { list, place, previous, onRetry, onDelete });
    list.setAttribute("aria-label", texts.outbox);
  }

  /** Shows again what was left unconfirmed when the page was last left, except what `isStored`. */
  restore(isStored) {
    for (const id of storage.keys(KEY).sort()) {
      const kept = parse(storage.get(KEY + id));
      if (kept?.place !== this.place) continue;
      if (isStored(id)) storage.set(KEY + id, null);
      else this.#show(kept.message, "failed", texts.kept);
    }
  }

  /** A message is on its way, or waits for the connection. */
  add(message, isConnected) {
    storage.set(KEY + message.id, JSON.stringify({ place: this.place, message }));
    this.#show(message, "pending", isConnected ? texts.sending : texts.waiting);
  }

  /** The server refused a message, or could not say. Its text stays. */
  fail(id, reason) {
    const item = this.#items.get(id);
    if (item) this.#show(item.message, "failed", reason);
  }

  /** A message is stored. Its row goes when the message itself is shown, so that the text does not blink. */
  confirm(id) {
    storage.set(KEY + id, null);
    const item = this.#items.get(id);
    item?.row.li.classList.remove("pending", "failed");
    item?.row.li.classList.add("confirmed");
    return item?.message;
  }

  /** A message is shown in the conversation, or is not to be shown any longer. */
  remove(id) {
    storage.set(KEY + id, null);
    this.#items.get(id)?.row.li.remove();
    this.#items.delete(id);
    this.follow();
  }

  has(id) {
    return this.#items.has(id);
  }

  /** Whether a message that the server refused is still here. */
  get hasFailed() {
    return this.list.querySelector(".failed") !== null;
  }

  /** The row above may be another now: nothing may stand under a name that is not its writer's. */
  follow() {
    let previous = this.previous();
    for (const { row } of this.#items.values()) {
      row.follow(previous);
      previous = row;
    }
  }

  /** What is on its way waits, or goes on, with the connection. */
  showConnected(isConnected) {
    for (const { row } of this.#items.values()) {
      if (row.li.classList.contains("pending")) label(row.li).textContent = isConnected ? texts.sending : texts.waiting;
    }
  }

  #show(message, state, reason) {
    const shown = this.#items.get(message.id);
    const row = Row.create({ ...message, date: shown?.row.date ?? new Date().toISOString() });
    row.li.classList.add("own", state);
    // Nothing can lead to it before it is stored.
    row.article.removeAttribute("id");
    row.article.querySelector(".when").removeAttribute("href");
    const line = document.createElement("p");
    line.className = "state";
    const why = document.createElement("span");
    why.textContent = reason;
    line.append(why);
    if (state === "failed") {
      line.append(
        button(texts.retry, () => this.onRetry(message)),
        button(texts.delete, () => {
          this.remove(message.id);
          this.onDelete(message);
        }),
      );
    }
    row.article.append(line);
    this.#items.set(message.id, { message, row });
    if (shown) shown.row.li.replaceWith(row.li);
    else this.list.append(row.li);
    this.follow();
  }
}

function label(li) {
  return li.querySelector(".state span");
}

function button(text, onClick) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", onClick);
  return button;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
