/** The page /status: asks the server every few seconds how it is, and shows that. */

import { addressOf, base, fill, locale, texts } from "./page.js";
import { plot } from "./plot.js";

const EVERY_MS = 5_000;
const ANSWER_MS_MAX = 10_000;
const SHOWN_MS = 15 * 60_000;

const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const decimal = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

const count = (value) => (value > 0 && value < 100 && value % 1 ? decimal : whole).format(value);

/** Seconds as people read them: 3.2 ms, 45 ms, 1.2 s, 3 min. */
function duration(seconds) {
  if (seconds === undefined) return "–";
  if (seconds < 0.01) return `${decimal.format(seconds * 1_000)}\u00a0ms`;
  if (seconds < 1) return `${whole.format(seconds * 1_000)}\u00a0ms`;
  if (seconds < 120) return `${decimal.format(seconds)}\u00a0s`;
  return `${whole.format(seconds / 60)}\u00a0min`;
}

const words = (format, least) => ({
  format,
  least,
  time: (at) => clock.format(at),
  ago: (minutes) => (minutes === 0 ? texts.now : fill(texts.minutes_ago, { minutes })),
  label: (now, most) => fill(texts.plot_label, { now, most }),
});

const line = (of, name = "first") => ({ of, class: name });
const plots = [
  ["lag", [line((sample) => sample.lag_seconds)], words(duration, 0.01)],
  ["delay", [line((sample) => sample.delay_median_seconds), line((sample) => sample.delay_p99_seconds, "second")], words(duration, 0.01)],
  ["traffic", [line((sample) => sample.deliveries_per_second), line((sample) => sample.messages_per_second, "second")], words(count, 2)],
  ["connections", [line((sample) => sample.connections)], words(count, 2)],
].map(([id, lines, said]) => plot(document.getElementById(`plot-${id}`), lines, said));

let samples = [];
let startedAt;
let heardAt = Date.now();

async function look() {
  const newest = samples.at(-1)?.at;
  const query = newest === undefined ? "" : `?after=${encodeURIComponent(newest)}`;
  const answer = await fetch(addressOf(`${base}/api/status${query}`), { signal: AbortSignal.timeout(ANSWER_MS_MAX), cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const status = await answer.json();
  if (status.servers[0].started_at !== startedAt && startedAt !== undefined) {
    // Another process answers, behind the same address: its past is another one.
    startedAt = undefined;
    samples = [];
    return look();
  }
  startedAt = status.servers[0].started_at;
  heardAt = Date.now();
  show(status);
}

function show(status) {
  const now = Date.parse(status.at);
  samples.push(...status.samples.map((sample) => ({ ...sample, time: Date.parse(sample.at) })));
  samples = samples.filter((sample) => sample.time > now - SHOWN_MS);
  verdict(status.stream.replace(" ", "_"));
  write("lag", duration(status.lag_seconds));
  showDelay(samples.findLast((sample) => sample.delay_median_seconds !== undefined));
  write("messages", count(status.messages_per_second));
  write("deliveries", count(status.deliveries_per_second));
  write("open", whole.format(status.connections.reduce((sum, one) => sum + one.count, 0)));
  write("behind", whole.format(status.readers_behind));
  document.getElementById("plots").hidden = false;
  for (const one of plots) one.show(samples, now - SHOWN_MS, now, status.sample_seconds * 3_000);
  rows("servers", status.servers, serverRow);
  rows("rooms", status.rooms, roomRow);
  rows("transports", status.connections, ({ name, count: of }) => row(head(name), number(whole.format(of))));
  rows("invalid", status.invalid_documents, ({ name, count: of }) => row(head(make("code", name)), number(whole.format(of))));
}

function verdict(state, values = {}) {
  const box = document.getElementById("verdict");
  // What is read out must not be read out again when nothing has changed.
  if (box.dataset.state !== state) box.dataset.state = state;
  write("word", texts[state]);
  write("sentence", fill(texts[`${state}_text`], values));
}

function showDelay(sample) {
  const delay = document.getElementById("delay");
  const p99 = fill(texts.p99, { delay: duration(sample?.delay_p99_seconds) });
  delay.replaceChildren(duration(sample?.delay_median_seconds), ...(sample ? [make("small", p99)] : []));
}

function serverRow(server) {
  const state = server.stream.replace(" ", "_");
  const name = head(server.name, ...(server.is_this ? [" ", make("span", texts.this_server, "this")] : []), " ", make("span", server.version, "version"));
  const stateCell = make("td", texts[state] ?? server.stream, "state");
  stateCell.dataset.state = state;
  const heard = server.is_this ? texts.now : fill(texts.seconds_ago, { seconds: whole.format(server.said_seconds_ago) });
  return row(
    name,
    stateCell,
    number(duration(server.lag_seconds)),
    number(whole.format(server.connections)),
    number(count(server.deliveries_per_second)),
    make("td", dateTime.format(Date.parse(server.started_at))),
    make("td", heard),
  );
}

function roomRow({ room, messages, here }) {
  const link = make("a", room);
  link.href = `${base}/rooms/${encodeURIComponent(room)}`;
  link.dir = "auto";
  return row(head(link), number(whole.format(messages)), number(whole.format(here)));
}

/** Puts the rows of `items` into a table, or the words that it has for none. */
function rows(id, items, rowOf) {
  const body = document.getElementById(id);
  const made = items.map(rowOf);
  if (made.length === 0) {
    const none = make("td", body.dataset.none, "none");
    none.colSpan = body.parentElement.tHead.rows[0].cells.length;
    made.push(row(none));
  }
  // A link that has the focus keeps it.
  const focused = body.contains(document.activeElement) ? document.activeElement.textContent : null;
  body.replaceChildren(...made);
  if (focused !== null) [...body.querySelectorAll("a")].find((link) => link.textContent === focused)?.focus();
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function head(...content) {
  const made = document.createElement("th");
  made.scope = "row";
  made.append(...content);
  return made;
}

const number = (content) => make("td", content, "number");

function make(name, content, className = "") {
  const made = document.createElement(name);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

function write(id, content) {
  const element = document.getElementById(id);
  if (element.textContent !== content) element.textContent = content;
}

let isLooking = false;

async function lookAgain() {
  if (isLooking || document.visibilityState !== "visible") return;
  isLooking = true;
  try {
    await look();
  } catch {
    verdict("unreachable", { time: clock.format(heardAt) });
  } finally {
    isLooking = false;
  }
}

lookAgain();
setInterval(lookAgain, EVERY_MS);
document.addEventListener("visibilitychange", lookAgain);
addEventListener("online", lookAgain);
