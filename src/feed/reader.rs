//! A place in the log, and the topics that are read from it.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use smallvec::SmallVec;

use super::{
    Entry, Feed,
    bell::{Ear, Key},
    log::Located,
};
use crate::{cursor::Cursor, topic::Topic};

/// The most entries of one [`Reading`]: bounds the work under the log's lock and what a slow client holds.
const READING_ENTRIES_MAX: usize = 256;

/// One reader: it owns a place, not a queue, so a slow one costs nothing but its place.
#[derive(Debug)]
pub struct Reader {
    feed: Feed,
    ear: Arc<Ear>,
    key: Key,
    state: State,
    /// In order, each once. They are few: a set would cost more memory than all the rest of a reader.
    topics: Vec<Topic>,
    /// Where the ear stands in the list of each topic.
    keys: Vec<Key>,
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

/// Entries with their places in the log. Nearly always there is one, which then costs no allocation of each of a thousand
/// readers.
pub type Entries = SmallVec<[(u64, Arc<Entry>); 1]>;

/// What one look at the log gave.
#[derive(Debug)]
pub enum Reading {
    /// Entries that may concern the reader's topics, in stream order, with their places in the log: none when there is
    /// nothing new, and then the reader is up to date and its position has moved.
    Entries(Entries),
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
    /// The collection was dropped or renamed, or another one is in its place.
    Dropped,
    /// The cursor is of another collection, or of one that was dropped.
    OtherCollection,
    /// The cursor is of a time to come, by far.
    FarAhead,
}

impl Gap {
    /// All of them.
    pub const ALL: [Gap; 5] = [Gap::Evicted, Gap::Broken, Gap::Dropped, Gap::OtherCollection, Gap::FarAhead];

    /// The gap in words for a client.
    pub fn as_str(self) -> &'static str {
        match self {
            Gap::Evicted => "the cursor is older than what is kept",
            Gap::Broken => "the change stream was broken",
            Gap::Dropped => "the collection was dropped or made anew",
            Gap::OtherCollection => "the cursor is of another collection",
            Gap::FarAhead => "the cursor is of a time to come",
        }
    }
}

impl Reader {
    pub(super) fn from_now(feed: Feed) -> Self {
        let (place, position) = {
            let log = feed.0.read();
            (log.end_place(), log.watermark())
        };
        Self::new(feed, State::At(place), position)
    }

    pub(super) fn after(feed: Feed, cursor: Cursor) -> Self {
        Self::new(feed, State::After(cursor), cursor)
    }

    fn new(feed: Feed, state: State, position: Cursor) -> Self {
        let ear = Arc::<Ear>::default();
        let key = feed.0.bells().add(&ear);
        Self { feed, ear, key, state, topics: Vec::new(), keys: Vec::new(), position, has_more: true }
    }

    /// Goes on after [`Self::position`] in another log, with the same topics.
    pub fn continue_in(&mut self, feed: &Feed) {
        self.stop_listening();
        self.feed = feed.clone();
        let mut bells = self.feed.0.bells();
        self.key = bells.add(&self.ear);
        self.keys = self.topics.iter().map(|topic| bells.follow(topic, &self.ear)).collect();
        (self.state, self.has_more) = (State::After(self.position), true);
    }

    fn stop_listening(&mut self) {
        let mut bells = self.feed.0.bells();
        bells.remove(self.key, &self.ear);
        for (topic, key) in self.topics.iter().zip(self.keys.drain(..)) {
            bells.unfollow(topic, key);
        }
    }

    /// Gives up what lies before, and goes on where the log can. What was missed can not be told any more.
    pub fn restart(&mut self) {
        let log = self.feed.0.read();
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
        self.keys.reserve_exact(1);
        self.keys.insert(at, self.feed.0.bells().follow(&topic, &self.ear));
        self.topics.reserve_exact(1);
        self.topics.insert(at, topic);
        // There may be something of it since the last reading.
        self.has_more = true;
        true
    }

