//! `/asyncapi.yaml`: the realtime side as AsyncAPI 3.0 describes it, for tools that make clients and pages of it.
//!
//! Everything that can change with the code comes from it: the frames and their examples from the catalogue of
//! [`crate::sessions`], what a message and a problem are from the OpenAPI document. Only the channels are told here.

use serde_json::{Map, Value, json};

use crate::{
    base_path::BasePath,
    sessions::{CloseEntry, FrameEntry, Speaker, closes, frame_schemas, frames, schema_name},
};

/// The schemas that the frames share with the REST API.
const SHARED: [&str; 5] = ["Message", "NewMessage", "Topic", "Problem", "FieldError"];

/// The document, as YAML. `openapi` is the other one, which has some of the schemas; everything is below `base`.
pub fn document(openapi: &Value, base: &BasePath) -> String {
    let server = |protocol, description, tag| server(base, protocol, description, tag);
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Corriente, live",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INFO,
            "license": openapi["info"]["license"],
            "contact": openapi["info"]["contact"],
            "tags": [
                { "name": "websocket", "description": "`/ws`: follows and sends." },
                { "name": "sse", "description": "`/api/events`: server-sent events." },
                { "name": "socket.io", "description": "`/socket.io/`: Socket.IO 4 clients." },
            ],
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": server("ws", "For WebSockets.", "websocket"),
            "http": server("http", "For server-sent events.", "sse"),
            "socketIo": server("http", "For clients of Socket.IO, over WebSocket and polling.", "socket.io"),
        },
        "channels": {
            "websocket": websocket(),
            "events": events(),
            "socketIo": socket_io(),
        },
        "operations": operations(),
        "components": {
            "messages": messages(),
            "schemas": schemas(openapi),
        },
    });
    // A document has nothing in it that could fail to serialise.
    serde_yaml::to_string(&document).unwrap_or_default()
}

const INFO: &str = "\
A message that anybody writes, over any transport or straight into MongoDB, comes to everybody who follows its room or \
inbox, in one order. There is one subscription and several ways to carry it: frames and cursors are the same over all \
of them. Sending, reading and searching over plain HTTP is in `/openapi.yaml`; `/docs/realtime` is this document to be tried.

- **Join a page to the stream.** `GET /api/messages` gives messages and a `cursor`; connect with `after=` that cursor and \
nothing is missed.
- **Apply by id.** `created` and `updated` both put the message in as it is now, `deleted` takes it out. After a lost \
connection an event may come twice.
- **Keep the newest cursor**, of whatever frame, and come back with it, after a random wait below a bound that doubles \
with each failure, from half a second up to 15.
- **On `reset`**, load the history again and connect with its cursor.
- **Take 65 seconds of silence for a dead connection.**";

fn server(base: &BasePath, protocol: &str, description: &str, tag: &str) -> Value {
    let mut server = json!({
        "host": "{host}",
        "protocol": protocol,
        "description": description,
        "variables": { "host": { "default": "127.0.0.1:3000", "description": "Where the server listens." } },
        "tags": [{ "name": tag }],
    });
    if !base.as_str().is_empty() {
        server["pathname"] = base.as_str().into();
    }
    server
}

fn websocket() -> Value {
    let codes: Vec<Value> = closes()
        .map(|CloseEntry { code, reason, comes_back }| json!({ "code": code, "reason": reason, "reconnect": comes_back }))
        .collect();
    let mut query = topics_in_query();
    query["after"] =
        json!({ "type": "string", "description": "Go on after this cursor. Absent or empty: from now on." });
    query["here"] = json!({
        "type": "array",
        "items": { "type": "string" },
        "description": "In which of its rooms the client is counted as present: these and no others, and none when it is \
            empty. Absent: in all. May be repeated.",
    });
    json!({
        "address": "/ws",
        "title": "The WebSocket",
        "description": "JSON frames as text messages, told apart by `type`. Ignore types and fields that you do not know. \
            A connection may begin without a topic and follow some later. `x-close-codes` lists how the server ends it.",
        "servers": [{ "$ref": "#/servers/websocket" }],
        "messages": message_references(frames().iter()),
        "tags": [{ "name": "websocket" }],
        "bindings": {
            "ws": {
                "method": "GET",
                "query": { "type": "object", "properties": query },
                "bindingVersion": "0.1.0",
            },
        },
        "x-close-codes": codes,
    })
}

