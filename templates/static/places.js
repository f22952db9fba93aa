/**
 * The list beside the chat, kept live: what is unread, rooms that are new, the reader's inbox. The rooms of the list
 * come over the page's one connection; those that nobody here could follow yet are asked for now and then.
 */

import { load } from "./history.js";
import { base, counted, texts } from "./page.js";
import { COUNT_MAX, Unread, keyOf } from "./unread.js";

/** How often the list is asked for, while somebody may see it. The server reads it once for all who ask. */
const LIST_EVERY_MS = 15_000;
/** Rooms change their order no more often than this: nobody hits a link that moves. */
const ORDER_EVERY_MS = 3_000;

const element = (id) => document.getElementById(id);

export class Places {
  #here;
  #hereTopic;
  #name = "";
  #connection = null;
  /** How many topics one connection may follow, and how many of them are rooms beside this place. */
  #topicsMax;
  #followedMax;
  /** @type {Set<string>} the rooms beside this place that are followed */
  #followed = new Set();
  /** @type {Map<string, {li: HTMLLIElement, link: HTMLAnchorElement, newest: string}>} by room */
  #rooms = new Map();

  /**
   * @param {object} parts
   * @param {object} parts.here the topic of this page
   * @param {number} parts.topicsMax how many topics one connection may follow
   * @param {() => void} parts.onCounts some count is another
   * @param {(message: object) => boolean} parts.isForMe whether it calls the reader
   */
  constructor({ here, topicsMax, onCounts, isForMe }) {
    this.#here = keyOf(here);
    this.#hereTopic = here;
    this.#topicsMax = topicsMax;
    // One is this place, and one the inbox of the reader, who may say their name later.
    this.#followedMax = Math.min(COUNT_MAX, topicsMax - 2);
    this.isForMe = isForMe;
    this.unread = new Unread((key) => {
      this.#show(key);
      onCounts();
    });
    this.list = element("rooms");
    for (const li of this.list.children) this.#know(li);
    for (const [room] of this.#newestFirst()) if (this.#mayFollow(room)) this.#followed.add(room);
  }

  /** What is to be followed from the beginning: this place, the reader's inbox, and rooms with the newest messages. */
  get topics() {
    const inbox = this.#followsInbox ? [this.#inbox] : [];
    return [this.#hereTopic, ...inbox, ...[...this.#followed].map((room) => ({ room }))];
  }

  /** Whether a room is not followed and can be. */
  #mayFollow(room) {
    return keyOf({ room }) !== this.#here && !this.#followed.has(room) && this.#followed.size < this.#followedMax;
  }

  /** Whether the reader has an inbox beside this place. Where one connection can follow but one topic, it is asked for. */
  get #followsInbox() {
    return this.#inbox !== null && keyOf(this.#inbox) !== this.#here && this.#topicsMax > 1;
  }

  #newestFirst() {
    const order = ([, one], [, other]) => (one.newest < other.newest ? 1 : one.newest > other.newest ? -1 : 0);
    return [...this.#rooms].sort(order);
  }

