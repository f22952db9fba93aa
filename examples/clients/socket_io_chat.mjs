// Follows a room with Socket.IO and sends a message to it. It comes back by itself and misses nothing.
//   npm install socket.io-client
//   node socket_io_chat.mjs
import { io } from "socket.io-client";

// What others write must not steer this terminal, nor begin a line in the name of somebody else.
const plain = (text) => String(text).replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\uFFFD");
const sayRefusal = ({ problem }) => problem && console.error(plain(`refused: ${problem.detail}`));

let cursor; // the place in the stream, for when the connection breaks
const socket = io(process.env.SERVER ?? "http://127.0.0.1:3000", { auth: (give) => give({ after: cursor }) });

socket.on("connect", () => socket.emit("subscribe", { room: "general" }, sayRefusal));
socket.on("created", ({ message }) => console.log(plain(`${message.sender}: ${message.content}`)));
socket.on("reset", () => console.log("some messages may be missing: load GET /api/messages?room=general"));
socket.onAny((name, frame) => (cursor = frame.cursor ?? cursor));

socket.once("ready", () => {
  const message = { room: "general", sender: "Sofía", content: "Hola desde Socket.IO" };
  socket.emit("message", message, sayRefusal);
});
