//! The JSON of requests and answers, with its schema.

use std::borrow::Cow;

use poem_openapi::{
    Object,
    registry::{MetaSchemaRef, Registry},
    types::{Example, ParseError, ParseFromJSON, ParseResult, Type},
};
use serde_json::{Map, Value};

use super::nullable::Nullable;
use crate::{
    message::{Destination, Message, date_text},
    mongo::RoomSummary,
};

const CURSOR_EXAMPLE: &str = "97bf3ca9-6b063e3900000003-d87b4be1";
/// Places are as opaque as cursors.
const PLACE_EXAMPLE: &str = "000001a215896daf-076b063e391b85d9cbc0f827c1";

/// A message as it is stored.
#[derive(Debug, Object)]
#[oai(rename = "Message", skip_serializing_if_is_none, example)]
pub(super) struct MessageBody {
    /// The document's `_id`: 24 hexadecimal digits of an ObjectId, or a tagged form of another type.
    id: String,
    /// 1 to 4,000 characters.
    content: String,
    /// Who says that they wrote it.
    sender: String,
    /// Whom a direct message is for. Absent from a message of a room.
    recipient: Option<String>,
    /// The room of a message. Absent from a direct message.
    room: Option<String>,
    /// RFC 3339, UTC, milliseconds.
    date: String,
}

impl From<&Message> for MessageBody {
    fn from(message: &Message) -> Self {
        let (recipient, room) = match &message.to {
            Destination::Direct(recipient) => (Some(recipient.to_string()), None),
            Destination::Room(room) => (None, Some(room.to_string())),
        };
        Self {
            id: message.id.to_string(),
            content: message.content.clone(),
            sender: message.sender.to_string(),
            recipient,
            room,
            date: date_text(&message.date),
        }
    }
}

impl Example for MessageBody {
    fn example() -> Self {
        Self {
            id: "6745b2c3d4e5f60718293a4b".into(),
            content: "¡Hola a todos!".into(),
            sender: "Ana".into(),
            recipient: None,
            room: Some("general".into()),
            date: "2026-11-25T10:15:30.123Z".into(),
        }
    }
}

/// A message to send.
#[derive(Debug, Object)]
#[oai(rename = "NewMessage", deny_unknown_fields, skip_serializing_if_is_none, example)]
struct NewMessageBody {
    /// What to say. Must be more than white space.
    #[oai(validator(min_length = 1, max_length = 4000))]
    content: String,
    /// Your name. Nobody checks it.
    #[oai(validator(min_length = 1, max_length = 64))]
    sender: String,
    /// Makes it a direct message to this person. Wins over `room`.
    #[oai(validator(max_length = 64))]
    recipient: Option<String>,
    /// The room; `general` when there is neither room nor recipient.
    #[oai(validator(max_length = 64))]
    room: Option<String>,
    /// An id of your choice, 24 hexadecimal digits. Sending the message again with it can not store it twice.
    #[oai(validator(pattern = "^[0-9a-fA-F]{24}$"))]
    id: Option<String>,
}

impl Example for NewMessageBody {
    fn example() -> Self {
        Self {
            content: "¡Hola a todos!".into(),
            sender: "Ana".into(),
            recipient: None,
            room: Some("general".into()),
            id: None,
        }
    }
}

/// The fields of a message to send, still as JSON: the domain's own constructor checks them, as it does for every
/// transport, and reports all errors at once. Documented as [`NewMessageBody`].
#[derive(Debug)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Type for Fields {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        NewMessageBody::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        NewMessageBody::schema_ref()
    }

    fn register(registry: &mut Registry) {
        NewMessageBody::register(registry);
        // The framework has no word for it: a field that need not be there may also be null.
        if let Some(schema) = registry.schemas.get_mut(NewMessageBody::name().as_ref()) {
            for (name, field) in &mut schema.properties {
                if let MetaSchemaRef::Inline(field) = field
                    && !schema.required.contains(&*name)
                {
                    field.nullable = true;
                }
            }
        }
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for Fields {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(ParseError::custom("the body must be a JSON object")),
        }
    }
}