fn events() -> Value {
    json!({
        "address": "/api/events",
        "title": "Server-sent events",
        "description": "`event` is the frame's `type`, `data` the frame on one line, and `id` its cursor, which clients send \
            back as `Last-Event-ID`. At least one topic must be named.",
        "servers": [{ "$ref": "#/servers/http" }],
        "messages": message_references(told_as_events()),
        "tags": [{ "name": "sse" }],
    })
}

fn socket_io() -> Value {
    let mut messages = message_references(told_over_socket_io());
    for (name, ..) in SOCKET_IO {
        messages[name] = reference(&format!("#/components/messages/{name}"));
    }
    json!({
        "address": "/socket.io/",
        "title": "Socket.IO",
        "description": "Protocol 5, over WebSocket and polling, in the main namespace. From the server come events whose \
            name is the frame's `type` and whose one argument is the frame. What a client emits is acknowledged. \
            `auth: {after}` goes on after a cursor.",
        "servers": [{ "$ref": "#/servers/socketIo" }],
        "messages": messages,
        "tags": [{ "name": "socket.io" }],
    })
}

fn topics_in_query() -> Value {
    let names = |description| json!({ "type": "array", "items": { "type": "string" }, "description": description });
    json!({
        "room": names("Follow a room. May be repeated."),
        "inbox": names("Follow the direct messages that this person sent or received. May be repeated."),
        "all": { "type": "boolean", "description": "Follow every message there is." },
    })
}

/// From the side of the server: it sends what clients are told, and receives what they say.
fn operations() -> Value {
    let over = |channel: &str, kind: &str| reference(&format!("#/channels/{channel}/messages/{kind}"));
    let send = |channel: &str, title: &str, kinds: Vec<&str>| {
        json!({
            "action": "send",
            "title": title,
            "channel": reference(&format!("#/channels/{channel}")),
            "messages": kinds.into_iter().map(|kind| over(channel, kind)).collect::<Vec<_>>(),
        })
    };
    let receive = |channel: &str, title: &str, kind: &str, answers: &[&str]| {
        json!({
            "action": "receive",
            "title": title,
            "channel": reference(&format!("#/channels/{channel}")),
            "messages": [over(channel, kind)],
            "reply": {
                "channel": reference(&format!("#/channels/{channel}")),
                "messages": answers.iter().map(|answer| over(channel, answer)).collect::<Vec<_>>(),
            },
        })
    };
    let kinds = |frame: &'static FrameEntry| frame.kind;
    let told: Vec<&str> = told_as_events().map(kinds).collect();
    let mut events = send("events", "What happens is told as server-sent events", told.clone());
    let mut query = topics_in_query();
    query["after"] = json!({ "type": "string", "description": "Go on after this cursor, of any transport." });
    events["bindings"] = json!({
        "http": { "method": "GET", "query": { "type": "object", "properties": query }, "bindingVersion": "0.3.0" },
    });
    json!({
        "tellOverWebSocket": send("websocket", "What happens is told", told),
        "send": receive("websocket", "A client sends a message", "send", &["sent", "error"]),
        "subscribe": receive("websocket", "A client follows a topic", "subscribe", &["subscribed", "error"]),
        "unsubscribe": receive("websocket", "A client follows a topic no longer", "unsubscribe", &["unsubscribed", "error"]),
        "tellAsEvents": events,
        "tellOverSocketIo": send("socketIo", "What happens is told", told_over_socket_io().map(kinds).collect()),
        "socketIoMessage": receive("socketIo", "A client sends a message", "socketIoMessage", &["socketIoMessageAcknowledged"]),
        "socketIoSubscribe": receive("socketIo", "A client follows a topic", "socketIoSubscribe", &["socketIoTopicAcknowledged"]),
        "socketIoUnsubscribe": receive("socketIo", "A client follows a topic no longer", "socketIoUnsubscribe", &["socketIoTopicAcknowledged"]),
    })
}

/// What a Socket.IO client emits, and how that is acknowledged: message, event, summary.
const SOCKET_IO: [(&str, &str, &str); 5] = [
    ("socketIoMessage", "message", "Stores a message."),
    ("socketIoSubscribe", "subscribe", "Follows one more topic, after a cursor if wanted."),
    ("socketIoUnsubscribe", "unsubscribe", "Follows one topic less."),
    ("socketIoMessageAcknowledged", "acknowledgement", "The message as it is stored, or why it is not."),
    ("socketIoTopicAcknowledged", "acknowledgement", "The topic, and from where on it is followed, or a problem."),
];

