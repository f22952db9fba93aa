/**
 * The page `/docs/realtime`: one bare WebSocket, and every frame of it in either direction. Unlike `client.js` it
 * repeats nothing and does not come back by itself, so that what the protocol does can be seen.
 */

import { locale, storage, texts } from "./page.js";

const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const element = (id) => document.getElementById(id);
const [connect, message, raw] = ["connect", "message", "raw"].map(element);
const [wire, lines, banner] = ["wire", "lines", "connection"].map(element);

/** So many frames are shown; the oldest go first. */
const LINES_MAX = 300;

let socket = null;

show("closed");
element("sender").value = storage.get("name") ?? "";

connect.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket) socket.close(1000);
  else open();
});
element("follow").addEventListener("click", () => send({ type: "subscribe", ...topic() }));
element("unfollow").addEventListener("click", () => send({ type: "unsubscribe", ...topic() }));
connect.elements.kind.addEventListener("change", () => {
  connect.elements.name.disabled = connect.elements.kind.value === "all";
});
message.addEventListener("submit", (event) => {
  event.preventDefault();
  const { kind, name, sender, content } = message.elements;
  send({ type: "send", [kind.value]: name.value, sender: sender.value, content: content.value, id: newId() });
  content.value = "";
  content.focus();
});
raw.addEventListener("submit", (event) => {
  event.preventDefault();
  const { frame } = raw.elements;
  let value;
  try {
    value = JSON.parse(frame.value);
  } catch {
    complain(texts.not_json);
    return;
  }
  complain("");
  send(value);
});
raw.elements.frame.addEventListener("input", () => complain(""));
element("clear").addEventListener("click", () => lines.replaceChildren());
for (const button of document.querySelectorAll("[data-frame]")) {
  button.addEventListener("click", () => {
    const { frame } = raw.elements;
    frame.value = button.dataset.frame;
    complain("");
    frame.focus();
    frame.scrollIntoView({ block: "center" });
  });
}

function open() {
  const url = new URL("../ws", import.meta.url);
  url.protocol = url.protocol.replace("http", "ws");
  for (const [name, value] of Object.entries(topic())) url.searchParams.set(name, value);
  if (connect.elements.after.value) url.searchParams.set("after", connect.elements.after.value.trim());
  show("connecting");
  socket = new WebSocket(url);
  socket.onopen = () => {
    add(say(texts.opened.replace("{url}", decodeURI(url))));
    show("catching_up");
  };
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.cursor) connect.elements.after.value = frame.cursor;
    if (frame.type === "ready") show("live");
    if (frame.stream) show(frame.stream === "live" ? "live" : "catching_up");
    add(row(frame, false));
  };
  socket.onclose = ({ code, reason }) => {
    socket = null;
    add(say(texts.ended.replace("{code}", code).replace("{reason}", reason)));
    show("closed");
  };
}

/** What the form names, as a frame has it. */
function topic() {
  const { kind, name } = connect.elements;
  return kind.value === "all" ? { all: true } : { [kind.value]: name.value };
}

function send(frame) {
  socket?.send(JSON.stringify(frame));
  add(row(frame, true));
}

function show(state) {
  banner.textContent = texts[state];
  banner.dataset.state = { live: "live", closed: "offline" }[state] ?? state;
  const isOpen = state === "live" || state === "catching_up";
  for (const button of document.querySelectorAll("#follow, #unfollow, #message button, #raw button")) {
    button.disabled = !isOpen;
  }
  const toggle = element("toggle");
  toggle.textContent = state === "closed" ? toggle.dataset.connect : toggle.dataset.disconnect;
}

/** One frame: its type and what it is about on a line, and all of it when that is opened. */
function row(frame, isOut) {
  const line = made("li", `line ${isOut ? "out" : "in"}`);
  if (frame?.type === "error" || frame?.type === "reset") line.classList.add("wrong");
  const [details, summary] = [made("details"), made("summary")];
  const way = made("span", "way", isOut ? "→" : "←");
  way.setAttribute("aria-hidden", "true");
  const at = made("time", "at", clock.format(new Date()));
  summary.append(way, made("code", "type", String(frame?.type ?? "?")), made("span", "gist", gist(frame)), at);
  const json = made("pre");
  json.append(made("code", "", JSON.stringify(frame, null, 2)));
  details.append(summary, json);
  line.append(details);
  return line;
}

/** What a frame is about, in a few words. */
function gist(frame) {
  const { message: told, topics, topic: one, problem, stream, reason, content, id, cursor } = frame ?? {};
  if (told) return `${told.sender}: ${told.content}`;
  if (problem) return problem.detail;
  if (content !== undefined) return content;
  const named = one ?? topics?.[0] ?? frame;
  const place = Object.entries(named ?? {}).filter(([name]) => ["room", "inbox", "all"].includes(name)).flat().join(" ");
  return [place, reason, stream, id].filter(Boolean).join(" · ") || (cursor ?? "");
}

/** A word about the connection. */
function say(text) {
  return made("li", "line word", text);
}

function add(line) {
  const isAtEnd = wire.scrollHeight - wire.clientHeight - wire.scrollTop < 40;
  lines.append(line);
  while (lines.children.length > LINES_MAX) lines.firstChild.remove();
  if (isAtEnd) wire.scrollTop = wire.scrollHeight;
}

function complain(text) {
  element("raw-error").textContent = text;
  if (text) raw.elements.frame.setAttribute("aria-invalid", "true");
  else raw.elements.frame.removeAttribute("aria-invalid");
}

function made(name, className = "", text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

/** An ObjectId: four bytes of seconds and eight random ones. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  new DataView(bytes.buffer).setUint32(0, Date.now() / 1000);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
