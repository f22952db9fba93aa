//! A cursor and its event, encoded at most once per form and shared by every reader.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{
    cursor::Cursor,
    event::{Before, Change, Event},
    topic::{Topic, Topics},
};

/// A way in which entries go out. Each has an encoding of its own, ready to be written as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A frame of RFC 6455.
    WebSocket,
}

impl Transport {
    /// All of them, in the order of their discriminants.
    const ALL: [Transport; 1] = [Transport::WebSocket];
}

/// One place of the log.
#[derive(Debug)]
pub struct Entry {
    /// The place. It holds for every topic.
    pub cursor: Cursor,
    /// What happened there; `None` for a document that breaks the contract, which no reader is shown.
    pub event: Option<Event>,
    /// The topics of what the message is now: every reader asks for them.
    topics_after: Topics,
    /// What goes out, for each transport and [`Change`], made when the first reader needs it.
    encodings: [[OnceLock<Bytes>; Change::ALL.len()]; Transport::ALL.len()],
}

impl Entry {
    pub(super) fn new(cursor: Cursor, event: Option<Event>) -> Self {
        let topics_after = event.as_ref().map(Event::topics_after).unwrap_or_default();
        Self { cursor, event, topics_after, encodings: Default::default() }
    }

    /// What this entry is to a session that follows the topics for which `follows` holds, or `None` if it is nothing to
    /// it.
    pub fn change_for(&self, follows: impl Fn(&Topic) -> bool) -> Option<Change> {
        self.event.as_ref()?.change_between(&self.topics_after, follows)
    }

    /// The topics of what the message is now; none if it is no longer.
    pub fn topics_after(&self) -> &[Topic] {
        &self.topics_after
    }

    /// This entry as a `change` over a `transport`, made by `encode` the first time. A topic that nobody follows here is
    /// never encoded.
    pub fn encoded(&self, transport: Transport, change: Change, encode: impl FnOnce() -> Bytes) -> &Bytes {
        self.encodings[transport as usize][change as usize].get_or_init(encode)
    }

    /// The memory that this entry can come to hold, in bytes, counted when it is appended: its texts once as an event and
    /// once more, as JSON, in each encoding that readers may ask for. From above, so that the log's bound holds whatever
    /// is encoded later; but what can never be asked for does not count, which for a new message is two forms of three.
    pub(super) fn bytes_max(&self) -> usize {
        /// What the allocator takes beside a text, and the log beside an entry.
        const TEXT_BYTES: usize = 16;
        const PLACE_BYTES: usize = 48;
        /// A topic's list with one place in it: at the worst every entry has topics of its own.
        const TOPIC_BYTES: usize = 150;
        let Some(event) = &self.event else {
            return PLACE_BYTES + size_of::<Self>();
        };
        let id = event.id.as_str().len();
        let (mut texts, mut json) = (TEXT_BYTES + id, 0);
        if let Some(message) = &event.after {
            let (content, sender) = (message.content.as_str(), message.sender.as_str());
            texts += content.len() + sender.len() + 2 * TEXT_BYTES;
            json += json_bytes(content) + json_bytes(sender);
        }
        let topics = event.topics();
        let names: usize = topics.iter().map(topic_json_bytes).sum();
        // A message is told as `created` and as `updated`; `deleted` has no text.
        let (with_text, without) = match (&event.before, &event.after) {
            (Before::Nowhere, Some(_)) => (1, 0),
            (_, Some(_)) => (2, 1),
            (_, None) => (0, 1),
        };
        let frame = FRAME_BYTES + id + names;
        let frames = with_text * (frame + names + json) + without * frame;
        let lists = topics.len() * TOPIC_BYTES + (names + (TEXT_BYTES + size_of::<Topic>()) * topics.len());
        PLACE_BYTES + size_of::<Self>() + texts + lists + Transport::ALL.len() * frames
    }
}

/// A frame without its texts and names: its header, its field names, a cursor of 40 characters and a date.
const FRAME_BYTES: usize = 280;

/// `{"inbox":"..."},`
fn topic_json_bytes(topic: &Topic) -> usize {
    let name = match topic {
        Topic::Room(room) => room.as_str(),
        Topic::Inbox(user) => user.as_str(),
        Topic::All => "",
    };
    json_bytes(name) + 16
}

/// How many bytes a text takes in JSON: control characters take six, quotes and backslashes two.
fn json_bytes(text: &str) -> usize {
    let of_byte = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    text.bytes().map(of_byte).sum()
}
