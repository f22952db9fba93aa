// A program of somebody else's that writes messages with Mongoose: `node writer.cjs URI DATABASE`.
// Prints the ids and dates of what it wrote as one JSON object.
'use strict';

const mongoose = require('mongoose');

const Message = mongoose.model(
  'Message',
  new mongoose.Schema({
    content: String,
    sender: String,
    recipient: String,
    date: { type: Date, default: Date.now },
  }),
);

async function main([uri, dbName]) {
  await mongoose.connect(uri, { dbName, appName: 'mongoose-writer' });
  const one = await Message.create({ content: 'one', sender: 'Ana' });
  const [two, three] = await Message.insertMany([
    { content: 'two', sender: 'Ana', recipient: 'Luis' },
    { content: 'three', sender: 'Luis', recipient: '' },
  ]);
  one.content = 'one, saved';
  await one.save();
  await Message.updateOne({ _id: three._id }, { content: 'three, edited' });
  await Message.replaceOne({ _id: two._id }, { content: 'two, replaced', sender: 'Ana', recipient: 'Luis' });
  await Message.updateOne({ _id: two._id }, { $unset: { recipient: 1 } });
  await Message.updateOne({ _id: three._id }, { recipient: 'Luis' });
  await Message.deleteOne({ _id: one._id });
  await Message.findByIdAndDelete(two._id);
  await Message.deleteMany({ sender: 'Luis' });
  const shown = (message) => ({ id: message.id, date: message.date.toISOString() });
  console.log(JSON.stringify({ one: shown(one), two: shown(two), three: shown(three) }));
  await mongoose.disconnect();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
