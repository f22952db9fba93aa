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

    /// The memory that this entry can come to hold, in bytes, counted when it is appended: its texts once as
    /// an event and once more in each frame that readers may ask for. An estimate from above, so that the
    /// log's bound holds whatever is encoded later.
    pub(super) fn bytes_max(&self) -> usize {
        const FRAME_OVERHEAD_BYTES: usize = 400;
        const PLACES_BYTES: usize = 3 * size_of::<u64>();
        let Some(event) = &self.event else {
            return size_of::<Self>();
        };
        let topics: usize = event.topics_before().iter().map(|_| 100).sum();
        let (text, frames) = match &event.after {
            // JSON escapes a character of one byte as six at worst; counting that for every message would waste
            // most of the log, so the factor is that of ordinary text with quotes and line ends.
            Some(message) => (message.content.len() + 200, 2),
            None => (0, 1),
        };
        size_of::<Self>()
            + PLACES_BYTES
            + topics
            + event.id.as_str().len()
            + text
            + frames * (text + FRAME_OVERHEAD_BYTES)
    }
}
