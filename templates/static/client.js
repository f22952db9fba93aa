/**
 * The live connection: one WebSocket that is opened again for as long as the page lives, and that resumes where it
 * was. It knows no page and imports nothing, so any page of any origin may use it:
 *
 *   import { connect } from "/client.js";
 *   const connection = connect({
 *     topics: [{ room: "general" }],      // also { inbox: "Ana" } or { all: true }; none is legal
 *     after: cursor,                      // from the page or from GET /api/messages; absent = from now on
 *     onCreated(message) {}, onUpdated(message) {}, onDeleted(id) {},
 *     onReset: async () => newCursor,     // load the history again and say its cursor
 *   });
 *   connection.send({ room: "general", sender: "Ana", content: "hola" });
 *
 * What it promises: every change after the cursor is handed over once and in order, or `onReset` is called. Changes
 * are to be applied by id (created and updated alike put the message in, deleted takes it out), because after a
 * lost connection one may come a second time. `send` repeats a message, with the same id, until the server says
 * that it is stored or refuses it for good: also after a 429 or 503, which say "later". The id makes that harmless.
 */

/** The first wait before a new attempt is random below this, and the bound doubles with each failure. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
/** A reset often meets everybody at once; they come back spread over this time. */
const RESET_SPREAD_MS = 2_000;
/** A connection that was live for so long counts as good: the next failure is the first again. */
const GOOD_AFTER_MS = 5_000;
/** The server says something every 25 s, if only its position. Silence for longer than this is a dead connection. */
const SILENCE_MAX_MS = 65_000;
/** A connection that does not open, or does not answer a message, within this time is given up for a new one. */
const ANSWER_MAX_MS = 15_000;
const WATCH_EVERY_MS = 2_500;
/** The server closes a connection that brings a larger frame. */
const FRAME_BYTES_MAX = 64 * 1024;
/** What is said of a message that would be such a frame: it is never sent. */
const TOO_LARGE = {
  type: "/problems/too-large",
  title: "The request is too large",
  status: 413,
  detail: `a message may have ${FRAME_BYTES_MAX} bytes as JSON`,
};
/** What was answered "later" is repeated after at most this, doubled with each such answer. */
const REPEAT_FIRST_MS = 1_000;

/**
 * @typedef {{room: string} | {inbox: string} | {all: true}} Topic
 * @typedef {{id: string, content: string, sender: string, recipient?: string, room?: string, date: string}} Message
 * @typedef {"connecting" | "catching-up" | "live" | "offline"} State
 * @typedef {object} Options
 * @property {Topic[]} [topics]
 * @property {string} [after] the cursor to go on from
 * @property {string[]} [here] in which rooms its user is counted as present; absent: in all that are followed. For those
 *   who follow rooms that nobody looks at
 * @property {(message: Message, frame: object) => void} [onCreated]
 * @property {(message: Message, frame: object) => void} [onUpdated]
 * @property {(id: string, frame: object) => void} [onDeleted]
 * @property {(state: State) => void} [onState] "live" comes after everything that was missed
 * @property {(frame: object) => Promise<string>} [onReset] changes were lost: load the history again, answer its
 *   cursor. Called again, later, when it throws. Without it the connection goes on from the reset's own cursor
 * @property {(id: string) => void} [onSent] a message of ours is stored, whether or not its `onCreated` came yet
 * @property {(problem: object, id?: string, isRepeated?: boolean) => void} [onError] a message of ours (if there is an
 *   id) was refused; `isRepeated`: only for now, it is sent again by itself until it is stored or `forget` is called
 * @property {(topic: Topic, cursor: string) => void} [onSubscribed] its changes come from this cursor on: load its
 *   history with `since=` that cursor
 * @property {string} [url] where the WebSocket is; by default `/ws` of the server that this script comes from
 */

/** @param {Options} options */
export function connect(options) {
  return new Connection(options);
}

/** The second of the newest id, and how many ids of that second came before it. */
let newestSecond = 0;
let idsOfSecond = 0;

