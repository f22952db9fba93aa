//! What a page shows: a room or an inbox.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::texts::{Texts, fill};
use crate::{
    message::{RoomName, UserName},
    mongo::Scope,
};

/// What JavaScript's `encodeURIComponent` escapes, nearly: names stand in paths and in query values.
const IN_URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name or a token, fit to stand in a URL.
pub(super) fn encoded(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, IN_URL).into()
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The messages of a room.
    Room(RoomName),
    /// The direct messages to and from one person.
    Inbox(UserName),
}

impl Place {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Place::Room(_) => "room",
            Place::Inbox(_) => "inbox",
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Place::Room(room) => room.as_str(),
            Place::Inbox(user) => user.as_str(),
        }
    }

    pub(super) fn path(&self) -> String {
        match self {
            Place::Room(room) => format!("/rooms/{}", encoded(room.as_str())),
            Place::Inbox(user) => format!("/inbox/{}", encoded(user.as_str())),
        }
    }

    /// What to call it.
    pub(super) fn title(&self, texts: &Texts) -> String {
        match self {
            Place::Room(room) => room.to_string(),
            Place::Inbox(user) => fill(&texts.page.inbox_of, "user", user.as_str()),
        }
    }

    pub(super) fn is_inbox(&self) -> bool {
        matches!(self, Place::Inbox(_))
    }

    pub(super) fn scope(&self) -> Scope {
        match self {
            Place::Room(room) => Scope::Room(room.clone()),
            Place::Inbox(user) => Scope::Inbox(user.clone()),
        }
    }

    /// What to type into mongosh for a message to show here.
    pub(super) fn mongosh_line(&self, collection: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let is_word = collection.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && collection.starts_with(|c: char| c.is_ascii_alphabetic());
        let collection = match is_word {
            true => format!("db.{collection}"),
            false => format!("db.getCollection({})", quoted(collection)),
        };
        let to = match self {
            Place::Room(_) => "room",
            Place::Inbox(_) => "recipient",
        };
        let name = quoted(self.name());
        format!(r#"{collection}.insertOne({{ content: "hola", sender: "mongosh", {to}: {name}, date: new Date() }})"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_fits_into_its_path() {
        let room = Place::Room(RoomName::parse("año/ñ & \"x\"?#%").unwrap());
        assert_eq!(room.path(), "/rooms/a%C3%B1o%2F%C3%B1%20%26%20%22x%22%3F%23%25");
        let inbox = Place::Inbox(UserName::parse("Ana").unwrap());
        assert_eq!(inbox.path(), "/inbox/Ana");
    }

    #[test]
    fn the_mongosh_line_quotes_what_it_must() {
        let room = Place::Room(RoomName::parse("a\"b").unwrap());
        let fields = r#"{ content: "hola", sender: "mongosh", room: "a\"b", date: new Date() }"#;
        assert_eq!(room.mongosh_line("messages"), format!("db.messages.insertOne({fields})"));
        assert_eq!(room.mongosh_line("chat-2"), format!(r#"db.getCollection("chat-2").insertOne({fields})"#));
    }
}
