// A program of somebody else's that follows server-sent events: `node events.cjs URL`.
// Prints the contents that came before the message `end` as one JSON list. The package reconnects by itself.
'use strict';

const { EventSource } = require('eventsource');

const [, , url] = process.argv;
const contents = [];
const source = new EventSource(url);
source.addEventListener('created', ({ data, lastEventId }) => {
  const frame = JSON.parse(data);
  if (frame.cursor !== lastEventId) throw new Error(`${lastEventId} is not ${frame.cursor}`);
  if (frame.message.content === 'end') {
    source.close();
    console.log(JSON.stringify(contents));
  } else {
    contents.push(frame.message.content);
  }
});
source.addEventListener('reset', ({ data }) => {
  throw new Error(data);
});
