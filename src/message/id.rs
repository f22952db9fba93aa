//! The text form of an `_id`.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The text form of a document's `_id`: an ObjectId is its 24 hexadecimal digits, any other type a tagged form
/// that `mongo::id` makes. Injective, URL-safe, and in the order in which MongoDB sorts the ids of one type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// An id that a client chose, or `None` if it is not 24 hexadecimal digits. Capitals are folded.
    pub fn parse_object_id(text: &str) -> Option<Self> {
        let hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// An id whose text form is known to be right: for `mongo::id`, which made it from BSON.
    pub fn from_text_form(text: String) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.0)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_object_ids_in_small_letters() {
        let id = MessageId::parse_object_id("65A1B2C3D4E5F60718293A4B").unwrap();
        assert_eq!(id.as_str(), "65a1b2c3d4e5f60718293a4b");
        assert!(MessageId::parse_object_id("65a1").is_none());
    }
}
