//! One change to one message, and what it means to a session that follows some topics.

use crate::{
    message::{Message, MessageId},
    topic::{Topic, Topics},
};

/// One change to one message: what it was before, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which message.
    pub id: MessageId,
    /// Where it was.
    pub before: Before,
    /// What it is now; `None` when it was deleted, or edited into something that breaks the contract.
    pub after: Option<Message>,
    /// When it happened by the clock of MongoDB's primary, in milliseconds since 1970. For measuring; the order of events
    /// is that of their cursors.
    pub at_millis: u64,
}

/// Where a message was before an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Nowhere: it is new, or broke the contract and so was shown to nobody.
    Nowhere,
    /// In these topics.
    In(Topics),
    /// MongoDB could not say: the collection keeps no pre-images. Whoever shows the message must drop it.
    Unknown,
}

/// What an [`Event`] is to one session. The client applies it by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The message entered the topics that the session follows.
    Created,
    /// The message stayed within them, also when it moved from one to another.
    Updated,
    /// The message left them.
    Deleted,
}

impl Change {
    /// All of them, in the order of their discriminants, for tables that are indexed by a change.
    pub const ALL: [Change; 3] = [Change::Created, Change::Updated, Change::Deleted];

    /// The change in the word that clients know it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
        }
    }
}

impl Event {
    /// What this event is to a session that follows the topics for which `follows` holds, or `None` if it is
    /// nothing to it. A session that follows everything says `true` to each.
    pub fn change_for(&self, follows: impl Fn(&Topic) -> bool) -> Option<Change> {
        self.change_between(&self.topics_after(), follows)
    }

    /// The same, for whoever asks often and has [`Self::topics_after`] at hand.
    pub fn change_between(&self, after: &[Topic], follows: impl Fn(&Topic) -> bool) -> Option<Change> {
        let is_in = after.iter().any(&follows);
        let was_in = match &self.before {
            Before::Nowhere => false,
            Before::In(topics) => topics.iter().any(&follows),
            // Whoever follows it now may or may not have had it; an update serves both, as clients apply by id.
            // Whoever does not follow it now may have had it, and must let go of it.
            Before::Unknown => true,
        };
        match (was_in, is_in) {
            (false, true) => Some(Change::Created),
            (true, true) => Some(Change::Updated),
            (true, false) => Some(Change::Deleted),
            (false, false) => None,
        }
    }

    /// The topics of what the message is now; none if it is no longer.
    pub fn topics_after(&self) -> Topics {
        self.after.as_ref().map(Message::topics).unwrap_or_default()
    }

    /// The topics of what the message was; empty when it was nowhere, or when that is not known.
    pub fn topics_before(&self) -> &[Topic] {
        match &self.before {
            Before::In(topics) => topics,
            Before::Nowhere | Before::Unknown => &[],
        }
    }

    /// Every topic whose followers may have to hear of this event. [`Before::Unknown`] concerns everybody
    /// besides.
    pub fn topics(&self) -> Topics {
        let mut topics = self.topics_after();
        for topic in self.topics_before() {
            if !topics.contains(topic) {
                topics.push(topic.clone());
            }
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::message::{Destination, RoomName, UserName};

    fn room(name: &str) -> Topic {
        Topic::Room(RoomName::parse(name).unwrap())
    }

    fn event(before: Before, after_room: Option<&str>) -> Event {
        let id = MessageId::parse_object_id("65a1b2c3d4e5f60718293a4b").unwrap();
        Event {
            id: id.clone(),
            before,
            after: after_room.map(|name| Message {
                id,
                content: "hola".into(),
                sender: UserName::parse("Ana").unwrap(),
                to: Destination::Room(RoomName::parse(name).unwrap()),
                date: DateTime::UNIX_EPOCH,
            }),
            at_millis: 0,
        }
    }

    #[test]
    fn one_event_is_one_change_per_session() {
        let a = || Before::In(vec![room("a")]);
        let table = [
            // (event, followed rooms, expected)
            (event(Before::Nowhere, Some("a")), vec!["a"], Some(Change::Created)),
            (event(Before::Nowhere, Some("a")), vec!["b"], None),
            (event(a(), Some("a")), vec!["a"], Some(Change::Updated)),
            (event(a(), Some("b")), vec!["a"], Some(Change::Deleted)),
            (event(a(), Some("b")), vec!["b"], Some(Change::Created)),
            (event(a(), Some("b")), vec!["a", "b"], Some(Change::Updated)),
            (event(a(), None), vec!["a"], Some(Change::Deleted)),
            (event(a(), None), vec!["b"], None),
            (event(Before::Nowhere, None), vec!["a"], None),
            (event(Before::Unknown, Some("a")), vec!["a"], Some(Change::Updated)),
            (event(Before::Unknown, Some("a")), vec!["b"], Some(Change::Deleted)),
            (event(Before::Unknown, None), vec!["a"], Some(Change::Deleted)),
        ];
        for (event, rooms, expected) in table {
            let followed: Vec<Topic> = rooms.iter().map(|name| room(name)).collect();
            let change = event.change_for(|topic| followed.contains(topic));
            assert_eq!(change, expected, "{event:?} to {rooms:?}");
        }
    }
}
