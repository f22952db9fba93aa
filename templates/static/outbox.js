/**
 * What was written and is not confirmed yet: shown under the conversation, and kept by the browser until the server
 * confirms it, so that no text is lost by a reload. Retrying uses the same id, which makes it harmless.
 */

import { fill, storage, texts } from "./page.js";

const KEY = "outbox.";

export class Outbox {
  /** @type {Map<string, {message: object, li: HTMLLIElement}>} */
  #items = new Map();

  /**
   * @param {object} parts
   * @param {HTMLOListElement} parts.list
   * @param {string} parts.place which page this is: each restores its own
   * @param {(message: object) => void} parts.onRetry
   * @param {(message: object) => void} parts.onDelete
   */
  constructor({ list, place, onRetry, onDelete }) {
    Object.assign(this, { list, place, onRetry, onDelete });
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
    if (item) item.li.className = "confirmed";
    return item?.message;
  }

  /** A message is shown in the conversation, or is not to be shown any longer. */
  remove(id) {
    storage.set(KEY + id, null);
    this.#items.get(id)?.li.remove();
    this.#items.delete(id);
  }

  has(id) {
    return this.#items.has(id);
  }

  /** Whether a message that the server refused is still here. */
  get hasFailed() {
    return this.list.querySelector(".failed") !== null;
  }

  /** What is on its way waits, or goes on, with the connection. */
  showConnected(isConnected) {
    for (const { li } of this.#items.values()) {
      if (li.className === "pending") label(li).textContent = isConnected ? texts.sending : texts.waiting;
    }
  }

  #show(message, state, reason) {
    const li = document.createElement("li");
    li.className = state;
    const text = document.createElement("div");
    text.className = "text";
    text.dir = "auto";
    text.textContent = message.content;
    const line = document.createElement("p");
    line.className = "state";
    const why = document.createElement("span");
    why.textContent = reason;
    line.append(why);
    if (message.recipient) line.prepend(fill(texts.to_person, { recipient: message.recipient }), " · ");
    if (state === "failed") {
      line.append(
        button(texts.retry, () => this.onRetry(message)),
        button(texts.delete, () => {
          this.remove(message.id);
          this.onDelete(message);
        }),
      );
    }
    li.append(text, line);
    const shown = this.#items.get(message.id);
    this.#items.set(message.id, { message, li });
    if (shown) shown.li.replaceWith(li);
    else this.list.append(li);
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
