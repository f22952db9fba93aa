//! What a client can follow, and which topics a message belongs to.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::message::{Destination, Message, RoomName, UserName};

/// Something that a client can follow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The messages of one room.
    Room(RoomName),
    /// The direct messages that one person sent or received.
    Inbox(UserName),
    /// Every message there is.
    All,
}

/// The topics that a message belongs to, beside [`Topic::All`], which everything belongs to: its room, or the
/// inboxes of its sender and its recipient (one inbox when somebody writes to themselves).
pub type Topics = Vec<Topic>;

/// The topics of a message from `sender` to `to`.
pub fn topics_of(sender: &UserName, to: &Destination) -> Topics {
    match to {
        Destination::Room(room) => vec![Topic::Room(room.clone())],
        Destination::Direct(recipient) if recipient == sender => vec![Topic::Inbox(sender.clone())],
        Destination::Direct(recipient) => {
            vec![Topic::Inbox(sender.clone()), Topic::Inbox(recipient.clone())]
        }
    }
}

impl Message {
    /// See [`topics_of`].
    pub fn topics(&self) -> Topics {
        topics_of(&self.sender, &self.to)
    }
}

/// `{"room": "general"}`, `{"inbox": "Ana"}` or `{"all": true}`.
impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_map(Some(1))?;
        match self {
            Topic::Room(room) => json.serialize_entry("room", room)?,
            Topic::Inbox(user) => json.serialize_entry("inbox", user)?,
            Topic::All => json.serialize_entry("all", &true)?,
        }
        json.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_message_belongs_to_both_inboxes_and_no_room() {
        let (ana, luis) = (UserName::parse("Ana").unwrap(), UserName::parse("Luis").unwrap());
        assert_eq!(
            topics_of(&ana, &Destination::Direct(luis.clone())),
            [Topic::Inbox(ana.clone()), Topic::Inbox(luis)]
        );
        assert_eq!(topics_of(&ana, &Destination::Direct(ana.clone())), [Topic::Inbox(ana.clone())]);
    }
}
