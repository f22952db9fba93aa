// A program of somebody else's that follows a room with Socket.IO: `node chat.cjs URL TRANSPORTS AFTER`.
// Prints the contents that came before the message `end` as one JSON list. The package reconnects by itself.
'use strict';

const { io } = require('socket.io-client');

const [, , url, transports, after] = process.argv;
const contents = [];
let cursor = after;

const socket = io(url, {
  transports: transports.split(','),
  reconnectionDelay: 100,
  // Asked for at each connection: the newest cursor.
  auth: (give) => give({ after: cursor }),
});
socket.on('connect', () => {
  socket.emit('subscribe', { room: 'general' }, ({ topic, problem }) => {
    if (problem || topic.room !== 'general') throw new Error(JSON.stringify(problem));
  });
});
for (const kind of ['ready', 'position']) {
  socket.on(kind, (frame) => {
    cursor = frame.cursor;
  });
}
socket.on('created', (frame) => {
  cursor = frame.cursor;
  if (frame.message.content === 'end') {
    socket.close();
    console.log(JSON.stringify(contents));
  } else {
    contents.push(frame.message.content);
  }
});
socket.on('reset', (frame) => {
  throw new Error(JSON.stringify(frame));
});
