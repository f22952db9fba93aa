// Readers of somebody else's making that follow everything: `node fleet.cjs URL AFTER END`. One over server-sent events,
// one over Socket.IO as it upgrades, one over Socket.IO that polls. Prints, when each has seen a message with the content
// END, what it was told and how often it connected, as one JSON object.
'use strict';

const { EventSource } = require('eventsource');
const { io } = require('socket.io-client');

const [, , url, after, end] = process.argv;
const KINDS = ['created', 'updated', 'deleted', 'reset'];
const readers = {};

/** Takes note of a frame; when all readers have seen the last message, prints what they saw. */
function note(reader, frame) {
  reader.cursor = frame.cursor;
  if (frame.type === 'ready' || frame.type === 'position') return;
  reader.frames.push([frame.type, frame.cursor, frame.message?.id ?? frame.id ?? '']);
  reader.isDone ||= frame.message?.content === end;
  if (Object.values(readers).every(({ isDone }) => isDone)) {
    // It may be more than a pipe holds.
    process.stdout.write(`${JSON.stringify(readers)}\n`, () => process.exit());
  }
}

function eventSource() {
  const reader = (readers.sse = { frames: [], connections: 0, cursor: after });
  const source = new EventSource(`${url}/api/events?all=true&after=${after}`);
  source.addEventListener('open', () => (reader.connections += 1));
  for (const kind of [...KINDS, 'ready', 'position']) {
    source.addEventListener(kind, ({ data }) => note(reader, JSON.parse(data)));
  }
  // A proxy without a server to ask answers 503 itself, and an EventSource takes that for the end.
  source.addEventListener('error', ({ code }) => {
    if (source.readyState === EventSource.CLOSED) {
      console.error(`the event stream was refused: ${code}`);
      process.exit(1);
    }
  });
}

function socketIo(name, transports) {
  const reader = (readers[name] = { frames: [], connections: 0, cursor: after });
  const socket = io(url, { transports, reconnectionDelay: 100, forceNew: true, auth: (give) => give({ after: reader.cursor }) });
  socket.on('connect', () => {
    reader.connections += 1;
    // One topic: of several that are followed one by one, the first may be told again when the next one joins it late.
    socket.emit('subscribe', { all: true });
  });
  for (const kind of [...KINDS, 'ready', 'position']) socket.on(kind, (frame) => note(reader, frame));
}

eventSource();
socketIo('socket.io', ['polling', 'websocket']);
socketIo('polling', ['polling']);
