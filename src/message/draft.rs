//! What a client wants to send: raw, then checked. One constructor for every transport.

use std::fmt;

use poem_openapi::Object;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Destination, InvalidText, Message, MessageId, RoomName, UserName, check_content};

/// A message that somebody wants to send: checked, not yet stored, and therefore without a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Chosen by the client, so that a retry is harmless; `None` leaves the choice to the inserter.
    pub id: Option<MessageId>,
    /// 1 to [`CONTENT_CHARS_MAX`] characters, not only blanks.
    pub content: String,
    /// In normal form.
    pub sender: UserName,
    /// A recipient wins over a room, as it does in a document that names both.
    pub to: Destination,
}

/// What a client sent, field by field, before any rule was applied. One shape for JSON, form and frames.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// See [`NewMessage::id`]: 24 hexadecimal digits.
    pub id: Option<String>,
    /// See [`NewMessage::content`].
    pub content: Option<String>,
    /// See [`NewMessage::sender`].
    pub sender: Option<String>,
    /// Absent, or empty: nobody.
    pub recipient: Option<String>,
    /// Absent, or empty: [`DEFAULT_ROOM`].
    pub room: Option<String>,
    /// What of it can not be read: fields that no message has, and values that are no text.
    pub unread: Vec<FieldError>,
}

/// One field of a [`Draft`] that breaks a rule, in words for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
pub struct FieldError {
    /// The field's name as the client wrote it.
    pub field: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl FieldError {
    /// An error of `field` in the words of `detail`.
    pub fn new(field: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { field: field.into(), detail: detail.to_string() }
    }
}

impl Draft {
    /// The fields of a message in JSON, over any transport. Everything but text is left unread, so that no operator of
    /// MongoDB can come in, and so is a field that is not part of a message: [`NewMessage::parse`] then refuses it.
    pub fn from_json(fields: Map<String, Value>) -> Self {
        let mut draft = Self::default();
        let mut unread = Vec::new();
        for (name, value) in fields {
            let place = match name.as_str() {
                "id" => &mut draft.id,
                "content" => &mut draft.content,
                "sender" => &mut draft.sender,
                "recipient" => &mut draft.recipient,
                "room" => &mut draft.room,
                _ => {
                    let shown: String = name.chars().take(64).collect();
                    unread.push(FieldError::new(shown, "is not a field of a message that is sent"));
                    continue;
                }
            };
            match value {
                Value::String(text) => *place = Some(text),
                Value::Null => {}
                _ => unread.push(FieldError::new(name, "must be a text")),
            }
        }
        Self { unread, ..draft }
    }
}

impl NewMessage {
    /// Applies every rule and reports every field that breaks one, so that a form can be mended in one go.
    ///
    /// # Errors
    /// The fields at fault; never empty.
    pub fn parse(draft: Draft) -> Result<Self, Vec<FieldError>> {
        let mut errors = draft.unread;
        let unread: Vec<String> = errors.iter().map(|error| error.field.clone()).collect();
        let mut keep = |field: &str, error: InvalidText| {
            // Of one that is no text, that is all there is to say.
            if !unread.iter().any(|unread| unread == field) {
                errors.push(FieldError::new(field, error));
            }
        };

        let id = match draft.id.as_deref() {
            None => None,
            Some(text) => match MessageId::parse_object_id(text) {
                Some(id) => Some(id),
                None => {
                    keep("id", InvalidText::NotAnObjectId);
                    None
                }
            },
        };
        let content = draft.content.unwrap_or_default();
        if let Err(error) = check_new_content(&content) {
            keep("content", error);
        }
        let sender = UserName::normalise(draft.sender.as_deref().unwrap_or_default())
            .map_err(|error| keep("sender", error))
            .ok();
        let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let to = if named(&draft.recipient) {
            UserName::normalise(draft.recipient.as_deref().unwrap_or_default())
                .map(Destination::Direct)
                .map_err(|error| keep("recipient", error))
                .ok()
        } else if named(&draft.room) {
            RoomName::normalise(draft.room.as_deref().unwrap_or_default())
                .map(Destination::Room)
                .map_err(|error| keep("room", error))
                .ok()
        } else {
            Some(Destination::Room(RoomName::general()))
        };
        match (sender, to) {
            (Some(sender), Some(to)) if errors.is_empty() => Ok(Self { id, content, sender, to }),
            _ => Err(errors),
        }
    }

    /// Whether `stored` is this message, so that a repeated send with one id is a retry and not a conflict.
    pub fn is_same_as(&self, stored: &Message) -> bool {
        self.content == stored.content && self.sender == stored.sender && self.to == stored.to
    }
}

/// New content must also be visible: an empty bubble helps nobody, and NUL is refused by too many programs.
fn check_new_content(content: &str) -> Result<(), InvalidText> {
    if content.trim().is_empty() {
        return Err(InvalidText::Empty);
    }
    if content.contains('\0') {
        return Err(InvalidText::Forbidden('\0'));
    }
    check_content(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft() -> Draft {
        Draft { content: Some("hola".into()), sender: Some("Ana".into()), ..Draft::default() }
    }

    #[test]
    fn a_message_without_room_and_recipient_belongs_to_general() {
        let message = NewMessage::parse(draft()).unwrap();
        assert_eq!(message.to, Destination::Room(RoomName::general()));
        let empty = Draft { room: Some(String::new()), recipient: Some(String::new()), ..draft() };
        assert_eq!(NewMessage::parse(empty).unwrap(), message);
    }

    #[test]
    fn a_recipient_wins_over_a_room() {
        let both = Draft { room: Some("dev".into()), recipient: Some("Luis".into()), ..draft() };
        let luis = UserName::parse("Luis").unwrap();
        assert_eq!(NewMessage::parse(both).unwrap().to, Destination::Direct(luis));
    }

    #[test]
    fn every_field_at_fault_is_reported_at_once() {
        let errors = NewMessage::parse(Draft {
            id: Some("xyz".into()),
            content: Some("  \n".into()),
            sender: None,
            recipient: None,
            room: Some("../".into()),
            unread: Vec::new(),
        })
        .unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["id", "content", "sender", "room"]);
    }

    #[test]
    fn what_can_not_be_read_is_reported_with_what_breaks_a_rule_and_only_once() {
        let fields = json!({ "sender": "", "content": 5, "foo": 1, "room": null });
        let Value::Object(fields) = fields else { panic!("an object") };
        let errors = NewMessage::parse(Draft::from_json(fields)).unwrap_err();
        let mut told: Vec<String> = errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect();
        told.sort();
        let expected =
            ["content must be a text", "foo is not a field of a message that is sent", "sender must not be empty"];
        assert_eq!(told, expected);
    }
}
