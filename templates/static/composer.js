/** The form that writes a message. Without this script it posts itself; with it, it hands over what was written. */

import { characters, fill, normaliseName, rememberName, storage, texts } from "./page.js";

const CONTENT_CHARACTERS_MAX = 4_000;

/** What stands for a composer on a page that can not write: the name that this browser knows, and nothing to say. */
export function noComposer({ onName }) {
  const name = storage.get("name") ?? "";
  onName(name);
  return { name, say() {}, takeBackError() {} };
}

export class Composer {
  /**
   * @param {object} parts
   * @param {HTMLFormElement} parts.form
   * @param {{room?: string, inbox?: string}} parts.place
   * @param {string} parts.key under which this page's draft is kept
   * @param {(written: {content: string, sender: string, recipient?: string}) => void} parts.onWritten
   * @param {(name: string) => void} parts.onName
   */
  constructor({ form, place, key, onWritten, onName }) {
    Object.assign(this, { form, place, onWritten, onName });
    /** What was sent last from this page. */
    this.last = "";
    const { sender, recipient, content } = form.elements;
    Object.assign(this, { sender, recipient, content });
    this.draftKey = `draft.${key}`;
    this.note = form.querySelector("#note");
    form.noValidate = true;

    // Where people sign in, the name is theirs and can not be changed. Else it is the inbox's on an inbox, and on other
    // pages what this browser knows.
    const isOwn = sender.readOnly || !place.inbox;
    if (!sender.readOnly && !place.inbox) sender.value = storage.get("name") || sender.value;
    // A text that the server gave back is newer than the draft.
    if (!content.value) content.value = storage.get(this.draftKey) ?? "";
    this.#showAudience();
    this.#fit();

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    content.addEventListener("keydown", (event) => {
      // The last text again, to say it better: as in a shell.
      if (event.key === "ArrowUp" && content.value === "" && !event.isComposing && this.last) {
        event.preventDefault();
        this.#write(this.last);
        content.setSelectionRange(this.last.length, this.last.length);
        return;
      }
      // While an input method composes, Enter chooses a word. On a touch keyboard it is the only way to a new line.
      const isSend = event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
      if (!isSend || matchMedia("(pointer: coarse)").matches) return;
      event.preventDefault();
      this.#submit();
    });
    content.addEventListener("input", () => {
      storage.set(this.draftKey, content.value);
      this.#fit();
    });
    sender.addEventListener("input", () => {
      if (isOwn) this.#rename();
      else onName(this.name);
    });
    recipient.addEventListener("input", () => this.#showAudience());
    if (isOwn) this.#rename();
    else onName(this.name);
  }

  /** Under which name its messages go; empty while there is none. */
  get name() {
    return normaliseName(this.sender.value) ?? "";
  }

  /** Says something beside the form; a link may follow. */
  say(text, { isError = false, link } = {}) {
    this.note.replaceChildren(text, ...(link ? [" ", link] : []));
    this.note.classList.toggle("error", isError);
  }

  /** What was wrong is not any more. */
  takeBackError() {
    if (this.note.classList.contains("error")) this.say("");
  }

  /** The name in the field is the reader's, here and on the pages to come. */
  #rename() {
    rememberName(this.name);
    this.onName(this.name);
  }

  #submit() {
    const written = this.#check();
    if (!written) return;
    // The text moves on: the outbox shows and keeps it until it is confirmed, so the field is free for the next.
    this.onWritten(written);
    // To look into an inbox makes nobody its owner; to write from it does, for whom no other name is known.
    if (!storage.get("name")) this.#rename();
    this.last = written.content;
    this.#write("");
    if (!this.place.inbox) {
      // What is said next in a room is for the room, unless that is said again.
      this.recipient.value = "";
      this.#showAudience();
    }
    this.content.focus();
  }

  #write(text) {
    this.content.value = text;
    storage.set(this.draftKey, text);
    this.#fit();
  }

  /** What was written in normal form, or nothing and the faults said beside their fields. */
  #check() {
    const { sender, recipient, content } = this;
    const length = characters(content.value);
    const name = normaliseName(sender.value);
    const other = normaliseName(recipient.value);
    const isToPerson = this.place.inbox || recipient.value.trim();
    const faults = [
      [sender, name ? "" : sender.value.trim() ? texts.error_sender : texts.error_sender_empty],
      [
        recipient,
        !isToPerson || other ? "" : recipient.value.trim() ? texts.error_recipient : texts.error_recipient_empty,
      ],
      [
        content,
        !content.value.trim()
          ? texts.error_content_empty
          : length > CONTENT_CHARACTERS_MAX
            ? fill(texts.error_content_long, { count: length })
            : "",
      ],
    ];
    for (const [field, fault] of faults) {
      if (fault) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
      this.form.querySelector(`#error-${field.name}`).textContent = fault;
    }
    const first = faults.find(([, fault]) => fault);
    first?.[0].focus();
    if (first) return null;
    return { content: content.value, sender: name, ...(isToPerson && { recipient: other }) };
  }

  /** What the field invites to: who will read the text must be plain before it is sent. */
  #showAudience() {
    const recipient = this.recipient.value.trim();
    this.form.classList.toggle("direct", recipient !== "");
    this.content.placeholder = recipient
      ? fill(texts.write_to_person, { recipient })
      : this.place.room
        ? fill(texts.write_in_room, { room: this.place.room })
        : texts.write;
  }

  /** Grows the field with its text where the browser does not (`field-sizing`). */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.content.style.height = "auto";
    this.content.style.height = `${this.content.scrollHeight + 2}px`;
  }
}
