//! The ring: entries in stream order, evicted oldest first. Topics are lists of places in it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use super::{Entries, Gap, entry::Entry};
use crate::{
    cursor::{BOUNDARY, Cursor},
    event::Before,
    topic::Topic,
};

/// How much the log may hold. Whichever bound is met first evicts.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// The most entries.
    pub entries_max: usize,
    /// The most memory, in bytes, with the encodings and topic lists of the entries.
    pub bytes_max: usize,
}

/// How much the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize {
    /// Entries.
    pub entries: usize,
    /// Bytes, counted as for [`LogLimits::bytes_max`].
    pub bytes: usize,
}

/// How far a cursor may be ahead of this server before it is taken for one of another deployment, in seconds: ahead of
/// its clock and of its place in the stream, as either may be behind. Another server may be a little faster; none is a
/// minute faster.
const AHEAD_SECS_MAX: u64 = 60;

/// The log of one process.
#[derive(Debug)]
pub(super) struct Log {
    limits: LogLimits,
    entries: VecDeque<Arc<Entry>>,
    /// The place of `entries[0]`. Places count all entries ever appended, and one for every gap, so that a reader
    /// at the end of the log before a gap is seen to be before it.
    first_place: u64,
    /// The first place after the newest gap, and what that is.
    gap_place: u64,
    gap: Gap,
    bytes: usize,
    /// Places of the entries of each topic, in order. A topic without entries has no list.
    topics: HashMap<Topic, VecDeque<u64>>,
    /// Places of the entries that concern whoever reads: nobody knows whose they were.
    everybody: VecDeque<u64>,
    /// The log is complete after this cursor.
    floor: Cursor,
    /// The log may be read up to this cursor.
    watermark: Cursor,
}

/// What the log can do for a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Located {
    /// What comes after the cursor begins at this place.
    At(u64),
    /// This server has not come that far yet.
    Ahead,
    /// It can not be answered from here.
    Gone(Gap),
}

/// What a reader gets from one look at the log.
#[derive(Debug)]
pub(super) struct Found {
    /// In stream order, with their places; each concerns one of the topics asked for, or everybody.
    pub(super) entries: Entries,
    /// Where to go on.
    pub(super) next_place: u64,
    /// The cursor that stands for everything up to `next_place`.
    pub(super) position: Cursor,
}

