//! What a message is, and the rules for its parts. Parsing is the only way to make one.
//!
//! The rules are the data contract (`docs/data-contract.md`): they hold for whoever writes, so the decoder of
//! database documents and the parser of client input both end in the types of this file.

mod draft;
mod id;
mod invisible;
mod name;
mod search;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer, ser::SerializeStruct};

pub use draft::{Draft, FieldError, NewMessage};
pub use id::MessageId;
pub use name::{InvalidText, RoomName, UserName};
pub use search::{SEARCH_CHARS_MAX, SearchWords};

/// The longest content, in characters (Unicode code points, as MongoDB's `maxLength` counts them).
pub const CONTENT_CHARS_MAX: usize = 4_000;
/// The longest name of a person or a room, in characters after normalisation.
pub const NAME_CHARS_MAX: usize = 64;
/// The longest `_id` that a message may have, in bytes of BSON value.
pub const ID_BYTES_MAX: usize = 256;
/// The room of a message that names neither room nor recipient.
pub const DEFAULT_ROOM: &str = "general";

/// One document of the collection `messages`, checked against the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The document's `_id` in its text form.
    pub id: MessageId,
    /// 1 to [`CONTENT_CHARS_MAX`] characters, exactly as written.
    pub content: String,
    /// Who says that they wrote it. A claim: there are no accounts.
    pub sender: UserName,
    /// Where it belongs.
    pub to: Destination,
    /// The effective date, to the millisecond: the field `date`, else the time in an ObjectId `_id`.
    pub date: DateTime<Utc>,
}

/// Where a message belongs: to a room or, as a direct message, to the inboxes of two people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Everybody in this room.
    Room(RoomName),
    /// This recipient, and the sender.
    Direct(UserName),
}

/// The contract's rule for content, for any writer.
///
/// # Errors
/// When `content` is empty or longer than [`CONTENT_CHARS_MAX`] characters.
pub fn check_content(content: &str) -> Result<(), InvalidText> {
    if content.is_empty() {
        return Err(InvalidText::Empty);
    }
    name::check_length(content, CONTENT_CHARS_MAX)
}

/// A date as every transport writes it: RFC 3339, UTC, milliseconds. For years 1 to 9999, which the contract
/// asks for, the order of these texts is the order of the dates.
pub fn date_text(date: &DateTime<Utc>) -> String {
    date.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The JSON of a message, the same over every transport.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_struct("Message", 5)?;
        json.serialize_field("id", &self.id)?;
        json.serialize_field("content", &self.content)?;
        json.serialize_field("sender", &self.sender)?;
        match &self.to {
            Destination::Direct(recipient) => json.serialize_field("recipient", recipient)?,
            Destination::Room(room) => json.serialize_field("room", room)?,
        }
        json.serialize_field("date", &date_text(&self.date))?;
        json.end()
    }
}