fn messages() -> Value {
    let mut messages = Map::new();
    for frame in frames() {
        let examples = frame.examples.iter().map(|example| json!({ "payload": example }));
        let message = json!({
            "name": frame.kind,
            "title": frame.kind,
            "summary": frame.meaning,
            "contentType": "application/json",
            "payload": schema_reference(&schema_name(frame.kind)),
            "examples": examples.collect::<Vec<_>>(),
        });
        messages.insert(frame.kind.into(), message);
    }
    for (name, event, summary) in SOCKET_IO {
        let message = json!({
            "name": event,
            "title": name,
            "summary": summary,
            "contentType": "application/json",
            "payload": payload_of_socket_io(name),
            "examples": examples_of_socket_io(name),
        });
        messages.insert(name.into(), message);
    }
    messages.into()
}

fn payload_of_socket_io(name: &str) -> Value {
    let cursor = json!({ "type": "string", "description": "An opaque place in the stream." });
    match name {
        "socketIoMessage" => schema_reference("NewMessage"),
        "socketIoMessageAcknowledged" => json!({
            "type": "object",
            "properties": { "message": schema_reference("Message"), "problem": schema_reference("Problem") },
            "minProperties": 1,
            "maxProperties": 1,
        }),
        "socketIoTopicAcknowledged" => json!({
            "type": "object",
            "properties": {
                "topic": schema_reference("Topic"), "cursor": cursor, "problem": schema_reference("Problem"),
            },
        }),
        _ => json!({
            "type": "object",
            "properties": {
                "room": { "type": "string" },
                "inbox": { "type": "string" },
                "all": { "type": "boolean", "enum": [true] },
                "after": cursor,
            },
        }),
    }
}

/// What goes by the `type` of a frame on the WebSocket goes by the name of an event here.
fn examples_of_socket_io(name: &str) -> Vec<Value> {
    let of_kind = |kind: &'static str| {
        let examples = frames().iter().filter(move |frame| frame.kind == kind).flat_map(|frame| &frame.examples);
        examples.cloned().map(|mut example| {
            if let Some(fields) = example.as_object_mut() {
                fields.shift_remove("type");
            }
            example
        })
    };
    let payloads: Vec<Value> = match name {
        "socketIoMessage" => of_kind("send").collect(),
        "socketIoSubscribe" => of_kind("subscribe").collect(),
        "socketIoUnsubscribe" => of_kind("unsubscribe").collect(),
        "socketIoMessageAcknowledged" => {
            let stored = of_kind("created").map(|frame| json!({ "message": frame["message"] }));
            stored.chain(of_kind("error").map(|frame| json!({ "problem": frame["problem"] }))).collect()
        }
        _ => of_kind("subscribed").collect(),
    };
    payloads.into_iter().map(|payload| json!({ "payload": payload })).collect()
}

/// The schemas of the frames, and those of the OpenAPI document that they lean on.
fn schemas(openapi: &Value) -> Value {
    let shared = SHARED.iter().map(|name| ((*name).to_owned(), openapi["components"]["schemas"][name].clone()));
    let mut schemas: Map<String, Value> = frame_schemas().chain(shared).collect();
    schemas.values_mut().for_each(mend);
    schemas.into()
}

/// OpenAPI has one `example`, JSON Schema a list of `examples`; what is `nullable` there has one type more here.
fn mend(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(example) = fields.remove("example") {
                fields.insert("examples".into(), json!([example]));
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                if let Some(kind) = fields.get_mut("type") {
                    *kind = json!([kind.take(), "null"]);
                }
            }
            fields.values_mut().for_each(mend);
        }
        Value::Array(items) => items.iter_mut().for_each(mend),
        _ => {}
    }
}

fn told_as_events() -> impl Iterator<Item = &'static FrameEntry> {
    frames().iter().filter(|frame| frame.carriers.has_events() && frame.speaker == Speaker::Server)
}

fn told_over_socket_io() -> impl Iterator<Item = &'static FrameEntry> {
    frames().iter().filter(|frame| frame.carriers.has_socket_io() && frame.speaker == Speaker::Server)
}

fn message_references<'a>(frames: impl Iterator<Item = &'a FrameEntry>) -> Value {
    let named =
        |frame: &FrameEntry| (frame.kind.to_owned(), reference(&format!("#/components/messages/{}", frame.kind)));
    frames.map(named).collect::<Map<_, _>>().into()
}

fn schema_reference(name: &str) -> Value {
    reference(&format!("#/components/schemas/{name}"))
}

fn reference(pointer: &str) -> Value {
    json!({ "$ref": pointer })
}
