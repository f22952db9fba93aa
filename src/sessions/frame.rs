//! The JSON frames, in both directions: as they are on the WebSocket, and within the envelopes of other transports.

use bytes::Bytes;
use poem::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::wire::{Outgoing, payload};
use crate::{
    cursor::Cursor,
    event::Change,
    feed::{Entry, Transport},
    message::{Draft, Message, MessageId, RoomName, UserName},
    problem::Problem,
    topic::Topic,
};

/// What the server sends.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum ServerFrame<'a> {
    Created {
        cursor: Cursor,
        topics: &'a [Topic],
        message: &'a Message,
    },
    Updated {
        cursor: Cursor,
        topics: &'a [Topic],
        message: &'a Message,
    },
    Deleted {
        cursor: Cursor,
        topics: &'a [Topic],
        id: &'a MessageId,
    },
    Ready {
        cursor: Cursor,
    },
    Position {
        cursor: Cursor,
        stream: &'a str,
    },
    Reset {
        cursor: Cursor,
        reason: &'a str,
    },
    Subscribed {
        topic: &'a Topic,
        cursor: Cursor,
    },
    Unsubscribed {
        topic: &'a Topic,
    },
    Sent {
        id: &'a str,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        problem: &'a Problem,
    },
}

impl ServerFrame<'_> {
    /// The frame as the bytes that go to a WebSocket.
    pub(super) fn encode(&self) -> Bytes {
        Outgoing::Text(&self.json()).encode()
    }

    /// The frame as JSON, on one line.
    pub(super) fn json(&self) -> Vec<u8> {
        // Nothing in a frame can fail to serialise: no maps with other keys than texts, no foreign implementations.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The frame of an entry as a change, as the bytes that go to a WebSocket; encoded once for all sessions.
pub(super) fn event_frame(entry: &Entry, change: Change) -> &Bytes {
    entry.encoded(Transport::WebSocket, change, || {
        let Some(event) = &entry.event else {
            return Bytes::new();
        };
        let cursor = entry.cursor;
        match (change, &event.after) {
            (Change::Created, Some(message)) => ServerFrame::Created { cursor, topics: entry.topics_after(), message },
            (Change::Updated, Some(message)) => ServerFrame::Updated { cursor, topics: entry.topics_after(), message },
            _ => ServerFrame::Deleted { cursor, topics: event.topics_before(), id: &event.id },
        }
        .encode()
    })
}

/// The same frame as JSON, for the envelopes of other transports. It is taken out of the one encoding there is: a second
/// one would take as much of the log's memory again, and these envelopes are some tens of bytes around a text that is
/// copied into a larger piece anyway.
pub(super) fn event_json(entry: &Entry, change: Change) -> &[u8] {
    payload(event_frame(entry, change))
}

/// What a client sends.
#[derive(Debug)]
pub enum ClientFrame {
    /// Insert a message.
    Send {
        /// The id in the client's own words, for the answer to it.
        id: Option<String>,
        /// What it is to be.
        draft: Draft,
    },
    /// Follow a topic.
    Subscribe(Topic),
    /// Do not follow it any longer.
    Unsubscribe(Topic),
}

/// A frame that can not be understood. The connection goes on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, or no object.
    #[error("the frame is not a JSON object")]
    Syntax,
    /// An object that is no frame of ours.
    #[error("{0}")]
    Meaning(String),
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Self {
        let status = match error {
            FrameError::Syntax => StatusCode::BAD_REQUEST,
            FrameError::Meaning(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

impl ClientFrame {
    /// Reads a frame.
    ///
    /// # Errors
    /// When it is no frame. A frame with a message that breaks a rule is a frame.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(text) else {
            return Err(FrameError::Syntax);
        };
        let kind = fields.remove("type");
        match kind.as_ref().and_then(Value::as_str) {
            Some("send") => {
                let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
                Ok(ClientFrame::Send { id, draft: Draft::from_json(fields) })
            }
            Some("subscribe") => topic_of(&fields).map(ClientFrame::Subscribe),
            Some("unsubscribe") => topic_of(&fields).map(ClientFrame::Unsubscribe),
            _ => Err(FrameError::Meaning("`type` must be `send`, `subscribe` or `unsubscribe`".into())),
        }
    }
}

pub(super) fn topic_of(fields: &Map<String, Value>) -> Result<Topic, FrameError> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let wrong = |name: &str, error: &dyn std::fmt::Display| FrameError::Meaning(format!("`{name}` {error}"));
    match (text("room"), text("inbox"), fields.get("all")) {
        (Some(room), None, None) => RoomName::normalise(room).map(Topic::Room).map_err(|error| wrong("room", &error)),
        (None, Some(user), None) => UserName::normalise(user).map(Topic::Inbox).map_err(|error| wrong("inbox", &error)),
        (None, None, Some(Value::Bool(true))) => Ok(Topic::All),
        _ => Err(FrameError::Meaning("name one topic: `room` or `inbox` with a name, or `all` with true".into())),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::*;
    use crate::{
        cursor::ClusterTime,
        event::{Before, Event},
        feed::{self, LogLimits, Reading},
        message::{Destination, NewMessage},
    };

    /// What the log reserves for an event, and what its frames take in all the forms in which it can be told.
    fn reserved_and_taken(before: Before, content: Option<&str>, name: &str) -> (usize, usize) {
        let time = |seconds| ClusterTime { seconds, increment: u32::MAX };
        let cursor = Cursor { epoch: u32::MAX, time: time(u32::MAX - 1), key: u32::MAX };
        let id = MessageId::from_text_form("65a1b2c3d4e5f60718293a4b".into());
        let after = content.map(|content| Message {
            id: id.clone(),
            content: content.into(),
            sender: UserName::parse(name).unwrap(),
            to: Destination::Room(RoomName::parse(name).unwrap()),
            date: DateTime::UNIX_EPOCH,
        });
        let forms = match (&before, &after) {
            (Before::Nowhere, _) => &Change::ALL[..1],
            (_, Some(_)) => &Change::ALL,
            (_, None) => &Change::ALL[2..],
        };
        let limits = LogLimits { entries_max: 1, bytes_max: 1 << 24 };
        let (mut writer, feed) = feed::open(limits, Cursor::boundary(u32::MAX, time(1)));
        let mut reader = feed.reader_from_now();
        reader.follow(Topic::All);
        writer.append(vec![(cursor, Some(Event { id, before, after, at_millis: 0 }))], cursor);
        let Reading::Entries(entries) = reader.read() else { panic!("there is one") };
        let taken = forms.iter().map(|change| event_frame(&entries[0].1, *change).len()).sum();
        (writer.size().bytes, taken)
    }

    #[test]
    fn the_log_reserves_what_all_frames_of_an_entry_can_take_and_little_more() {
        let (long, nasty) = ("x".repeat(4_000), "\u{1}\"".repeat(1_000));
        let wide = "ñ\"".repeat(32);
        let was = |name: &str| Before::In(vec![Topic::Room(RoomName::parse(name).unwrap())]);
        for name in ["general", &wide] {
            for content in [Some("hola"), Some(&long), Some(&nasty), None] {
                for before in [Before::Nowhere, was(name), was("elsewhere")] {
                    if before == Before::Nowhere && content.is_none() {
                        continue;
                    }
                    let (reserved, taken) = reserved_and_taken(before.clone(), content, name);
                    assert!(reserved >= taken, "{reserved} for {taken}: {before:?} {content:?} {name}");
                    if before == Before::Nowhere {
                        // What nearly all of the log is: a new message.
                        let beside = 1_000 + content.map_or(0, str::len) + 8 * name.len();
                        assert!(reserved <= taken + beside, "{reserved} for {taken}: {content:?} {name}");
                    }
                }
            }
        }
    }

    /// What a client may write where a field has a meaning, and anything else.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,80}",
            prop::sample::select(vec![
                "send",
                "subscribe",
                "unsubscribe",
                "general",
                "Ana",
                "",
                " ",
                "..",
                "\0",
                "$gt"
            ])
            .prop_map(str::to_owned),
            "[0-9a-fA-F]{23,25}",
            (1..70_usize).prop_map(|count| "ñ".repeat(count)),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                vec((text(), inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn fields() -> impl Strategy<Value = Map<String, Value>> {
        let names = ["type", "id", "content", "sender", "recipient", "room", "inbox", "all", "after"];
        let name = prop_oneof![9 => prop::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => text()];
        let value = prop_oneof![4 => text().prop_map(Value::from), 1 => value()];
        vec((name, value), 0..8).prop_map(|fields| fields.into_iter().collect())
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_frames_panic(text in any::<String>()) {
            let _ = ClientFrame::parse(&text);
        }

        #[test]
        fn a_frame_is_one_of_ours_or_refused_and_what_it_sends_keeps_the_rules(fields in fields()) {
            let topic = topic_of(&fields);
            let kind = fields.get("type").cloned();
            match ClientFrame::parse(&Value::Object(fields).to_string()) {
                Ok(ClientFrame::Send { draft, .. }) => {
                    prop_assert_eq!(kind, Some(json!("send")));
                    match NewMessage::parse(draft) {
                        Ok(message) => {
                            prop_assert_eq!(UserName::parse(message.sender.as_str()), Ok(message.sender.clone()));
                            let count = message.content.chars().count();
                            prop_assert!(!message.content.trim().is_empty() && count <= 4_000);
                        }
                        Err(errors) => prop_assert!(!errors.is_empty()),
                    }
                }
                Ok(ClientFrame::Subscribe(found) | ClientFrame::Unsubscribe(found)) => {
                    prop_assert_eq!(topic, Ok(found));
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn no_json_makes_it_panic_however_deep(depth in 0..3_000_usize, open in prop::sample::select(vec!["[", "{\"a\":"])) {
            let text = format!("{{\"type\":\"send\",\"a\":{}", open.repeat(depth));
            prop_assert!(matches!(ClientFrame::parse(&text), Err(FrameError::Syntax)));
        }
    }
}
