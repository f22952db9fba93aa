// Reads an AsyncAPI document with the official parser: `node asyncapi.cjs FILE`.
// Prints what the parser has to say about it, and its channels, as one JSON object.
'use strict';

const { readFileSync } = require('node:fs');
const { Parser } = require('@asyncapi/parser');

async function main(file) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, 'utf8'));
  const channels = document?.channels().all().map((channel) => channel.address()) ?? [];
  const said = diagnostics.map(({ code, message, path, severity }) => ({ code, message, path: path.join('.'), severity }));
  console.log(JSON.stringify({ diagnostics: said, channels }));
}

main(process.argv[2]);
