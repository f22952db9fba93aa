/** The page of a room or an inbox, made live: what the server rendered stays, and what happens next is put in. */

import { connect, newId } from "./client.js";
import { Composer, noComposer } from "./composer.js";
import { offerSearch } from "./finder.js";
import { loadMessages } from "./history.js";
import { notify, offerNotifications } from "./notify.js";
import { Outbox } from "./outbox.js";
import { base, fill, storage, texts } from "./page.js";
import { Pager } from "./pager.js";
import { Places } from "./places.js";
import { showPresence } from "./presence.js";
import { Reading } from "./reading.js";
import { mentions } from "./text.js";
import { Timeline } from "./timeline.js";
import { keyOf } from "./unread.js";
import { Voice } from "./voice.js";

/** Above this many rows the page lets go of all but the newest ones, when its reader is at the end. */
const ROWS_MAX = 1_000;
/** A stored message that a live stream does not bring within this time was deleted at once, or came before a reload. */
const ECHO_MAX_MS = 10_000;

const element = (id) => document.getElementById(id);
const { room, inbox, cursor, before, after, topicsMax, refreshing } = element("chat").dataset;
const topic = room === undefined ? { inbox } : { room };
const place = keyOf(topic);
const form = element("composer");

// A page that loads itself again is for readers without a script.
if (refreshing !== undefined) location.replace(location.pathname);
else if (cursor) start();
// The messages could not be read: the form works as without a script.
else if (form) form.elements.sender.value ||= storage.get("name") ?? "";