    /// Follows one topic less. Says whether it was followed.
    pub fn unfollow(&mut self, topic: &Topic) -> bool {
        let Ok(at) = self.topics.binary_search(topic) else {
            return false;
        };
        self.feed.0.bells().unfollow(topic, self.keys.remove(at));
        self.topics.remove(at);
        true
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
        match self.look() {
            Reading::Waiting => {
                // Whatever is appended from here on is heard. The second look sees what was appended before.
                self.feed.0.bells().wait(&self.ear);
                self.look()
            }
            reading => reading,
        }
    }

    fn look(&mut self) -> Reading {
        let log = self.feed.0.read();
        // With the lock, under which it is noted.
        let rung = self.ear.take();
        let place = match self.state {
            State::At(place) if self.has_more => place,
            // What lies between the last reading and the first ring is for others. It may be gone from the log.
            State::At(place) => match rung {
                Some(first_place) => place.max(first_place),
                None => {
                    (self.state, self.position) = (State::At(log.end_place()), log.watermark());
                    return Reading::Entries(Entries::new());
                }
            },
            State::After(cursor) => match log.locate(cursor) {
                Located::At(place) => place,
                Located::Ahead => return Reading::Waiting,
                Located::Gone(gap) => return Reading::Gap(gap),
            },
        };
        self.state = State::At(place);
        let all = self.follows_all();
        match log.read(place, self.topics.iter(), all, READING_ENTRIES_MAX) {
            Some(found) => {
                (self.state, self.position) = (State::At(found.next_place), found.position);
                self.has_more = found.entries.len() == READING_ENTRIES_MAX;
                if self.has_more {
                    // Who does not go on for long is seen to be behind.
                    self.ear.note(found.next_place);
                }
                Reading::Entries(found.entries)
            }
            None => Reading::Gap(log.gap_before(place)),
        }
    }

    /// Moves the position up to what may be for this reader, or to the watermark when there is nothing: it is not woken for
    /// what is for others, and the log may have rolled on over that.
    pub fn settle(&mut self) {
        let State::At(place) = self.state else {
            return;
        };
        if self.has_more {
            return;
        }
        let log = self.feed.0.read();
        match self.ear.rung_at() {
            None => (self.state, self.position) = (State::At(log.end_place()), log.watermark()),
            Some(first) if first > place => {
                if let Some(before) = log.cursor_before(first) {
                    (self.state, self.position) = (State::At(first), before);
                }
            }
            Some(_) => {}
        }
    }

    /// Goes back to right behind an entry of the last reading, the one at `place`: what came after it will be read
    /// again. A client that has no room for more so holds its place, not the entries.
    pub fn go_back_to(&mut self, place: u64, entry: &Entry) {
        (self.state, self.position, self.has_more) = (State::At(place + 1), entry.cursor, true);
        self.ear.note(place + 1);
    }

