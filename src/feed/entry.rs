//! A cursor and its event, encoded at most once per form and shared by every reader.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{
    cursor::Cursor,
    event::{Change, Event},
};

/// One place of the log.
#[derive(Debug)]
pub struct Entry {
    /// The place. It holds for every topic.
    pub cursor: Cursor,
    /// What happened there; `None` for a document that breaks the contract, which no reader is shown.
    pub event: Option<Event>,
    /// The JSON frame of each [`Change`], made when the first reader needs it.
    frames: [OnceLock<Bytes>; Change::ALL.len()],
}

impl Entry {
    pub(super) fn new(cursor: Cursor, event: Option<Event>) -> Self {
        Self { cursor, event, frames: Default::default() }
    }

    /// The JSON frame of this entry as a `change`, made by `encode` the first time. A topic that nobody follows
    /// here is never encoded.
    pub fn frame(&self, change: Change, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.frames[change as usize].get_or_init(encode).clone()
    }

    /// The memory that this entry can come to hold, in bytes, counted when it is appended: its texts once as an event and
    /// once more, as JSON, in each frame that readers may ask for. From above, so that the log's bound holds whatever is
    /// encoded later.
    pub(super) fn bytes_max(&self) -> usize {
        const FRAME_OVERHEAD_BYTES: usize = 600;
        const TOPIC_BYTES: usize = 150;
        let Some(event) = &self.event else {
            return size_of::<Self>();
        };
        let id = event.id.as_str().len();
        let (text, json) = match &event.after {
            Some(message) => (message.content.len() + 300, json_bytes(&message.content)),
            None => (0, 0),
        };
        // A message is told as `created` and as `updated`; `deleted` has no text.
        let frames = Change::ALL.len() * (FRAME_OVERHEAD_BYTES + id) + 2 * json;
        size_of::<Self>() + event.topics().len() * TOPIC_BYTES + id + text + frames
    }
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