/// One page of messages.
#[derive(Debug, Object)]
#[oai(rename = "MessagesPage", example)]
pub(super) struct MessagesBody {
    /// Oldest first.
    pub(super) messages: Vec<MessageBody>,
    /// Joins the page to the stream: connect with `after=` this and nothing is missed.
    pub(super) cursor: String,
    /// Give it back as `before` for the next older page; null when there is none.
    pub(super) before: Nullable,
    /// Give it back as `after` for the next newer page. Null when there is none: then what is newer comes after the
    /// `cursor`.
    pub(super) after: Nullable,
}

/// A room and its newest message.
#[derive(Debug, Object)]
#[oai(rename = "Room", example)]
pub(super) struct RoomBody {
    /// Its name.
    room: String,
    /// Its newest message.
    newest: MessageBody,
}

impl From<&RoomSummary> for RoomBody {
    fn from(summary: &RoomSummary) -> Self {
        Self { room: summary.room.to_string(), newest: (&summary.newest).into() }
    }
}

/// One page of rooms, by name.
#[derive(Debug, Object)]
#[oai(rename = "RoomsPage", example)]
pub(super) struct RoomsBody {
    /// In the order of their names.
    pub(super) rooms: Vec<RoomBody>,
    /// Joins the page to the stream, as that of a page of messages.
    pub(super) cursor: String,
    /// Give it back as `after` for the next page; null when there is none.
    pub(super) after: Nullable,
}

/// Who is here, in each room that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "Presence", example)]
pub(super) struct PresenceBody {
    /// In the order in which they were named.
    pub(super) rooms: Vec<RoomPresenceBody>,
}

/// How many are in a room.
#[derive(Debug, Object)]
#[oai(rename = "RoomPresence", example)]
pub(super) struct RoomPresenceBody {
    /// Its name.
    pub(super) room: String,
    /// How many connections follow it. A person with two open pages counts twice.
    pub(super) here: u64,
}

impl Example for MessagesBody {
    fn example() -> Self {
        Self {
            messages: vec![MessageBody::example()],
            cursor: CURSOR_EXAMPLE.into(),
            before: Nullable(Some(PLACE_EXAMPLE.into())),
            after: Nullable(None),
        }
    }
}

impl Example for RoomBody {
    fn example() -> Self {
        Self { room: "general".into(), newest: MessageBody::example() }
    }
}

impl Example for RoomsBody {
    fn example() -> Self {
        Self { rooms: vec![RoomBody::example()], cursor: CURSOR_EXAMPLE.into(), after: Nullable(None) }
    }
}

impl Example for PresenceBody {
    fn example() -> Self {
        Self { rooms: vec![RoomPresenceBody::example()] }
    }
}

impl Example for RoomPresenceBody {
    fn example() -> Self {
        Self { room: "general".into(), here: 7 }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use poem_openapi::types::ToJSON;

    use super::*;
    use crate::message::{MessageId, RoomName, UserName};

    #[test]
    fn the_examples_of_cursors_and_places_are_such() {
        assert!(CURSOR_EXAMPLE.parse::<crate::cursor::Cursor>().is_ok());
        assert!(PLACE_EXAMPLE.parse::<crate::mongo::HistoryPlace>().is_ok());
    }

    #[test]
    fn a_message_is_the_same_json_over_rest_and_in_frames() {
        for to in
            [Destination::Room(RoomName::parse("dev").unwrap()), Destination::Direct(UserName::parse("Luis").unwrap())]
        {
            let message = Message {
                id: MessageId::parse_object_id("65a1b2c3d4e5f60718293a4b").unwrap(),
                content: "¿qué?".into(),
                sender: UserName::parse("Ana").unwrap(),
                to,
                date: DateTime::UNIX_EPOCH,
            };
            let rest = MessageBody::from(&message).to_json_string();
            assert_eq!(rest, serde_json::to_string(&message).unwrap(), "with its fields in the same order, too");
        }
    }
}
