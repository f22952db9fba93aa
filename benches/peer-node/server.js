// The chat of the classic challenge, written the way its tutorials do it: Express takes a POST, Mongoose saves it, and
// Socket.IO tells the room. With --change-stream nothing is told by the request; what MongoDB's change stream shows is.
//
//   MONGODB_URI=... PORT=3100 node server.js [--change-stream]

import { createServer } from "node:http";
import express from "express";
import mongoose from "mongoose";
import { Server } from "socket.io";

const { MONGODB_URI, PORT = "0" } = process.env;
if (!MONGODB_URI) {
  console.error("Set MONGODB_URI to a replica set.");
  process.exit(1);
}
const byChangeStream = process.argv.includes("--change-stream");

const Message = mongoose.model(
  "Message",
  new mongoose.Schema({
    content: { type: String, required: true, maxlength: 4000 },
    sender: { type: String, required: true, trim: true, maxlength: 64 },
    recipient: { type: String, trim: true, maxlength: 64 },
    room: { type: String, trim: true, maxlength: 64, default: "general" },
    date: { type: Date, default: Date.now },
  }),
);

// The same durability as Corriente's: a message that is acknowledged is on the disks of a majority.
await mongoose.connect(MONGODB_URI, { dbName: "corriente", writeConcern: { w: "majority", j: true } });
await Message.createCollection();

const app = express();
app.use(express.json());
const server = createServer(app);
const io = new Server(server, { serveClient: false });

io.on("connection", (socket) => {
  socket.on("subscribe", ({ room }, acknowledge) => {
    socket.join(room);
    acknowledge?.({ topic: { room } });
  });
});

const tell = (message) => io.to(message.room).emit("message", message);

app.post("/messages", async (request, response) => {
  const message = await Message.create(request.body);
  if (!byChangeStream) tell(message.toJSON());
  response.status(201).json(message);
});

app.use((error, _request, response, _next) => {
  const isInvalid = error instanceof mongoose.Error.ValidationError;
  response.status(isInvalid ? 422 : (error.status ?? 500)).json({ error: error.message });
});

if (byChangeStream) {
  Message.watch([{ $match: { operationType: "insert" } }]).on("change", ({ fullDocument }) => tell(fullDocument));
}

server.listen(Number(PORT), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
