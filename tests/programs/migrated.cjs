// Runs the two programs of docs/migrating-from-socket-io.md as they stand there:
// `node migrated.cjs PAGE SERVER MONGODB_URI DATABASE`. Prints all that was shown and hidden, and what is left.
'use strict';

const { readFileSync } = require('node:fs');
const { io } = require('socket.io-client');
const mongoose = require('mongoose');

const [, , page, server, uri, dbName] = process.argv;
const AsyncFunction = (async () => {}).constructor;

/** The code block of this name. */
function block(name) {
  const found = readFileSync(page, 'utf8').match(new RegExp('```js ' + name + '\\n([^]*?)```'));
  return found[1].replace('http://127.0.0.1:3000', server);
}

async function main() {
  const shown = new Map();
  const seen = [];
  const until = async (what, holds) => {
    for (let waited = 0; !holds(); waited += 10) {
      if (waited > 15_000) throw new Error(`${what}: ${JSON.stringify(seen)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const show = (message) => {
    seen.push(message.content);
    shown.set(message.id, message.content);
  };
  const hide = (id) => {
    seen.push(`- ${shown.get(id)}`);
    shown.delete(id);
  };
  const alert = (words) => seen.push(`! ${words}`);
  const code = `${block('front-end')}\nreturn { send, socket };`;
  const { send, socket } = await new AsyncFunction('io', 'show', 'hide', 'alert', code)(io, show, hide, alert);
  send('from the page', 'Ana');
  send('', 'Ana');
  await until('the first message and a complaint', () => seen.length >= 3);
  await mongoose.connect(uri, { dbName });
  await new AsyncFunction('mongoose', block('mongoose'))(mongoose);
  await until('the last deletion', () => seen.includes('- soon gone'));
  socket.close();
  await mongoose.disconnect();
  console.log(JSON.stringify({ seen, shown: [...shown.values()] }));
}

main();