function start() {
  const [log, scroller] = [element("log"), element("scroller")];
  const voice = new Voice({ log, news: element("news") });
  const timeline = new Timeline({ scroller, log, voice, list: element("rows"), before, after, onNew: showNew });
  const places = new Places({
    here: topic,
    topicsMax: Number(topicsMax),
    isForMe: (message) => isForMe(message),
    onCounts: () => reading.showDirect(places.direct),
  });
  /** Where reading ended the last time: said now, as looking at the page moves it. */
  const readUntil = places.unread.seen(place);
  const reading = new Reading({
    timeline,
    jump: element("jump"),
    onRead: () => timeline.newest && places.unread.read(place, timeline.newest.place),
  });
  const outbox = new Outbox({
    list: element("outbox"),
    place,
    previous: () => timeline.newest,
    onRetry: send,
    onDelete({ id }) {
      connection.forget(id);
      composer.say("");
    },
  });
  const onName = (name) => {
    timeline.showOwner(name);
    places.rename(inbox === undefined ? name : (storage.get("name") ?? inbox));
  };
  const onWritten = (written) => send({ ...(written.recipient ? {} : topic), ...written, id: newId() });
  // A server that is for reading only has no form on its pages.
  const composer = form ? new Composer({ form, place: topic, key: place, onWritten, onName }) : noComposer({ onName });
  /** Whose messages these are: those of who is signed in, and where nobody signs in an inbox is its owner's. */
  const reader = () => (form?.elements.sender.readOnly ? composer.name : (inbox ?? composer.name));
  let isTrimming = false;
  /** How often the stream was not live: in such a time it may owe us any message. */
  let lapses = 0;
  /** @type {Set<object[]>} For each newest page that was asked for: what happened since, which it may not know. */
  const journals = new Set();
  showWhereReadingEnded();

  const connection = connect({
    topics: places.topics,
    after: cursor,
    // The other rooms are followed for what is unread in them, and nobody is there.
    here: room === undefined ? [] : [room],
    onCreated(message) {
      upsert(message);
      places.add(message);
      if (isForMe(message)) notify(message, reader());
    },
    onUpdated: upsert,
    onDeleted(id) {
      apply({ id });
      outbox.remove(id);
      places.unread.remove(id);
    },
    onState: showState,
    onReset: reload,
    onSent(id) {
      const message = outbox.confirm(id);
      if (!outbox.hasFailed) composer.takeBackError();
      if (!message) return;
      if (isShownHere(message) && !timeline.has(id)) awaitEcho(id);
      else setTimeout(() => outbox.remove(id), 0);
      // Nothing else on this page will tell that it arrived.
      if (!isShownHere(message)) composer.say(...sentTo(message));
    },
    onError(problem, id, isRepeated) {
      const reason = reasonOf(problem);
      if (id) outbox.fail(id, isRepeated ? texts.unconfirmed : reason);
      composer.say(reason, { isError: true });
    },
  });
  const older = new Pager({
    timeline,
    link: element("older"),
    place: () => timeline.before,
    load: (place) => loadMessages({ ...topic, before: place, since: connection.cursor }),
    put: (page) => timeline.prepend(page.messages, page.before),
  });
  const newer = new Pager({
    timeline,
    link: element("newer"),
    place: () => timeline.after,
    load: (place) => loadMessages({ ...topic, after: place, since: connection.cursor }),
    put: (page) => timeline.append(page.messages, page.after),
  });
  // The button that jumps does the same, and is always there.
  element("newest").remove();
  offerSearch((id) => timeline.show(id));
  showLinkedMessage();
  outbox.restore((id) => timeline.has(id));
  places.start(connection);
  offerNotifications();
  showPresence(topic);
  element("jump").addEventListener("click", toNewest);
  document.addEventListener("keydown", (event) => {
    // (A drawer closes by itself.)
    if (event.defaultPrevented || event.isComposing || document.querySelector(":popover-open")) return;
    if (event.key === "Escape") {
      // Back to the end of the conversation and to the text, wherever the reader is.
      toNewest();
      if (location.search) history.replaceState(null, "", location.pathname);
      form?.elements.content.focus();
    } else if (event.key === "End" && !event.shiftKey && !isEditing(event.target)) {
      // By itself the key would stop at the end of the rows, where newer messages may be left out.
      event.preventDefault();
      toNewest();
    }
  });

  async function send(message) {
    composer.say("");
    outbox.add(message, connection.state !== "offline");
    connection.send(message);
    await toNewest();
  }

  /** Shows the newest messages: those that are here, or those that were left out. */
  async function toNewest() {
    timeline.flush();
    if (timeline.isCut) {
      try {
        await reload();
      } catch (error) {
        console.warn("The newest messages could not be loaded:", error);
        return;
      }
    }
    timeline.scrollToEnd();
    reading.look();
  }

  /** Keeps the row of a stored message until the message itself comes, for as long as it may come. */
  function awaitEcho(id) {
    const lapsesBefore = lapses;
    setTimeout(() => {
      if (!outbox.has(id)) return;
      if (connection.state === "live" && lapses === lapsesBefore) outbox.remove(id);
      else awaitEcho(id);
    }, ECHO_MAX_MS);
  }

  function upsert(message) {
    // The page follows other places too, and a message may move away to one of them.
    if (!isShownHere(message)) {
      apply({ id: message.id });
      return;
    }
    apply({ message });
    if (!outbox.has(message.id)) return;
    // Both at once: the row that was waiting becomes a row of the conversation.
    timeline.flush();
    outbox.remove(message.id);
  }

  function apply(change) {
    older.note(change);
    newer.note(change);
    for (const changes of journals) changes.push(change);
    show(change);
  }

  function show(change) {
    if (change.message) timeline.upsert(change.message);
    else timeline.remove(change.id);
    if (timeline.size > ROWS_MAX && timeline.isAtEnd && !timeline.isCut && !isTrimming) trim();
  }

  /** Asks for the newest page to learn where the messages before it are found: those are then let go. */
  async function trim() {
    isTrimming = true;
    try {
      const page = await loadMessages({ ...topic, since: connection.cursor });
      if (page.before && page.messages.length > 0 && timeline.isAtEnd) timeline.keepFrom(page.messages[0], page.before);
      older.show();
    } catch (error) {
      console.warn("The rows stay:", error);
    } finally {
      isTrimming = false;
    }
  }

  function showState(state) {
    // "Live" must not be said before what was missed is seen.
    timeline.flush();
    const banner = element("connection");
    banner.dataset.state = state;
    const detail = document.createElement("span");
    detail.className = "detail";
    if (state === "offline") detail.textContent = ` ${texts.offline_detail}`;
    banner.replaceChildren({ live: texts.live, offline: texts.offline }[state] ?? texts.catching_up, detail);
    if (state !== "live") lapses += 1;
    outbox.showConnected(state !== "offline");
  }

  async function reload() {
    const changes = [];
    journals.add(changes);
    const page = await loadMessages(topic).finally(() => journals.delete(changes));
    older.forget();
    newer.forget();
    timeline.replace(page.messages, page.before);
    changes.forEach(show);
    for (const { id } of page.messages) outbox.remove(id);
    older.show();
    newer.show();
    return page.cursor;
  }

  function showNew({ messages, first, wasAtEnd }) {
    outbox.follow();
    const others = messages.filter(({ sender }) => sender !== reader());
    if (others.length > 0) reading.came(others.length, first, wasAtEnd);
    else reading.look();
  }

  /** The line between what this browser has shown before and what is new to it. */
  function showWhereReadingEnded() {
    const row = timeline.find((row) => row.place > readUntil && row.article.dataset.sender !== reader());
    if (row) timeline.showUnreadFrom(row);
  }

  /** A link to one message leads to its row, here as on the server; one that is here already is only shown. */
  function showLinkedMessage() {
    const linked = new URLSearchParams(location.search).get("at");
    if (linked) timeline.show(linked);
    element("rows").addEventListener("click", (event) => {
      const link = event.target.closest("a.when");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      timeline.show(link.closest("article").dataset.id);
      history.replaceState(null, "", link.href);
      navigator.clipboard?.writeText(link.href).then(
        () => composer.say(texts.link_copied),
        () => {},
      );
    });
  }

  function isForMe({ sender, recipient, content }) {
    const name = reader();
    if (!name || sender === name) return false;
    return recipient ? recipient === name : mentions(content, name);
  }
}

/** Whether the keys that move within a text or a list have something to do there. */
function isEditing(target) {
  return Boolean(target.value) || target.closest?.("#places, #finder") != null;
}

function reasonOf(problem) {
  if (problem?.status === 429) return texts.error_too_many;
  if (problem?.status >= 500) return texts.error_unavailable;
  return fill(texts.error_refused, { reason: problem?.detail ?? problem?.title ?? "" });
}

/** Whether a message belongs to this page; its room may be told or, in one of ours, be that of the page. */
function isShownHere({ sender, recipient, room: other }) {
  if (inbox !== undefined) return Boolean(recipient) && (sender === inbox || recipient === inbox);
  return !recipient && other === room;
}

function sentTo({ sender, recipient }) {
  const link = document.createElement("a");
  link.href = `${base}/inbox/${encodeURIComponent(sender)}?to=${encodeURIComponent(recipient)}`;
  link.textContent = texts.open_inbox;
  return [fill(texts.sent_to, { recipient }), { link }];
}
