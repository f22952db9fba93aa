//! The ring: entries in stream order, evicted oldest first. Topics are lists of places in it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use super::entry::Entry;
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

/// How far a cursor may be ahead of this server before it is taken for one of another deployment, in seconds
/// of wall clock. Another server may be a little faster; none is a minute faster.
const AHEAD_SECS_MAX: u64 = 60;

/// The log of one process.
#[derive(Debug)]
pub(super) struct Log {
    limits: LogLimits,
    entries: VecDeque<Arc<Entry>>,
    /// The place of `entries[0]`. Places count all entries ever appended, and one for every gap, so that a reader
    /// at the end of the log before a gap is seen to be before it.
    first_place: u64,
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
    /// It can not be answered from here; the word says why.
    Gone(&'static str),
}

/// What a reader gets from one look at the log.
#[derive(Debug)]
pub(super) struct Found {
    /// In stream order; each concerns one of the topics asked for, or everybody.
    pub(super) entries: Vec<Arc<Entry>>,
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
            return Located::Gone("the cursor is of another collection");
        }
        if cursor.time > self.watermark.time {
            return if is_far_ahead(cursor) {
                Located::Gone("the cursor is of a time to come")
            } else {
                Located::Ahead
            };
        }
        if cursor.time < self.floor.time {
            return Located::Gone("the cursor is older than what is kept");
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
        if cursor.time == self.floor.time {
            return if cursor == self.floor || self.floor.key == BOUNDARY {
                place(from)
            } else {
                // Some changes of this time were evicted, and this cursor does not say which it has seen.
                Located::Gone("the cursor is older than what is kept")
            };
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
        &self,
        place: u64,
        topics: impl Iterator<Item = &'a Topic>,
        all: bool,
        entries_max: usize,
    ) -> Option<Found> {
        if place < self.first_place {
            return None;
        }
        let entries: Vec<(u64, Arc<Entry>)> = if all {
            let skipped = (place - self.first_place) as usize;
            let rest = self.entries.range(skipped.min(self.entries.len())..);
            let shown = rest.enumerate().map(|(offset, entry)| (place + offset as u64, entry.clone()));
            shown.take(entries_max).collect()
        } else {
            self.merge(place, topics, entries_max)
        };
        let (next_place, position) = match entries.last() {
            // There may be more: go on after the last one.
            Some((place, last)) if entries.len() == entries_max => (place + 1, last.cursor),
            _ => (self.end_place(), self.watermark),
        };
        Some(Found {
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
            next_place,
            position,
        })
    }

    /// The places of several topics, in log order and each once: a direct message to oneself, or a move from
    /// one followed room to another, stands in two lists.
    fn merge<'a>(
        &self,
        from: u64,
        topics: impl Iterator<Item = &'a Topic>,
        entries_max: usize,
    ) -> Vec<(u64, Arc<Entry>)> {
        let lists = topics.filter_map(|topic| self.topics.get(topic));
        let mut places: Vec<u64> = lists
            .chain([&self.everybody])
            .flat_map(|list| {
                let first = list.partition_point(|&place| place < from);
                list.range(first..).take(entries_max).copied()
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places.truncate(entries_max);
        let entry = |place: u64| self.entries[(place - self.first_place) as usize].clone();
        places.into_iter().map(|place| (place, entry(place))).collect()
    }

    pub(super) fn watermark(&self) -> Cursor {
        self.watermark
    }

    pub(super) fn end_place(&self) -> u64 {
        self.first_place + self.entries.len() as u64
    }

    pub(super) fn size(&self) -> LogSize {
        LogSize {
            entries: self.entries.len(),
            bytes: self.bytes,
        }
    }
}

fn is_far_ahead(cursor: Cursor) -> bool {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_secs = since_1970.map_or(0, |duration| duration.as_secs());
    u64::from(cursor.time.seconds) > now_secs + AHEAD_SECS_MAX
}