  get #inbox() {
    return this.#name ? { inbox: this.#name } : null;
  }

  /** How many direct messages to the reader are unread. */
  get direct() {
    return this.#inbox && keyOf(this.#inbox) !== this.#here ? this.unread.count(keyOf(this.#inbox)) : 0;
  }

  /** Begins to follow: `connection` is that of the page. */
  start(connection) {
    this.#connection = connection;
    this.#catchUp();
    setInterval(() => document.visibilityState === "visible" && this.refresh(), LIST_EVERY_MS);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.refresh());
    setInterval(() => this.#order(), ORDER_EVERY_MS);
  }

  /** The reader has another name, and so another inbox. */
  rename(name) {
    if (name === this.#name) return;
    const old = this.#followsInbox ? this.#inbox : null;
    this.#name = name;
    const own = element("own-inbox");
    const link = own.querySelector("a");
    own.hidden = !name;
    link.href = name ? `${base}/inbox/${encodeURIComponent(name)}` : "";
    element("open-inbox").value = name;
    element("open-direct").querySelector(".own-name").hidden = name !== "";
    if (!this.#connection) return;
    if (old) this.#connection.unsubscribe(old);
    if (this.#followsInbox) this.#connection.subscribe(this.#inbox);
    this.#show("inbox=");
    this.#catchUpInbox();
  }

  /** A message came, or came again, in some place that is followed. */
  add(message) {
    const { room, recipient, sender } = message;
    if (recipient) {
      if (recipient === this.#name && sender !== this.#name) this.#count(keyOf(this.#inbox), message, true);
      return;
    }
    if (!this.#rooms.has(room)) this.#make(room);
    const known = this.#rooms.get(room);
    const place = `${message.date} ${message.id}`;
    if (place > known.newest) known.newest = place;
    if (sender !== this.#name) this.#count(keyOf({ room }), message, this.isForMe(message));
  }

  /** Asks for the list, and counts what came where nobody here followed. */
  async refresh() {
    try {
      const { rooms } = await load("/rooms.json");
      for (const { room, newest } of rooms) {
        if (!this.#rooms.has(room)) this.#make(room);
        const known = this.#rooms.get(room);
        if (newest > known.newest) known.newest = newest;
      }
      await this.#catchUp();
    } catch (error) {
      console.warn("The list of rooms stays:", error);
    }
  }

  #count(key, message, isForMe) {
    if (key !== this.#here) this.unread.add(key, message, isForMe);
  }

  /** Follows what is not followed yet, and counts what came before that. One room after the other: it can wait. */
  async #catchUp() {
    for (const [room, { newest }] of this.#newestFirst()) {
      const key = keyOf({ room });
      if (this.#mayFollow(room)) {
        this.#followed.add(room);
        this.#connection.subscribe({ room });
      }
      if (key === this.#here || newest <= this.unread.seen(key) || this.unread.count(key) > 0) continue;
      try {
        await this.unread.catchUp({ room }, (message) =>
          message.sender === this.#name ? null : this.isForMe(message),
        );
      } catch (error) {
        console.warn(`${room} is not counted:`, error);
      }
      // All of it the reader's own: read.
      if (this.unread.count(key) === 0) this.unread.read(key, newest);
    }
    await this.#catchUpInbox();
  }

  async #catchUpInbox() {
    const inbox = this.#inbox;
    if (!inbox || keyOf(inbox) === this.#here) return;
    try {
      await this.unread.catchUp(inbox, (message) => (message.sender === this.#name ? null : true));
    } catch (error) {
      console.warn("The inbox is not counted:", error);
    }
  }

  #know(li) {
    const link = li.querySelector("a");
    this.#rooms.set(link.dataset.room, { li, link, newest: link.dataset.newest });
  }

  /** A room that was not there: its entry is a copy of another's. */
  #make(room) {
    const li = this.list.firstElementChild.cloneNode(true);
    const link = li.querySelector("a");
    link.removeAttribute("aria-current");
    link.removeAttribute("aria-label");
    link.classList.remove("unread");
    link.href = `${base}/rooms/${encodeURIComponent(room)}`;
    Object.assign(link.dataset, { room, newest: "" });
    link.querySelector(".name").textContent = room;
    link.querySelector(".badge").hidden = true;
    this.list.append(li);
    this.#know(li);
  }

  /** The rooms with the newest messages first, unless somebody is about to choose one. */
  #order() {
    if (this.list.matches(":hover, :focus-within")) return;
    this.#newestFirst().forEach(([, { li }], index) => {
      if (this.list.children[index] !== li) this.list.insertBefore(li, this.list.children[index]);
    });
  }

  #show(key) {
    const [[kind, name] = []] = new URLSearchParams(key);
    const link = kind === "room" ? this.#rooms.get(name)?.link : element("own-inbox").querySelector("a");
    if (!link) return;
    const count = kind === "room" ? this.unread.count(key) : this.direct;
    const badge = link.querySelector(".badge");
    badge.hidden = count === 0;
    badge.textContent = count < COUNT_MAX ? count : `${COUNT_MAX}+`;
    badge.classList.toggle("for-me", kind === "inbox" || this.unread.isForMe(key));
    link.classList.toggle("unread", count > 0);
    if (count > 0) link.setAttribute("aria-label", `${link.querySelector(".name").textContent}, ${counted(texts.unread_one, texts.unread_other, count)}`);
    else link.removeAttribute("aria-label");
    const isNews = this.direct > 0 || [...this.#rooms.keys()].some((room) => this.unread.isForMe(keyOf({ room })));
    element("menu-news").hidden = !isNews;
  }
}
