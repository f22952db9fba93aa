//! A place in the log, and the topics that are read from it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Entry, Feed, log::Located};
use crate::{cursor::Cursor, topic::Topic};

/// The most entries of one [`Reading`]: bounds the work under the log's lock and what a slow client holds.
const READING_ENTRIES_MAX: usize = 256;

/// One reader: it owns a place, not a queue, so a slow one costs nothing but its place.
#[derive(Debug)]
pub struct Reader {
    feed: Feed,
    turned: watch::Receiver<()>,
    state: State,
    /// In order, each once. They are few: a set would cost more memory than all the rest of a reader.
    topics: Vec<Topic>,
    position: Cursor,
    /// The last look did not see to the end of the log.
    has_more: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be found in the log, or waited for when another server was faster.
    After(Cursor),
    At(u64),
}

/// What one look at the log gave.
#[derive(Debug)]
pub enum Reading {
    /// Entries that may concern the reader's topics, in stream order, with their places in the log: none when there is
    /// nothing new, and then the reader is up to date and its position has moved.
    Entries(Vec<(u64, Arc<Entry>)>),
    /// The reader's cursor is ahead of this server, which will come to it soon.
    Waiting,
    /// What follows the reader's position is not known here. The reader stays where it is: it can go on in another
    /// log by [`Reader::continue_in`], or give up by [`Reader::restart`].
    Gap(Gap),
}

/// Why a log can not answer a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// What follows was evicted; MongoDB's oplog may still have it.
    Evicted,
    /// The stream was broken, so what follows may never have been known here.
    Broken,
    /// The cursor is of another collection, or of one that was dropped.
    OtherCollection,
    /// The cursor is of a time to come, by far.
    FarAhead,
}

impl Gap {
    /// The gap in words for a client.
    pub fn as_str(self) -> &'static str {
        match self {
            Gap::Evicted => "the cursor is older than what is kept",
            Gap::Broken => "the change stream was broken",
            Gap::OtherCollection => "the cursor is of another collection",
            Gap::FarAhead => "the cursor is of a time to come",
        }
    }
}

impl Reader {
    pub(super) fn from_now(feed: Feed) -> Self {
        let (place, position) = {
            let log = feed.read();
            (log.end_place(), log.watermark())
        };
        Self::new(feed, State::At(place), position)
    }

    pub(super) fn after(feed: Feed, cursor: Cursor) -> Self {
        Self::new(feed, State::After(cursor), cursor)
    }

    fn new(feed: Feed, state: State, position: Cursor) -> Self {
        let turned = feed.turned.clone();
        Self { feed, turned, state, topics: Vec::new(), position, has_more: true }
    }

    /// Goes on after [`Self::position`] in another log, with the same topics.
    pub fn continue_in(&mut self, feed: &Feed) {
        self.feed = feed.clone();
        self.turned = feed.turned.clone();
        (self.state, self.has_more) = (State::After(self.position), true);
    }

    /// Gives up what lies before, and goes on where the log can. What was missed can not be told any more.
    pub fn restart(&mut self) {
        let log = self.feed.read();
        let (place, position) = match self.state {
            State::At(place) => log.restart(place),
            State::After(_) => (log.end_place(), log.watermark()),
        };
        (self.state, self.position, self.has_more) = (State::At(place), position, true);
    }

    /// Follows one more topic from [`Self::position`] on. Says whether it is new.
    pub fn follow(&mut self, topic: Topic) -> bool {
        let Err(at) = self.topics.binary_search(&topic) else {
            return false;
        };
        self.topics.reserve_exact(1);
        self.topics.insert(at, topic);
        true
    }

    /// Follows one topic less. Says whether it was followed.
    pub fn unfollow(&mut self, topic: &Topic) -> bool {
        let at = self.topics.binary_search(topic);
        at.map(|at| self.topics.remove(at)).is_ok()
    }

    /// What is followed.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The cursor that stands for everything that was read: it holds for all topics.
    pub fn position(&self) -> Cursor {
        self.position
    }

    /// Whether something in `topic` is for this reader.
    pub fn follows(&self, topic: &Topic) -> bool {
        self.follows_all() || self.topics.binary_search(topic).is_ok()
    }

    fn follows_all(&self) -> bool {
        // In the order of topics it is the last one.
        self.topics.last() == Some(&Topic::All)
    }

    /// Looks at the log once, without waiting.
    pub fn read(&mut self) -> Reading {
        // Marked before the look: what is appended after it wakes the next `turn`.
        self.turned.mark_unchanged();
        let log = self.feed.read();
        let place = match self.state {
            State::At(place) => place,
            State::After(cursor) => match log.locate(cursor) {
                Located::At(place) => place,
                Located::Ahead => return Reading::Waiting,
                Located::Gone(gap) => return Reading::Gap(gap),
            },
        };
        let all = self.follows_all();
        match log.read(place, self.topics.iter(), all, READING_ENTRIES_MAX) {
            Some(found) => {
                (self.state, self.position) = (State::At(found.next_place), found.position);
                self.has_more = found.entries.len() == READING_ENTRIES_MAX;
                Reading::Entries(found.entries)
            }
            None => Reading::Gap(log.gap_before(place)),
        }
    }

    /// Goes back to right behind an entry of the last reading, the one at `place`: what came after it will be read
    /// again. A client that has no room for more so holds its place, not the entries.
    pub fn go_back_to(&mut self, place: u64, entry: &Entry) {
        (self.state, self.position, self.has_more) = (State::At(place + 1), entry.cursor, true);
    }

    /// Whether another look is worth while before the log has turned.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Waits until the log has turned since the last [`Self::read`]. Returns `false` when it never will again,
    /// because its writer is gone. May be dropped at any time and called again.
    pub async fn turn(&mut self) -> bool {
        self.turned.changed().await.is_ok()
    }
}