impl Log {
    pub(super) fn new(limits: LogLimits, start: Cursor) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            first_place: 0,
            gap_place: 0,
            gap: Gap::Broken,
            bytes: 0,
            topics: HashMap::new(),
            everybody: VecDeque::new(),
            floor: start,
            watermark: start,
        }
    }

    pub(super) fn append(&mut self, entries: Vec<Arc<Entry>>, position: Cursor) {
        for entry in entries {
            self.push(entry);
        }
        self.watermark = position;
    }

    fn push(&mut self, entry: Arc<Entry>) {
        let place = self.end_place();
        if let Some(event) = &entry.event {
            for topic in event.topics() {
                self.topics.entry(topic).or_default().push_back(place);
            }
            if event.before == Before::Unknown {
                self.everybody.push_back(place);
            }
        }
        self.bytes += entry.bytes_max();
        self.entries.push_back(entry);
        while self.entries.len() > self.limits.entries_max || self.bytes > self.limits.bytes_max {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        self.first_place += 1;
        self.bytes -= entry.bytes_max();
        self.floor = entry.cursor;
        if let Some(event) = &entry.event {
            for topic in event.topics() {
                if let Some(places) = self.topics.get_mut(&topic) {
                    places.pop_front();
                    if places.is_empty() {
                        self.topics.remove(&topic);
                    }
                }
            }
            if event.before == Before::Unknown {
                self.everybody.pop_front();
            }
        }
    }

    pub(super) fn gap(&mut self, start: Cursor) {
        self.first_place = self.end_place() + 1;
        self.gap_place = self.first_place;
        // Each collection has an epoch of its own, and so has the time without one.
        self.gap = if start.epoch == self.watermark.epoch { Gap::Broken } else { Gap::Dropped };
        self.entries.clear();
        self.topics.clear();
        self.everybody.clear();
        self.bytes = 0;
        self.floor = start;
        self.watermark = start;
    }

    /// Where what comes after `cursor` begins.
    pub(super) fn locate(&self, cursor: Cursor) -> Located {
        if cursor.epoch != self.watermark.epoch {
            return Located::Gone(Gap::OtherCollection);
        }
        if cursor.time > self.watermark.time {
            let is_far = is_far_ahead(cursor, self.watermark);
            return if is_far { Located::Gone(Gap::FarAhead) } else { Located::Ahead };
        }
        if cursor.time < self.floor.time {
            return Located::Gone(Gap::Evicted);
        }
        let from = self.entries.partition_point(|entry| entry.cursor.time < cursor.time);
        let place = |index: usize| Located::At(self.first_place + index as u64);
        if cursor.key != BOUNDARY {
            let same_time = self.entries.range(from..).take_while(|entry| entry.cursor.time == cursor.time);
            // The first match counts: after a collision of hashes something is repeated, never skipped.
            if let Some(offset) = same_time.map(|entry| entry.cursor.key).position(|key| key == cursor.key) {
                return place(from + offset + 1);
            }
            if cursor == self.watermark {
                return Located::At(self.end_place());
            }
        }
        if cursor == self.floor {
            return place(from);
        }
        if cursor.time == self.floor.time && self.floor.key != BOUNDARY {
            // Some changes of this time were evicted, and this cursor does not say which it has seen.
            return Located::Gone(Gap::Evicted);
        }
        if cursor.key != BOUNDARY && cursor.time == self.watermark.time {
            // The rest of this time may be on its way (a transaction in two batches), and with it this change.
            return Located::Ahead;
        }
        // A known time and an unknown change: all of that time again. Clients apply by id.
        place(from)
    }

    /// What lies from `place` on for a reader of `topics` (ignored when `all`), at most `entries_max` of it.
    /// `None` when the log no longer reaches back to `place`.
    pub(super) fn read<'a>(
        &'a self,
        place: u64,
        topics: impl Iterator<Item = &'a Topic>,
        all: bool,
        entries_max: usize,
    ) -> Option<Found> {
        if place < self.first_place {
            return None;
        }
        let entries: Entries = if all {
            let skipped = (place - self.first_place) as usize;
            let rest = self.entries.range(skipped.min(self.entries.len())..);
            let shown = rest.enumerate().map(|(offset, entry)| (place + offset as u64, entry.clone()));
            shown.take(entries_max).collect()
        } else {
            self.merge(place, topics, entries_max)
        };
        let (next_place, position) = match entries.last() {
            // There may be more: go on after the last one.
            Some(&(place, ref last)) if entries.len() == entries_max => (place + 1, last.cursor),
            _ => (self.end_place(), self.watermark),
        };
        Some(Found { entries, next_place, position })
    }

    /// The places of several topics, in log order and each once: a direct message to oneself, or a move from
    /// one followed room to another, stands in two lists.
    fn merge<'a>(&'a self, from: u64, topics: impl Iterator<Item = &'a Topic>, entries_max: usize) -> Entries {
        let entry = |place: u64| (place, self.entries[(place - self.first_place) as usize].clone());
        let rest = |list: &'a VecDeque<u64>| {
            // Most readers are at the end or close to it, and a look at the newest place says so.
            let is_read = list.back().is_none_or(|&newest| newest < from);
            let first = if is_read { list.len() } else { list.partition_point(|&place| place < from) };
            list.range(first..).take(entries_max).copied()
        };
        let lists = topics.filter_map(|topic| self.topics.get(topic)).chain([&self.everybody]);
        let mut lists = lists.map(rest).filter(|places| places.len() > 0);
        let (Some(first), second) = (lists.next(), lists.next()) else {
            return Entries::new();
        };
        let Some(second) = second else {
            // One list is in order by itself. That is how nearly everybody reads: one room, or one room at a time.
            return first.map(entry).collect();
        };
        let mut places: Vec<u64> = first.chain(second).chain(lists.flatten()).collect();
        places.sort_unstable();
        places.dedup();
        places.truncate(entries_max);
        places.into_iter().map(entry).collect()
    }

    /// Why the log no longer reaches back to `place`.
    pub(super) fn gap_before(&self, place: u64) -> Gap {
        if place < self.gap_place { self.gap } else { Gap::Evicted }
    }

    /// Where a reader goes on that can not be told what it missed, and the cursor that stands for it. After a gap of the
    /// stream that is right behind the gap: whatever is known is told. A reader that only was too slow goes to the end.
    pub(super) fn restart(&self, place: u64) -> (u64, Cursor) {
        if place < self.gap_place && self.first_place == self.gap_place {
            (self.first_place, self.floor)
        } else {
            (self.end_place(), self.watermark)
        }
    }

    pub(super) fn watermark(&self) -> Cursor {
        self.watermark
    }

    /// The cursor that stands for everything before `place`; `None` when the log no longer reaches back to there.
    pub(super) fn cursor_before(&self, place: u64) -> Option<Cursor> {
        match place.checked_sub(self.first_place)? {
            0 => Some(self.floor),
            n => self.entries.get(n as usize - 1).map(|entry| entry.cursor),
        }
    }

    pub(super) fn end_place(&self) -> u64 {
        self.first_place + self.entries.len() as u64
    }

    pub(super) fn size(&self) -> LogSize {
        LogSize { entries: self.entries.len(), bytes: self.bytes }
    }
}

