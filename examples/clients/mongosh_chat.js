// Writes a message into MongoDB with mongosh, mends it, and shows the newest ones:
//   mongosh "$URI" mongosh_chat.js
// The URI names the database. The chat shows each step as it happens.

const message = { content: "Hola desde mongosh", sender: "Marta", room: "general", date: new Date() };
const { insertedId } = db.messages.insertOne(message);
db.messages.updateOne({ _id: insertedId }, { $set: { content: "Hola desde mongosh, corregido" } });

// What others write must not steer this terminal, nor begin a line in the name of somebody else.
const plain = (text) => String(text).replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\uFFFD");

for (const { sender, content } of db.messages.find({ room: "general" }).sort({ date: -1 }).limit(5)) {
  print(plain(`${sender}: ${content}`));
}
