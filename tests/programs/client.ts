// A program that was written against the types that openapi-typescript makes of our OpenAPI document: `node client.js URL`.
// It sends a message, sends it again, lists the room, and prints what it has seen as one JSON object. What does not fit the
// document does not compile.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Message = components["schemas"]["Message"];

const client = createClient<paths>({ baseUrl: process.argv[2] });
const body = { content: "desde un cliente generado", sender: "Gema", room: "general", id: "6745b2c3d4e5f60718293a4b" };

const first = await client.POST("/api/messages", { body });
const again = await client.POST("/api/messages", { body });
const refused = await client.POST("/api/messages", { body: { ...body, id: undefined, content: " " } });
const page = await client.GET("/api/messages", { params: { query: { room: "general", limit: 10 } } });
const one = await client.GET("/api/messages/{id}", { params: { path: { id: body.id } } });
const changes = await client.GET("/api/changes", { params: { query: { room: ["general"], after: "garbage" } } });
const here = await client.GET("/api/presence", { params: { query: { room: ["general"] } } });
const rooms = await client.GET("/api/rooms", { params: { query: { limit: 1 } } });

const messages: Message[] = page.data?.messages ?? [];
// A frame is told apart by its `type`, which the compiler knows.
const frames = (changes.data?.changes ?? []).map((frame) => (frame.type === "reset" ? frame.reason : frame.type));
console.log(
  JSON.stringify({
    statuses: [first, again, refused, page, one].map(({ response }) => response.status),
    fields: refused.error?.errors?.map(({ field }) => field),
    contents: messages.map(({ content }) => content),
    sender: one.data?.sender,
    frames,
    here: here.data?.rooms.map(({ room }) => room),
    newest: rooms.data?.rooms.map(({ newest }) => newest.id),
  }),
);