fn is_far_ahead(cursor: Cursor, watermark: Cursor) -> bool {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_secs = since_1970.map_or(0, |duration| duration.as_secs());
    // MongoDB gives the times, and its clock may be ahead of ours.
    let newest_secs = now_secs.max(u64::from(watermark.time.seconds));
    u64::from(cursor.time.seconds) > newest_secs + AHEAD_SECS_MAX
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::{
        cursor::ClusterTime,
        event::Event,
        message::{Destination, Message, MessageId, RoomName, UserName},
    };

    const EPOCH: u32 = 7;

    fn at(seconds: u32, key: u32) -> Cursor {
        Cursor { epoch: EPOCH, time: ClusterTime { seconds, increment: 1 }, key }
    }

    fn room(name: &str) -> Topic {
        Topic::Room(RoomName::parse(name).unwrap())
    }

    fn created(cursor: Cursor, name: &str) -> Arc<Entry> {
        let id = MessageId::from_text_form(format!("{cursor}"));
        let message = Message {
            id: id.clone(),
            content: name.into(),
            sender: UserName::parse("Ana").unwrap(),
            to: Destination::Room(RoomName::parse(name).unwrap()),
            date: DateTime::UNIX_EPOCH,
        };
        Arc::new(Entry::new(cursor, Some(Event { id, before: Before::Nowhere, after: Some(message), at_millis: 0 })))
    }

    fn log(entries_max: usize) -> Log {
        Log::new(LogLimits { entries_max, bytes_max: 1 << 24 }, at(100, BOUNDARY))
    }

    /// Cursors of what a reader of `topics` finds from the place of `cursor` on.
    fn after(log: &Log, cursor: Cursor, topics: &[&str]) -> Result<Vec<Cursor>, Located> {
        match log.locate(cursor) {
            Located::At(place) => {
                let topics: Vec<Topic> = topics.iter().map(|name| room(name)).collect();
                let found = log.read(place, topics.iter(), false, 100).expect("the place is in the log");
                Ok(found.entries.iter().map(|(_, entry)| entry.cursor).collect())
            }
            other => Err(other),
        }
    }

    fn is_gone<T: std::fmt::Debug>(result: Result<T, Located>) -> bool {
        matches!(result, Err(Located::Gone(_)))
    }

    #[test]
    fn recovery() {
        // The cases of centrifuge's recovery table: empty, same position, gone, not there yet, wrong epoch.
        let mut log = log(3);
        assert_eq!(after(&log, at(100, BOUNDARY), &["a"]), Ok(vec![]), "empty log, same position");
        assert!(is_gone(after(&log, at(99, 5), &["a"])), "empty log, before its start");
        assert_eq!(after(&log, at(101, 5), &["a"]), Err(Located::Ahead), "not there yet");
        assert!(is_gone(after(&log, Cursor { epoch: 8, ..at(100, 0) }, &["a"])), "another collection");
        let far = Cursor { time: ClusterTime { seconds: u32::MAX, increment: 1 }, ..at(0, 1) };
        assert!(is_gone(after(&log, far, &["a"])), "a time to come");

        log.append(vec![created(at(101, 1), "a"), created(at(102, 2), "b"), created(at(103, 3), "a")], at(103, 3));
        assert_eq!(after(&log, at(100, BOUNDARY), &["a"]), Ok(vec![at(101, 1), at(103, 3)]));
        assert_eq!(after(&log, at(101, 1), &["a"]), Ok(vec![at(103, 3)]));
        assert_eq!(after(&log, at(102, 2), &["a", "b"]), Ok(vec![at(103, 3)]));
        assert_eq!(after(&log, at(103, 3), &["a", "b"]), Ok(vec![]), "up to date");
        assert_eq!(after(&log, at(102, BOUNDARY), &["b"]), Ok(vec![at(102, 2)]), "a boundary is before its time");

        log.append(vec![created(at(104, 4), "a")], at(105, BOUNDARY));
        assert!(is_gone(after(&log, at(100, BOUNDARY), &["a"])), "evicted");
        assert_eq!(after(&log, at(101, 1), &["a"]), Ok(vec![at(103, 3), at(104, 4)]), "the floor itself");
        assert_eq!(after(&log, at(105, BOUNDARY), &["a"]), Ok(vec![]), "an idle client's position");
    }

    #[test]
    fn a_cursor_a_little_ahead_is_waited_for_also_when_our_clock_is_behind() {
        let tomorrow = u32::MAX - 1_000;
        let mut log = log(3);
        log.append(vec![created(at(tomorrow, 1), "a")], at(tomorrow, 1));
        assert_eq!(after(&log, at(tomorrow + 5, 1), &["a"]), Err(Located::Ahead));
        assert!(is_gone(after(&log, at(tomorrow + 500, 1), &["a"])));
    }

    #[test]
    fn changes_of_one_time_are_told_apart() {
        let mut log = log(10);
        let batch = (1..=4).map(|key| created(at(101, key), if key % 2 == 0 { "a" } else { "b" }));
        log.append(batch.collect(), at(101, 4));
        assert_eq!(after(&log, at(101, 2), &["a", "b"]), Ok(vec![at(101, 3), at(101, 4)]));
        assert_eq!(after(&log, at(101, 9), &["a"]), Err(Located::Ahead), "the rest of this time may be on its way");
        log.append(vec![], at(102, BOUNDARY));
        let all: Vec<Cursor> = (1..=4).map(|key| at(101, key)).collect();
        assert_eq!(after(&log, at(101, 9), &["a", "b"]), Ok(all), "unknown: all of that time again, never less");
    }

    #[test]
    fn a_time_that_was_evicted_in_part_is_only_answered_for_a_known_change() {
        let mut log = log(2);
        log.append((1..=4).map(|key| created(at(101, key), "a")).collect(), at(101, 4));
        assert_eq!(after(&log, at(101, 2), &["a"]), Ok(vec![at(101, 3), at(101, 4)]), "the floor itself");
        assert_eq!(after(&log, at(101, 3), &["a"]), Ok(vec![at(101, 4)]));
        assert!(is_gone(after(&log, at(101, 1), &["a"])));
        assert!(is_gone(after(&log, at(101, BOUNDARY), &["a"])));
    }

    #[test]
    fn a_document_that_breaks_the_contract_leaves_its_place() {
        let mut log = log(10);
        log.append(vec![Arc::new(Entry::new(at(101, 1), None)), created(at(102, 2), "a")], at(102, 2));
        assert_eq!(after(&log, at(101, 1), &["a"]), Ok(vec![at(102, 2)]));
    }

    #[test]
    fn nobody_reads_across_a_gap() {
        let mut log = log(10);
        log.append(vec![created(at(101, 1), "a")], at(101, 1));
        let end = log.end_place();
        log.gap(at(200, BOUNDARY));
        assert!(log.read(end, [room("a")].iter(), false, 10).is_none(), "a reader that was up to date");
        assert_eq!(log.gap_before(end), Gap::Broken);
        let (place, position) = log.restart(end);
        assert_eq!((place, position), (log.first_place, at(200, BOUNDARY)), "it goes on right behind the gap");
        assert!(is_gone(after(&log, at(101, 1), &["a"])));
        log.append(vec![created(at(201, 2), "a")], at(201, 2));
        assert_eq!(after(&log, at(200, BOUNDARY), &["a"]), Ok(vec![at(201, 2)]));
        let end = log.end_place();
        log.gap(Cursor { epoch: EPOCH + 1, ..at(202, BOUNDARY) });
        assert_eq!(log.gap_before(end), Gap::Dropped);
    }

    #[test]
    fn both_bounds_hold_and_topic_lists_go_with_their_entries() {
        let mut log = log(5);
        for n in 0..100 {
            log.append(vec![created(at(101 + n, 1), &format!("room {n}"))], at(101 + n, 1));
        }
        assert_eq!((log.entries.len(), log.topics.len()), (5, 5));
        let mut small = Log::new(LogLimits { entries_max: 1_000, bytes_max: 10_000 }, at(100, BOUNDARY));
        for n in 0..100 {
            small.append(vec![created(at(101 + n, 1), "a")], at(101 + n, 1));
        }
        assert!(small.size().bytes <= 10_000 && small.size().entries > 1, "{:?}", small.size());
        let counted: usize = small.entries.iter().map(|entry| entry.bytes_max()).sum();
        assert_eq!(small.size().bytes, counted);
    }

    #[test]
    fn a_long_rest_is_read_in_parts_that_join() {
        let mut log = log(1_000);
        let batch = (0..500).map(|n| created(at(101 + n, 1), if n % 3 == 0 { "a" } else { "b" }));
        log.append(batch.collect(), at(700, BOUNDARY));
        let topics = [room("a"), room("b")];
        let (mut place, mut seen, mut position) = (0, Vec::new(), at(100, BOUNDARY));
        while let Some(found) = log.read(place, topics.iter(), false, 64) {
            if found.entries.is_empty() {
                break;
            }
            seen.extend(found.entries.iter().map(|(_, entry)| entry.cursor.time.seconds));
            (place, position) = (found.next_place, found.position);
        }
        assert_eq!(seen, (101..601).collect::<Vec<u32>>());
        assert_eq!(position, at(700, BOUNDARY), "the position is that of the stream, beyond the last entry");
    }
}
