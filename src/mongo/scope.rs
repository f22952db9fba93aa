//! Which messages a page is of, and the filters and indexes that find them.

use mongodb::bson::{Bson, Document, doc};

use super::schema::{all_key, conversation_key, room_key, to_nobody, to_somebody};
use crate::message::{DEFAULT_ROOM, Destination, Message, RoomName, UserName};

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those of a room.
    Room(RoomName),
    /// The direct messages that a person sent or received.
    Inbox(UserName),
    /// The direct messages between two people.
    Conversation(UserName, UserName),
    /// Every message.
    All,
}

impl Scope {
    /// Whether a message is one of them; what [`Self::filter`] asks of documents.
    pub(super) fn contains(&self, message: &Message) -> bool {
        match (self, &message.to) {
            (Scope::All, _) => true,
            (Scope::Room(room), Destination::Room(of)) => room == of,
            (Scope::Inbox(user), Destination::Direct(recipient)) => *user == message.sender || user == recipient,
            (Scope::Conversation(one, other), Destination::Direct(recipient)) => {
                let of = (&message.sender, recipient);
                of == (one, other) || of == (other, one)
            }
            (Scope::Room(_), Destination::Direct(_))
            | (Scope::Inbox(_) | Scope::Conversation(..), Destination::Room(_)) => false,
        }
    }

    /// The filter of this scope with `range`, which every branch needs so that each has its own bounds in its
    /// index, and with `extra`.
    pub(super) fn filter(&self, range: Document, extra: Document) -> Document {
        let branch = |mut part: Document| {
            part.extend(range.clone());
            part
        };
        let mut filter = match self {
            Scope::All => branch(Document::new()),
            Scope::Room(room) => {
                let mut part = to_nobody();
                part.insert("room", room_values(room));
                branch(part)
            }
            Scope::Inbox(user) => {
                let mut sent = to_somebody();
                sent.insert("sender", user.as_str());
                let received = doc! { "recipient": user.as_str() };
                doc! { "$or": [branch(sent), branch(received)] }
            }
            Scope::Conversation(one, other) => {
                let from = |sender: &UserName, recipient: &UserName| {
                    branch(doc! { "sender": sender.as_str(), "recipient": recipient.as_str() })
                };
                doc! { "$or": [from(one, other), from(other, one)] }
            }
        };
        filter.extend(extra);
        filter
    }

    /// The index to use. An inbox merges two, which a hint can not say and the planner finds.
    pub(super) fn index(&self) -> Option<Document> {
        match self {
            Scope::All => Some(all_key()),
            Scope::Room(_) => Some(room_key()),
            Scope::Conversation(..) => Some(conversation_key()),
            Scope::Inbox(_) => None,
        }
    }
}

/// `general` is also the room of messages that name none.
fn room_values(room: &RoomName) -> Bson {
    if room.as_str() == DEFAULT_ROOM {
        Bson::Document(doc! { "$in": [null, "", DEFAULT_ROOM] })
    } else {
        room.as_str().into()
    }
}
