//! What clients and the server can say to each other, listed for those who are to read it: the OpenAPI and the AsyncAPI
//! document, and the page on which people try it. The examples are the frames themselves, so they can not be wrong.

use std::sync::LazyLock;

use chrono::DateTime;
use serde_json::{Value, json};

use super::{close::Close, frame::ServerFrame};
use crate::{
    cursor::Cursor,
    message::{Destination, FieldError, Message, MessageId, RoomName, UserName},
    problem::Problem,
    topic::Topic,
};

/// Who sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The server.
    Server,
    /// A client.
    Client,
}

/// Over which transports a frame comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriers {
    /// All of them.
    All,
    /// Those that stay open: all but `/api/changes`, whose answer ends and has a cursor of its own.
    Streams,
    /// The WebSocket and Socket.IO.
    Sockets,
    /// The WebSocket alone: over Socket.IO the same is an event of another name, or an acknowledgement.
    WebSocket,
}

impl Carriers {
    /// Whether server-sent events are among them.
    pub fn has_events(self) -> bool {
        matches!(self, Carriers::All | Carriers::Streams)
    }

    /// Whether Socket.IO is.
    pub fn has_socket_io(self) -> bool {
        self != Carriers::WebSocket
    }
}

/// A kind of frame.
#[derive(Debug)]
pub struct FrameEntry {
    /// Its `type`.
    pub kind: &'static str,
    /// Who sends it.
    pub speaker: Speaker,
    /// What it means, in one or two sentences.
    pub meaning: &'static str,
    /// Its fields besides `type`.
    pub fields: &'static [Field],
    /// Over which transports it comes.
    pub carriers: Carriers,
    /// At least one, as it is on the wire.
    pub examples: Vec<Value>,
}

/// A field of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether every such frame has it.
    pub is_required: bool,
    pub(super) holds: Holds,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    All,
    Content,
    Cursor,
    Id,
    Inbox,
    Message,
    NewId,
    Problem,
    Reason,
    Recipient,
    Room,
    Sender,
    Stream,
    Topic,
    Topics,
}

/// A way in which the server ends a connection.
#[derive(Debug, Clone, Copy)]
pub struct CloseEntry {
    /// The code of the close frame.
    pub code: u16,
    /// Its reason, in the words that are sent.
    pub reason: &'static str,
    /// Whether the client should come back with its last cursor.
    pub comes_back: bool,
}

/// Every frame, those of the server first.
pub fn frames() -> &'static [FrameEntry] {
    static FRAMES: LazyLock<Vec<FrameEntry>> = LazyLock::new(|| {
        let said: Vec<Value> = spoken_by_server().into_iter().chain(said_by_clients()).collect();
        let entry = |&(kind, speaker, carriers, meaning, fields): &Row| {
            let examples = said.iter().filter(|frame| frame["type"] == kind).cloned().collect();
            FrameEntry { kind, speaker, meaning, fields, carriers, examples }
        };
        ROWS.iter().map(entry).collect()
    });
    &FRAMES
}

/// Every way in which the server ends a connection.
pub fn closes() -> impl Iterator<Item = CloseEntry> {
    Close::ALL.into_iter().map(|close| {
        let (code, reason) = close.words();
        CloseEntry { code, reason, comes_back: matches!(close, Close::Restart | Close::Stuck | Close::Internal) }
    })
}

