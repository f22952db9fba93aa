// Prints 200,000 ids of the browser module: `node ids.cjs CLIENT_JS`. In their middle the clock steps back by a minute.
'use strict';

const { readFileSync } = require('node:fs');

const source = readFileSync(process.argv[2], 'utf8');

import('data:text/javascript,' + encodeURIComponent(source)).then(({ newId }) => {
  const ids = [];
  const { now } = Date;
  for (let n = 0; n < 200_000; n += 1) {
    if (n === 100_000) Date.now = () => now() - 60_000;
    ids.push(newId());
  }
  process.stdout.write(ids.join('\n') + '\n');
});
