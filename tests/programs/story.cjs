// A program of somebody else's that follows a room and an inbox: `node story.cjs TRANSPORT URL AFTER`.
// Prints, at the message `end`, what it shows by then and how many frames of each kind have come, as one JSON object.
'use strict';

const [, , transport, url, after] = process.argv;
const messages = {};
const kinds = {};
let cursor = after;

/** Applies a frame by its id. Says whether it was the last. */
function apply(frame) {
  if (!['ready', 'position'].includes(frame.type)) kinds[frame.type] = (kinds[frame.type] ?? 0) + 1;
  if (frame.message) messages[frame.message.id] = frame.message;
  if (frame.type === 'deleted') delete messages[frame.id];
  cursor = frame.cursor;
  return frame.message?.content === 'end';
}

function end() {
  console.log(JSON.stringify({ messages, kinds }));
  process.exit();
}

/** The package does not reconnect by itself. */
function webSocket() {
  const WebSocket = require('ws');
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws?room=general&inbox=Luis&after=${cursor}`);
  socket.on('message', (text) => apply(JSON.parse(text)) && end());
  socket.on('error', () => {});
  socket.on('close', () => setTimeout(webSocket, 100));
}

function eventSource() {
  const { EventSource } = require('eventsource');
  const source = new EventSource(`${url}/api/events?room=general&inbox=Luis&after=${after}`);
  for (const kind of ['created', 'updated', 'deleted', 'ready', 'position', 'reset']) {
    source.addEventListener(kind, ({ data }) => apply(JSON.parse(data)) && end());
  }
}

function socketIo(transports) {
  const { io } = require('socket.io-client');
  const socket = io(url, { transports, reconnectionDelay: 100, auth: (give) => give({ after: cursor }) });
  socket.on('connect', () => {
    socket.emit('subscribe', { room: 'general' });
    socket.emit('subscribe', { inbox: 'Luis' });
  });
  for (const kind of ['created', 'updated', 'deleted', 'ready', 'position', 'reset']) {
    socket.on(kind, (frame) => apply(frame) && end());
  }
}

const start = {
  websocket: webSocket,
  sse: eventSource,
  'socket.io': () => socketIo(['polling', 'websocket']),
  polling: () => socketIo(['polling']),
};
start[transport]();
