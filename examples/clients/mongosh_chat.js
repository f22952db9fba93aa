// Writes a message into MongoDB with mongosh, mends it, and shows the newest ones:
//   mongosh "$URI" mongosh_chat.js
// The URI names the database. The chat shows each step as it happens.

const message = { content: "Hola desde mongosh", sender: "Marta", room: "general", date: new Date() };
const { insertedId } = db.messages.insertOne(message);
db.messages.updateOne({ _id: insertedId }, { $set: { content: "Hola desde mongosh, corregido" } });

for (const { sender, content } of db.messages.find({ room: "general" }).sort({ date: -1 }).limit(5)) {
  print(`${sender}: ${content}`);
}