/**
 * An id for a new message: an ObjectId, which is 4 bytes of seconds and, here, 2 that count within the second and 6 random
 * ones. Each is greater than those before it on this page: messages of one millisecond are shown in the order of their ids.
 * Nobody may guess the next, or they could take it.
 */
export function newId() {
  const second = Math.floor(Date.now() / 1000);
  if (second > newestSecond || idsOfSecond === 0xffff) {
    newestSecond = Math.max(second, newestSecond + 1);
    idsOfSecond = 0;
  } else {
    idsOfSecond += 1;
  }
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, newestSecond);
  view.setUint16(4, idsOfSecond);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Connection {
  /** The newest cursor: everything before it was handed over. */
  cursor;
  /** @type {State} */
  state = "connecting";

  #options;
  /** @type {Topic[]} */
  #topics;
  /** What this socket was asked about topics and has not answered yet: it answers in order. */
  #asked = [];
  /** What was sent and not answered yet, by id, in the order of sending. */
  #unanswered = new Map();
  /** How often in a row the server has said "later". Until it takes one, the oldest message alone is tried. */
  #refusals = 0;
  /** Runs during the pause before the next attempt. */
  #repeatTimer = 0;
  #socket = null;
  /** Whether this session has caught up once. */
  #isReady = false;
  #closed = false;
  /** Whether the page was left, and may come back as it is: from the cache behind the back button. */
  #isLeft = false;
  /** Ends the present session (see `#session`), or nothing while there is none. */
  #endSession = () => {};
  /** Ends the present pause, or nothing while there is none. */
  #wake = () => {};
  #listening = new AbortController();

  constructor(options) {
    this.#options = options;
    this.#topics = [...(options.topics ?? [])];
    this.cursor = options.after;
    // Whoever comes back should not wait for a timer: the network did not refuse us, it was away.
    const wake = () => document.visibilityState === "visible" && this.#wake();
    const { signal } = this.#listening;
    addEventListener("online", () => this.#wake(), { signal });
    // A page in that cache would keep its place on the server although nobody is there.
    addEventListener("pagehide", () => this.#leave(), { signal });
    addEventListener("pageshow", () => this.#comeBack(), { signal });
    document.addEventListener("visibilitychange", wake, { signal });
    this.#run();
  }

  /**
   * Sends a message now or as soon as there is a connection, and repeats it until it is answered.
   * @param {{content: string, sender: string, room?: string, recipient?: string, id?: string}} message
   * @returns {string} its id, under which `onSent`, `onError` and its own `onCreated` will come
   */
  send(message) {
    const id = message.id ?? newId();
    const frame = { type: "send", ...message, id };
    if (new TextEncoder().encode(JSON.stringify(frame)).length > FRAME_BYTES_MAX) {
      // Soon: its caller does not know the id yet.
      queueMicrotask(() => this.#options.onError?.(TOO_LARGE, id, false));
      return id;
    }
    const isRepeated = this.#unanswered.has(id);
    // In its old place when it is sent again: the order is that of the first time.
    this.#unanswered.set(id, { frame, writtenAt: 0 });
    if (isRepeated) this.#writeAll();
    else if (this.#refusals === 0) this.#write(id);
    return id;
  }

  /** Stops repeating a message. It may have been stored nevertheless. */
  forget(id) {
    this.#unanswered.delete(id);
    if (this.#unanswered.size === 0) this.#refusals = 0;
    if (this.#refusals > 0 && !this.#repeatTimer) this.#writeAll();
  }

  /** Follows one more topic, from the cursor that `onSubscribed` will say. */
  subscribe(topic) {
    // A new list: that of the socket that is opening stays as it was.
    this.#topics = [...without(this.#topics, [topic]), topic];
    this.#ask("subscribe", topic);
  }

  /** Follows one topic less. */
  unsubscribe(topic) {
    this.#topics = without(this.#topics, [topic]);
    this.#ask("unsubscribe", topic);
  }

  /** Closes for good. */
  close() {
    this.#closed = true;
    this.#unanswered.clear();
    clearTimeout(this.#repeatTimer);
    this.#listening.abort();
    this.#endSession({});
    this.#wake();
  }

  /** The life of the connection: a session, a pause, the next session. */
  async #run() {
    let failures = 0;
    while (!this.#closed) {
      if (this.#isLeft) await this.#pause(null);
      if (this.#isLeft) continue;
      const { reset, wasGood, isAsked } = await this.#session();
      if (this.#closed) break;
      if (reset) {
        this.#setState("catching-up");
        await this.#pause(Math.random() * RESET_SPREAD_MS);
        if (await this.#rejoin(reset)) continue;
      }
      // The server asked us to come back later (1012 restart, 1013 try later): do not begin with the shortest wait.
      failures = wasGood ? (isAsked ? 2 : 0) : failures + 1;
      this.#setState("offline");
      await this.#pause(Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** failures));
    }
  }

  /** One socket from its opening to its end. Never rejects. */
  #session() {
    return new Promise((resolve) => {
      const begun = Date.now();
      let heardAt = begun;
      let liveAt = Infinity;
      let socket;
      let asked;
      const end = ({ reset, code } = {}) => {
        clearInterval(watch);
        this.#socket = null;
        this.#endSession = () => {};
        if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
        socket?.close();
        resolve({ reset, wasGood: Date.now() - liveAt > GOOD_AFTER_MS, isAsked: code === 1012 || code === 1013 });
      };
      const watch = setInterval(() => {
        const now = Date.now();
        const isOpen = socket.readyState === WebSocket.OPEN;
        const waits = [...this.#unanswered.values()];
        const isUnanswered = waits.some(({ writtenAt }) => writtenAt && now - writtenAt > ANSWER_MAX_MS);
        // Silence counts from the last frame, so that a computer that slept finds out within one round.
        if (isOpen ? isUnanswered || now - heardAt > SILENCE_MAX_MS : now - begun > ANSWER_MAX_MS) end();
      }, WATCH_EVERY_MS);
      this.#endSession = end;
      try {
        asked = this.#topics;
        socket = new WebSocket(this.#url());
      } catch (error) {
        console.error(error);
        end();
        return;
      }
      socket.onopen = () => {
        this.#socket = socket;
        this.#isReady = false;
        this.#setState("catching-up");
        this.#asked = [];
        // What was followed or left while the socket was opening.
        for (const topic of without(asked, this.#topics)) this.#ask("unsubscribe", topic);
        for (const topic of without(this.#topics, asked)) this.#ask("subscribe", topic);
        // What the last socket was given may have got lost with it.
        for (const waiting of this.#unanswered.values()) waiting.writtenAt = 0;
        this.#writeAll();
      };
      socket.onmessage = ({ data }) => {
        heardAt = Date.now();
        const frame = JSON.parse(data);
        if (frame.type === "ready") liveAt = heardAt;
        if (frame.type === "reset") end({ reset: frame });
        else this.#receive(frame);
      };
      socket.onclose = end;
    });
  }

  #receive(frame) {
    const on = this.#options;
    switch (frame.type) {
      case "created":
        on.onCreated?.(frame.message, frame);
        this.#settle(frame.message.id);
        break;
      case "updated":
        on.onUpdated?.(frame.message, frame);
        break;
      case "deleted":
        on.onDeleted?.(frame.id, frame);
        break;
      case "sent":
        this.#settle(frame.id);
        break;
      case "error":
        if (!frame.id) this.#refuse(this.#asked.shift(), frame.problem);
        // Its `created` may have come first: then it is stored, whatever its insert could not say.
        if (!frame.id || this.#unanswered.has(frame.id)) on.onError?.(frame.problem, frame.id, this.#refused(frame));
        break;
      case "unsubscribed":
        this.#asked.shift();
        break;
      case "subscribed":
        this.#asked.shift();
        on.onSubscribed?.(frame.topic, frame.cursor);
        break;
    }
    // After the handlers: the cursor says what was handed over.
    if (frame.cursor) this.cursor = frame.cursor;
    if (frame.type === "ready") {
      this.#isReady = true;
      this.#setState("live");
    }
    // The server lost sight of the database, or found it again.
    if (frame.stream && this.#isReady) this.#setState(frame.stream === "live" ? "live" : "catching-up");
  }

  /** Loads the history again after a gap. Says whether there is a place to go on from. */
  async #rejoin(reset) {
    try {
      this.cursor = (await this.#options.onReset?.(reset)) ?? reset.cursor;
      return true;
    } catch (error) {
      // The old cursor stays, so the server will say `reset` again and this will be tried again.
      console.warn("The history could not be loaded:", error);
      return false;
    }
  }

  /** A message of ours is stored. */
  #settle(id) {
    if (!this.#unanswered.delete(id)) return;
    if (this.#refusals > 0) {
      this.#refusals = 0;
      this.#writeAll();
    }
    this.#options.onSent?.(id);
  }

  /** A message of ours was refused. Says whether it will be repeated. */
  #refused({ id, problem }) {
    const waiting = this.#unanswered.get(id);
    if (!waiting) return false;
    if (problem.status !== 429 && problem.status !== 503) {
      this.forget(id);
      return false;
    }
    waiting.writtenAt = 0;
    if (this.#repeatTimer) return true;
    const bound = Math.min(BACKOFF_MAX_MS, REPEAT_FIRST_MS * 2 ** this.#refusals);
    this.#refusals += 1;
    // Half of it at least: whoever is asked to wait should not come back at once.
    this.#repeatTimer = setTimeout(() => this.#writeAll(), bound * (0.5 + Math.random() / 2));
    return true;
  }

  /** Writes what is not on its way, in the order of sending. */
  #writeAll() {
    clearTimeout(this.#repeatTimer);
    this.#repeatTimer = 0;
    for (const [id, { writtenAt }] of this.#unanswered) {
      if (!writtenAt) this.#write(id);
      // What comes after a message that was refused must not overtake it.
      if (this.#refusals > 0) return;
    }
  }

  #write(id) {
    const waiting = this.#unanswered.get(id);
    waiting.writtenAt = this.#tell(waiting.frame) ? Date.now() : 0;
  }

  #leave() {
    this.#isLeft = true;
    this.#endSession();
  }

  #comeBack() {
    this.#isLeft = false;
    this.#wake();
  }

  #ask(type, topic) {
    if (this.#tell({ type, ...topic })) this.#asked.push({ type, topic });
  }

  /** A topic that is refused for good, as one too many, is let go: with it no socket would open any more. */
  #refuse(asked, { status }) {
    if (asked?.type === "subscribe" && status === 422) this.#topics = without(this.#topics, [asked.topic]);
  }

  #tell(frame) {
    this.#socket?.send(JSON.stringify(frame));
    return this.#socket !== null;
  }

  #url() {
    const url = new URL(this.#options.url ?? socketUrl(), import.meta.url);
    url.protocol = url.protocol.replace("http", "ws");
    for (const topic of this.#topics) {
      for (const [kind, name] of Object.entries(topic)) url.searchParams.append(kind, name);
    }
    const { here } = this.#options;
    // Said even when it is nowhere: saying nothing means everywhere.
    for (const room of here?.length === 0 ? [""] : (here ?? [])) url.searchParams.append("here", room);
    if (this.cursor) url.searchParams.set("after", this.cursor);
    return url;
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.#options.onState?.(state);
  }

  /** Waits for so long, or for ever when that is `null`, or until somebody comes back. */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = ms === null ? 0 : setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }
}

/** Beside `client.js`; the page's own copy of it is a level deeper, in `static/`. */
function socketUrl() {
  return new URL("ws", import.meta.url).href.replace(/static\/ws$/, "ws");
}

function isSame(one, other) {
  return one.room === other.room && one.inbox === other.inbox && one.all === other.all;
}

/** The topics that are not among the others. */
function without(topics, others) {
  return topics.filter((topic) => !others.some((other) => isSame(topic, other)));
}
