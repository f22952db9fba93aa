// Writes a message into MongoDB with Mongoose, then shows what anybody writes, until it is stopped.
//   npm install mongoose
//   URI='mongodb://…' node mongoose_chat.mjs
import mongoose from "mongoose";

// Mongoose makes the collection `messages` out of the name.
const Message = mongoose.model(
  "Message",
  new mongoose.Schema({
    content: { type: String, required: true, maxlength: 4000 },
    sender: { type: String, required: true, trim: true, maxlength: 64 },
    recipient: { type: String, trim: true, maxlength: 64 },
    room: { type: String, trim: true, maxlength: 64 },
    date: { type: Date, default: Date.now },
  }),
);

// What others write must not steer this terminal, nor begin a line in the name of somebody else.
const plain = (text) => String(text).replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\uFFFD");

await mongoose.connect(process.env.URI);
const stream = Message.watch([{ $match: { operationType: "insert" } }]);
stream.on("change", ({ fullDocument: { sender, content } }) => console.log(plain(`${sender}: ${content}`)));
// First look, then write: so it sees its own message, too. (At "ready" MongoDB may not have been asked yet; the first
// token comes with its first answer.)
stream.once("resumeTokenChanged", () => Message.create({ content: "Hola desde Mongoose", sender: "Nora", room: "general" }));