    /// Whether another look is worth while before the log has turned.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Waits until there may be something since the last [`Self::read`]. Returns `false` when there never will be again,
    /// because the log's writer is gone. May be dropped at any time and called again.
    pub async fn turn(&mut self) -> bool {
        poll_fn(|cx| {
            if self.feed.0.is_closed.load(Ordering::Acquire) {
                return Poll::Ready(false);
            }
            self.ear.poll_rung(cx).map(|()| true)
        })
        .await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop_listening();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use chrono::DateTime;
    use futures::FutureExt;

    use super::*;
    use crate::{
        cursor::{BOUNDARY, ClusterTime},
        event::{Before, Event},
        feed::{Change, FeedWriter, LogLimits, open},
        message::{Destination, Message, MessageId, RoomName, UserName},
    };

    fn at(seconds: u32) -> Cursor {
        Cursor { epoch: 1, time: ClusterTime { seconds, increment: 1 }, key: BOUNDARY }
    }

    fn room(name: &str) -> Topic {
        Topic::Room(RoomName::parse(name).unwrap())
    }

    fn message(seconds: u32, room: &str, before: Before) -> Change {
        let id = MessageId::from_text_form(seconds.to_string());
        let message = Message {
            id: id.clone(),
            content: "x".into(),
            sender: UserName::parse("Ana").unwrap(),
            to: Destination::Room(RoomName::parse(room).unwrap()),
            date: DateTime::UNIX_EPOCH,
        };
        (Cursor { key: 7, ..at(seconds) }, Some(Event { id, before, after: Some(message), at_millis: 0 }))
    }

    fn log(entries_max: usize) -> (FeedWriter, Feed) {
        open(LogLimits { entries_max, bytes_max: 1 << 24 }, at(1))
    }

    /// A reader of a room that has read everything and waits.
    fn waiting(feed: &Feed, name: &str) -> Reader {
        let mut reader = feed.reader_from_now();
        reader.follow(room(name));
        assert!(matches!(reader.read(), Reading::Entries(entries) if entries.is_empty()));
        assert!(!is_woken(&mut reader));
        reader
    }

    fn is_woken(reader: &mut Reader) -> bool {
        reader.turn().now_or_never().is_some()
    }

    #[test]
    fn a_message_wakes_those_whom_it_concerns_and_nobody_else() {
        let (mut writer, feed) = log(10);
        let (mut a, mut b) = (waiting(&feed, "a"), waiting(&feed, "b"));
        let mut all = feed.reader_from_now();
        all.follow(Topic::All);
        all.read();
        writer.append(vec![message(2, "a", Before::Nowhere)], at(2));
        assert_eq!([&mut a, &mut b, &mut all].map(is_woken), [true, false, true]);
        assert!(matches!(a.read(), Reading::Entries(entries) if entries.len() == 1));
        all.read();
        // Nobody knows whose it was.
        writer.append(vec![message(3, "a", Before::Unknown)], at(3));
        assert_eq!([&mut a, &mut b, &mut all].map(is_woken), [true, true, true]);
        [&mut a, &mut b, &mut all].map(Reader::read).into_iter().for_each(drop);
        writer.append(vec![], at(4));
        assert_eq!([&mut a, &mut b, &mut all].map(is_woken), [false, false, false], "only time has moved");
        writer.gap(at(9), || {});
        assert_eq!([&mut a, &mut b, &mut all].map(is_woken), [true, true, true]);
        assert!(matches!(b.read(), Reading::Gap(Gap::Broken)));
    }

    #[test]
    fn a_waker_that_was_left_is_called_once_something_comes() {
        let (mut writer, feed) = log(10);
        let reader = waiting(&feed, "a");
        let (flag, waker) = futures_test_waker();
        assert!(reader.ear.poll_rung(&std::task::Context::from_waker(&waker)).is_pending());
        writer.append(vec![message(2, "b", Before::Nowhere)], at(2));
        assert_eq!(Arc::strong_count(&flag), 3, "still registered");
        writer.append(vec![message(3, "a", Before::Nowhere)], at(3));
        assert!(flag.0.load(Ordering::Relaxed));
    }

    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn futures_test_waker() -> (Arc<Flag>, Waker) {
        let flag = Arc::new(Flag(false.into()));
        (flag.clone(), flag.into())
    }

    #[test]
    fn a_reader_of_a_quiet_room_keeps_up_with_a_log_that_rolls_on() {
        let (mut writer, feed) = log(3);
        let mut quiet = waiting(&feed, "quiet");
        for seconds in 2..50 {
            writer.append(vec![message(seconds, "loud", Before::Nowhere)], at(seconds));
        }
        quiet.settle();
        assert_eq!(quiet.position(), at(49));
        for seconds in 50..60 {
            writer.append(vec![message(seconds, "loud", Before::Nowhere)], at(seconds));
        }
        writer.append(vec![message(60, "quiet", Before::Nowhere)], at(60));
        quiet.settle();
        assert_eq!(quiet.position(), Cursor { key: 7, ..at(59) }, "right before what is for it");
        // What it follows besides begins there, too: not where it stood when it looked at the log last.
        quiet.follow(room("loud"));
        // Its place is gone with what was evicted, which was not for it.
        assert!(matches!(quiet.read(), Reading::Entries(entries) if entries.len() == 1));
        assert_eq!(quiet.position(), at(60));
    }

    #[test]
    fn a_reader_whose_place_is_still_to_come_is_woken_by_whatever_brings_it() {
        let (mut writer, feed) = log(10);
        let mut ahead = feed.reader_after(at(5));
        ahead.follow(room("a"));
        assert!(matches!(ahead.read(), Reading::Waiting));
        assert!(!is_woken(&mut ahead));
        writer.append(vec![message(3, "b", Before::Nowhere)], at(3));
        assert!(is_woken(&mut ahead));
        assert!(matches!(ahead.read(), Reading::Waiting));
        writer.append(vec![], at(5));
        assert!(is_woken(&mut ahead));
        assert!(matches!(ahead.read(), Reading::Entries(entries) if entries.is_empty()));
    }

    #[test]
    fn who_has_not_read_what_was_there_at_a_mark_is_behind() {
        let (mut writer, feed) = log(1_000);
        let (mut quick, mut slow, _other) = (waiting(&feed, "a"), waiting(&feed, "a"), waiting(&feed, "b"));
        assert_eq!(feed.readers_behind(feed.mark()), 0);
        writer.append(vec![message(2, "a", Before::Nowhere)], at(2));
        let mark = feed.mark();
        assert_eq!(feed.readers_behind(mark), 2);
        quick.read();
        writer.append(vec![message(3, "a", Before::Nowhere)], at(3));
        assert_eq!(feed.readers_behind(mark), 1, "what came later does not count yet");
        let Reading::Entries(entries) = slow.read() else { panic!("two") };
        assert_eq!(feed.readers_behind(mark), 0);
        // Its client had no room for the second one.
        slow.go_back_to(entries[0].0, &entries[0].1);
        quick.read();
        assert_eq!(feed.readers_behind(feed.mark()), 1);
        slow.read();
        writer.append((4..400).map(|seconds| message(seconds, "a", Before::Nowhere)).collect(), at(400));
        quick.read();
        let mark = feed.mark();
        assert_eq!(feed.readers_behind(mark), 2, "also who has read a part");
        quick.read();
        assert_eq!(feed.readers_behind(mark), 1);
    }

    #[test]
    fn readers_that_are_gone_leave_nothing() {
        let (_writer, feed) = log(10);
        let mut reader = waiting(&feed, "a");
        reader.follow(Topic::All);
        reader.unfollow(&room("a"));
        reader.continue_in(&feed);
        drop(reader);
        let ahead = feed.reader_after(at(5));
        drop(ahead);
        assert_eq!(
            format!("{:?}", feed.0.bells()),
            "Bells { everyone: Slab { len: 0, cap: 4 }, topics: {}, waiting: Slab { len: 0, cap: 0 } }"
        );
    }

    #[test]
    fn readers_that_come_and_go_while_nothing_is_appended_leave_nothing() {
        let (_writer, feed) = log(10);
        for _ in 0..1_000 {
            let mut ahead = feed.reader_after(at(5));
            assert!(matches!(ahead.read(), Reading::Waiting));
        }
        let bells = format!("{:?}", feed.0.bells());
        assert!(bells.contains("waiting: Slab { len: 0,"), "{bells}");
    }

    #[test]
    fn a_reader_that_waited_in_one_log_is_woken_in_the_next_one() {
        let (_, past) = log(10);
        let (mut writer, live) = log(10);
        let mut ahead = past.reader_after(at(5));
        assert!(matches!(ahead.read(), Reading::Waiting));
        ahead.continue_in(&live);
        assert!(matches!(ahead.read(), Reading::Waiting));
        assert!(!is_woken(&mut ahead));
        writer.append(vec![message(6, "a", Before::Nowhere)], at(6));
        assert!(is_woken(&mut ahead));
    }
}
