// Follows a room with Socket.IO and sends a message to it. It comes back by itself and misses nothing.
//   npm install socket.io-client
//   node socket_io_chat.mjs
import { io } from "socket.io-client";

let cursor; // the place in the stream, for when the connection breaks
const socket = io(process.env.SERVER ?? "http://127.0.0.1:3000", { auth: (give) => give({ after: cursor }) });

socket.on("connect", () => socket.emit("subscribe", { room: "general" }));
socket.on("created", ({ message }) => console.log(`${message.sender}: ${message.content}`));
socket.on("reset", () => console.log("some messages may be missing: load GET /api/messages?room=general"));
socket.onAny((name, frame) => (cursor = frame.cursor ?? cursor));

socket.once("ready", () => {
  const message = { room: "general", sender: "Sofía", content: "Hola desde Socket.IO" };
  socket.emit("message", message, ({ problem }) => problem && console.error(problem.detail));
});