/// A frame's `type`, who says it, over which transports, what it means, and its other fields.
type Row = (&'static str, Speaker, Carriers, &'static str, &'static [Field]);

const fn always(name: &'static str, holds: Holds) -> Field {
    Field { name, is_required: true, holds }
}

const fn sometimes(name: &'static str, holds: Holds) -> Field {
    Field { name, is_required: false, holds }
}

const CURSOR: Field = always("cursor", Holds::Cursor);
const TOPICS: Field = always("topics", Holds::Topics);
const MESSAGE: Field = always("message", Holds::Message);
const ONE_TOPIC: [Field; 3] =
    [sometimes("room", Holds::Room), sometimes("inbox", Holds::Inbox), sometimes("all", Holds::All)];

const ROWS: [Row; 13] = [
    (
        "created",
        Speaker::Server,
        Carriers::All,
        "The message entered the topics that are followed.",
        &[CURSOR, TOPICS, MESSAGE],
    ),
    (
        "updated",
        Speaker::Server,
        Carriers::All,
        "The message stayed within the topics that are followed. It is given as it is now.",
        &[CURSOR, TOPICS, MESSAGE],
    ),
    (
        "deleted",
        Speaker::Server,
        Carriers::All,
        "The message left the topics that are followed, or is gone. `topics` is empty when it is not known where it was.",
        &[CURSOR, TOPICS, always("id", Holds::Id)],
    ),
    (
        "ready",
        Speaker::Server,
        Carriers::Streams,
        "Everything that was missed has been told; from here on it is live.",
        &[CURSOR],
    ),
    (
        "position",
        Speaker::Server,
        Carriers::Streams,
        "Nothing new, but time moved: the place to come back with.",
        &[CURSOR, always("stream", Holds::Stream)],
    ),
    (
        "reset",
        Speaker::Server,
        Carriers::All,
        "What follows the cursor can not be told any more: load the history again and join with its cursor.",
        &[CURSOR, always("reason", Holds::Reason)],
    ),
    (
        "subscribed",
        Speaker::Server,
        Carriers::WebSocket,
        "The topic is followed from this cursor on. Load its history with `since=` the cursor.",
        &[always("topic", Holds::Topic), CURSOR],
    ),
    (
        "unsubscribed",
        Speaker::Server,
        Carriers::WebSocket,
        "The topic is not followed any longer.",
        &[always("topic", Holds::Topic)],
    ),
    (
        "sent",
        Speaker::Server,
        Carriers::WebSocket,
        "The message is on the disks of a majority. It may come before or after the message's own `created`.",
        &[always("id", Holds::Id)],
    ),
    (
        "error",
        Speaker::Server,
        Carriers::Sockets,
        "A frame was refused, or the outcome of a `send` is unknown. `id` is that of the `send`, if it had one.",
        &[sometimes("id", Holds::Id), always("problem", Holds::Problem)],
    ),
    (
        "send",
        Speaker::Client,
        Carriers::WebSocket,
        "Stores a message. With an `id` of one's own, sending it again can not store it twice.",
        &[
            always("content", Holds::Content),
            always("sender", Holds::Sender),
            sometimes("room", Holds::Room),
            sometimes("recipient", Holds::Recipient),
            sometimes("id", Holds::NewId),
        ],
    ),
    (
        "subscribe",
        Speaker::Client,
        Carriers::WebSocket,
        "Follows one more topic: a room, an inbox, or everything.",
        &ONE_TOPIC,
    ),
    ("unsubscribe", Speaker::Client, Carriers::WebSocket, "Follows one topic less.", &ONE_TOPIC),
];

/// At least one of each that the server sends. Of the names and ids in it a test knows that they are such.
fn spoken_by_server() -> Vec<Value> {
    let cursor = |text: &str| text.parse::<Cursor>().expect("a cursor");
    let id = MessageId::from_text_form("6b063e391b85d9cbc0f827c1".into());
    let date = DateTime::from_timestamp_millis(1_795_657_657_775).expect("a date");
    let user = |name: &str| UserName::parse(name).expect("a name");
    let room = |name: &str| RoomName::parse(name).expect("a name");
    let message = |content: &str, sender: &str, to: Destination| {
        let (id, content, sender) = (id.clone(), content.to_owned(), user(sender));
        Message { id, content, sender, to, date }
    };
    let asked = message("Yo, en cinco minutos", "Luis", Destination::Room(room("general")));
    let edited = message("Yo, en diez minutos", "Luis", Destination::Room(room("general")));
    let direct = message("¿Bajamos juntos?", "Ana", Destination::Direct(user("Luis")));
    let (topics, inboxes, dev) = (asked.topics(), direct.topics(), Topic::Room(room("dev")));
    let refused = Problem::invalid(vec![FieldError::new("content", "must not be empty")]);
    let refused_id = "6b063e2f0c1d2e3f4a5b6c7d";
    let [one, two, three, four, now, reset] = [
        "97bf3ca9-6b063e3900000002-3c2e86a0",
        "97bf3ca9-6b063e3900000003-d87b4be1",
        "97bf3ca9-6b063e3900000004-565651b4",
        "97bf3ca9-6b063e3900000009-3b702fa7",
        "97bf3ca9-6b063e4b00000001-00000000",
        "97bf3ca9-6b06427c00000001-00000000",
    ]
    .map(cursor);
    [
        ServerFrame::Created { cursor: two, topics: &topics, message: &asked },
        ServerFrame::Created { cursor: one, topics: &inboxes, message: &direct },
        ServerFrame::Updated { cursor: three, topics: &topics, message: &edited },
        ServerFrame::Deleted { cursor: four, topics: &topics, id: &id },
        ServerFrame::Ready { cursor: now },
        ServerFrame::Position { cursor: now, stream: "live" },
        ServerFrame::Reset { cursor: reset, reason: "the cursor is of another collection" },
        ServerFrame::Subscribed { topic: &dev, cursor: now },
        ServerFrame::Unsubscribed { topic: &dev },
        ServerFrame::Sent { id: id.as_str() },
        ServerFrame::Error { id: Some(refused_id), problem: &refused },
    ]
    .map(|frame| json!(frame))
    .into()
}

/// At least one of each that clients send.
fn said_by_clients() -> [Value; 8] {
    let id = "6b063e2f0c1d2e3f4a5b6c7d";
    [
        json!({ "type": "send", "id": id, "room": "general", "sender": "Ana", "content": "¿Quién se anima a un café?" }),
        json!({ "type": "send", "recipient": "Luis", "sender": "Ana", "content": "¿Bajamos juntos?" }),
        json!({ "type": "subscribe", "room": "dev" }),
        json!({ "type": "subscribe", "inbox": "Ana" }),
        json!({ "type": "subscribe", "all": true }),
        json!({ "type": "unsubscribe", "room": "dev" }),
        json!({ "type": "unsubscribe", "inbox": "Ana" }),
        json!({ "type": "unsubscribe", "all": true }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::NewMessage, sessions::ClientFrame};

    #[test]
    fn every_kind_has_an_example_with_exactly_the_fields_that_are_listed() {
        for FrameEntry { kind, fields, examples, .. } in frames() {
            assert!(!examples.is_empty(), "{kind}");
            for example in examples {
                let given = example.as_object().unwrap();
                for name in given.keys().filter(|name| *name != "type") {
                    assert!(fields.iter().any(|field| field.name == *name), "{example}: {name} is not listed");
                }
                for field in fields.iter().filter(|field| field.is_required) {
                    assert!(given.contains_key(field.name), "{example} has no {}", field.name);
                }
            }
            for field in *fields {
                let is_shown = examples.iter().any(|example| example.get(field.name).is_some());
                assert!(is_shown, "no example of {kind} shows {}", field.name);
            }
        }
    }

    #[test]
    fn what_clients_are_shown_to_say_is_understood_as_what_it_is_called() {
        for FrameEntry { kind, examples, .. } in frames().iter().filter(|frame| frame.speaker == Speaker::Client) {
            for example in examples {
                let understood = match ClientFrame::parse(&example.to_string()).unwrap() {
                    ClientFrame::Send { draft, .. } => NewMessage::parse(draft).map(|_| "send").unwrap(),
                    ClientFrame::Subscribe(_) => "subscribe",
                    ClientFrame::Unsubscribe(_) => "unsubscribe",
                };
                assert_eq!(understood, *kind, "{example}");
            }
        }
    }

    #[test]
    fn every_frame_of_the_server_is_listed() {
        // A new one does not compile here, and is to be added to the catalogue.
        let listed = |frame: &ServerFrame<'_>| match frame {
            ServerFrame::Created { .. } | ServerFrame::Updated { .. } | ServerFrame::Deleted { .. } => 3,
            ServerFrame::Ready { .. } | ServerFrame::Position { .. } | ServerFrame::Reset { .. } => 3,
            ServerFrame::Subscribed { .. } | ServerFrame::Unsubscribed { .. } => 2,
            ServerFrame::Sent { .. } | ServerFrame::Error { .. } => 2,
        };
        let cursor = "97bf3ca9-6b063e3900000002-3c2e86a0".parse().unwrap();
        assert_eq!(listed(&ServerFrame::Ready { cursor }), 3);
        assert_eq!(frames().iter().filter(|frame| frame.speaker == Speaker::Server).count(), 10);
    }
}
