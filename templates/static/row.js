/**
 * One message as an `<li>`. Its form is that of `templates/row.html`, of which the page holds an empty copy; the
 * initial and the colour follow the same rules as `src/pages/row.rs`, so that a message looks the same
 * whoever made its row.
 */

import { locale, texts } from "./page.js";
import { mentions, nodesOf } from "./text.js";

const template = document.getElementById("row");
const timeFormat = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const dayFormat = new Intl.DateTimeFormat(locale, { dateStyle: "full" });
const wholeFormat = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
/** Messages of one sender closer than this stand under one name. */
const GROUP_MS = 5 * 60_000;
const HUES = 12;

/**
 * A message's place in the order of the history: dates are RFC 3339 in UTC with milliseconds, so the order of these
 * texts is that of the messages.
 */
export function placeOf({ date, id }) {
  return `${date} ${id}`;
}

/** A row of the page: the message's place in it, and its elements. */
export class Row {
  /** @param {HTMLLIElement} li filled by the server, or by `create` */
  constructor(li) {
    this.li = li;
    this.article = li.querySelector("article");
    this.#readKey();
    this.#showTime();
  }

  static create(message) {
    const row = new Row(template.content.firstElementChild.cloneNode(true));
    row.fill(message);
    return row;
  }

  fill({ id, date, sender, recipient = "", content }) {
    const { li, article } = this;
    Object.assign(article.dataset, { id, date, sender, recipient });
    article.id = `m-${id}`;
    article.querySelector(".when").href = `?at=${encodeURIComponent(id)}#m-${id}`;
    this.#readKey();
    this.#showTime();
    li.querySelector(".sender").textContent = sender;
    li.querySelector(".to").hidden = !recipient;
    li.querySelector(".recipient").textContent = recipient;
    const avatar = li.querySelector(".avatar");
    avatar.textContent = initialOf(sender);
    avatar.className = `avatar hue-${hueOf(sender)}`;
    article.querySelector(".text").replaceChildren(...nodesOf(content));
  }

  /** Shows what depends on the row before: the day when it is another, the name when it is another's. */
  follow(previous) {
    const day = this.li.querySelector(".day");
    const isNewDay = !previous || previous.day !== this.day;
    day.hidden = !isNewDay;
    if (isNewDay) {
      const time = day.firstElementChild;
      time.dateTime = this.day;
      time.textContent = nameOfDay(this.time, this.day);
    }
    const mine = this.article.dataset;
    const others = previous?.article.dataset;
    const isGrouped =
      !isNewDay &&
      others.sender === mine.sender &&
      others.recipient === mine.recipient &&
      this.time - previous.time < GROUP_MS;
    this.li.classList.toggle("first", !isGrouped);
  }

  /** Marks what the reader wrote, and what calls the reader. */
  showOwn(name) {
    const isOwn = this.article.dataset.sender === name;
    this.li.classList.toggle("own", isOwn);
    this.li.classList.toggle("mentioned", !isOwn && name !== "" && mentions(this.content, name));
  }

  /** Its text. */
  get content() {
    return this.article.querySelector(".text").textContent;
  }

  /** Its place in the order of the history, comparable as text. */
  get place() {
    return placeOf(this);
  }

  /** Whether this stands before `other`. */
  isBefore(other) {
    return this.date < other.date || (this.date === other.date && this.id < other.id);
  }

  #readKey() {
    ({ id: this.id, date: this.date } = this.article.dataset);
    this.time = new Date(this.date);
    this.day = localDay(this.time);
  }

  #showTime() {
    if (Number.isNaN(this.time.valueOf())) return;
    const time = this.article.querySelector("time");
    time.dateTime = this.date;
    time.textContent = timeFormat.format(this.time);
    time.title = wholeFormat.format(this.time);
  }
}

function initialOf(name) {
  return String.fromCodePoint(name.codePointAt(0)).toUpperCase();
}

/** FNV-1a over the name's UTF-8 bytes. */
function hueOf(name) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0) % HUES;
}

function localDay(time) {
  const pad = (number, length = 2) => String(number).padStart(length, "0");
  return `${pad(time.getFullYear(), 4)}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
}

function nameOfDay(time, day) {
  const today = new Date();
  if (day === localDay(today)) return texts.today;
  today.setDate(today.getDate() - 1);
  return day === localDay(today) ? texts.yesterday : dayFormat.format(time);
}
