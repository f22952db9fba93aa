/** The page of a room or an inbox, made live: what the server rendered stays, and what happens next is put in. */

import { connect, newId } from "./client.js";
import { Composer } from "./composer.js";
import { Outbox } from "./outbox.js";
import { fill, locale, storage, texts } from "./page.js";
import { Timeline } from "./timeline.js";

/** Above this many rows the page lets go of all but the newest ones, when its reader is at the end. */
const ROWS_MAX = 1_000;
const PAGE_MESSAGES = 50;
/** A stored message that is not shown by then was deleted at once, or came before a reload. */
const ECHO_MAX_MS = 10_000;

const element = (id) => document.getElementById(id);
const { room, inbox, cursor, before } = element("chat").dataset;
const topic = room === undefined ? { inbox } : { room };
const place = new URLSearchParams(topic).toString();
const [log, scroller, jump] = [element("log"), element("scroller"), element("jump")];
/** How many messages came while the reader was elsewhere in the conversation. */
let unseen = 0;

const timeline = new Timeline({ scroller, log, list: element("rows"), before, onNew: showNew });
const form = element("composer");
// A page that loads itself again is for readers without a script.
if (!form) location.replace(location.pathname);
else if (cursor) start();
// A page of older messages is not live; its form works as without a script.
else form.elements.sender.value ||= storage.get("name") ?? "";

function start() {
  const outbox = new Outbox({ list: element("outbox"), place, onRetry: send, onDelete: () => composer.say("") });
  const composer = new Composer({
    form,
    place: topic,
    key: place,
    onWritten: (written) => send({ ...(written.recipient ? {} : topic), ...written, id: newId() }),
    onName: (name) => timeline.showOwner(name),
  });
  const older = olderButton();
  /** Changes since an older page was asked for: that page may not know them. */
  let journal = null;
  let isTrimming = false;

  const connection = connect({
    topics: [topic],
    after: cursor,
    onCreated: upsert,
    onUpdated: upsert,
    onDeleted(id) {
      apply({ id });
      outbox.remove(id);
    },
    onState: showState,
    onReset: reload,
    onSent(id) {
      const message = outbox.confirm(id);
      if (!message) return;
      const comes = isShownHere(message) && !timeline.has(id);
      setTimeout(() => outbox.remove(id), comes ? ECHO_MAX_MS : 0);
      // Nothing else on this page will tell that it arrived.
      if (!isShownHere(message)) composer.say(...sentTo(message));
    },
    onError(problem, id) {
      const reason = reasonOf(problem);
      if (id) outbox.fail(id, reason);
      composer.say(reason, { isError: true });
    },
  });
  outbox.restore((id) => timeline.has(id));

  function send(message) {
    composer.say("");
    outbox.add(message, connection.state !== "offline");
    connection.send(message);
    timeline.scrollToEnd();
  }

  function upsert(message) {
    apply({ message });
    if (!outbox.has(message.id)) return;
    // Both at once: the row that was waiting becomes a row of the conversation.
    timeline.flush();
    outbox.remove(message.id);
  }

  function apply(change) {
    journal?.push(change);
    if (change.message) timeline.upsert(change.message);
    else timeline.remove(change.id);
    if (timeline.size > ROWS_MAX && timeline.isAtEnd && !isTrimming) trim();
  }

  /** Asks for the newest page to learn where the messages before it are found: those are then let go. */
  async function trim() {
    isTrimming = true;
    try {
      const page = await history({ since: connection.cursor });
      if (page.before && page.messages.length > 0 && timeline.isAtEnd) timeline.keepFrom(page.messages[0], page.before);
      showOlder();
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
    banner.textContent = { live: texts.live, offline: texts.offline }[state] ?? texts.catching_up;
    outbox.showConnected(state !== "offline");
  }

  async function reload() {
    const page = await history({});
    journal = null;
    timeline.replace(page.messages, page.before);
    for (const { id } of page.messages) outbox.remove(id);
    showOlder();
    return page.cursor;
  }

  async function loadOlder() {
    if (journal || !timeline.before) return;
    const changes = (journal = []);
    older.textContent = texts.loading_older;
    log.setAttribute("aria-busy", "true");
    try {
      // At least as new as what this page has seen; what it sees meanwhile is applied once more on top.
      const page = await history({ before: timeline.before, since: connection.cursor });
      if (journal !== changes) return;
      timeline.prepend(page.messages, page.before);
      journal = null;
      changes.forEach(apply);
    } catch (error) {
      console.warn("Older messages could not be loaded:", error);
      sight.disconnect();
      log.setAttribute("aria-busy", "false");
      // Nor pressed by being in sight: somebody must want it.
      older.textContent = texts.older_failed;
      if (journal === changes) journal = null;
      return;
    }
    showOlder();
  }

  function showOlder() {
    log.setAttribute("aria-busy", "false");
    older.textContent = texts.older;
    older.parentElement.hidden = !timeline.before;
    // An observer tells of changes only: when the button is still in sight, it must look anew.
    sight.unobserve(older);
    sight.observe(older);
  }

  const sight = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && loadOlder(), {
    root: scroller,
    rootMargin: "300px 0px 0px",
  });
  older.addEventListener("click", loadOlder);
  showOlder();
}

async function history(parameters) {
  const query = new URLSearchParams({ ...topic, limit: PAGE_MESSAGES });
  for (const [name, value] of Object.entries(parameters)) if (value) query.set(name, value);
  const response = await fetch(`/api/messages?${query}`, { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return response.json();
}

/** The link to older messages, which works without a script, becomes a button that loads them in place. */
function olderButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = texts.older;
  element("older").replaceWith(button);
  return button;
}

function showNew(count, wasAtEnd) {
  if (wasAtEnd) return;
  unseen += count;
  showJump();
}

function showJump() {
  if (timeline.isAtEnd) unseen = 0;
  jump.hidden = timeline.isAtEnd;
  const isOne = new Intl.PluralRules(locale).select(unseen) === "one";
  jump.textContent = unseen === 0 ? texts.jump : fill(isOne ? texts.jump_one : texts.jump_other, { count: unseen });
}

function reasonOf(problem) {
  if (problem?.status === 429) return texts.error_too_many;
  if (problem?.status >= 500) return texts.error_unavailable;
  return fill(texts.error_refused, { reason: problem?.detail ?? problem?.title ?? "" });
}

function isShownHere({ sender, recipient }) {
  return inbox === undefined ? !recipient : sender === inbox || recipient === inbox;
}

function sentTo({ sender, recipient }) {
  const link = document.createElement("a");
  link.href = `/inbox/${encodeURIComponent(sender)}`;
  link.textContent = texts.open_inbox;
  return [fill(texts.sent_to, { recipient }), { link }];
}

scroller.addEventListener("scroll", showJump, { passive: true });
jump.addEventListener("click", () => {
  timeline.scrollToEnd();
  scroller.focus({ preventScroll: true });
});
