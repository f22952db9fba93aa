//! What must hold of cursors, log and hand-over for every history, not only for those that somebody thought of.

use std::collections::BTreeSet;

use chrono::DateTime;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    cursor::{BOUNDARY, ClusterTime},
    event::Before,
    message::{Destination, Message, MessageId, RoomName, UserName},
    topic::Topic,
};

const EPOCH: u32 = 9;
const START: u32 = 100;
const LIMITS: LogLimits = LogLimits { entries_max: 10_000, bytes_max: 1 << 30 };

/// A history: per cluster time, its changes and how many of them come in a first batch; `None` is a document that breaks
/// the contract.
type History = Vec<(Vec<Option<Happened>>, usize)>;

/// A change to a message: in which room it was, and in which it is now.
#[derive(Debug, Clone, Copy)]
struct Happened {
    was: Was,
    now_in: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Was {
    Nowhere,
    In(u8),
    Unknown,
}

fn histories() -> impl Strategy<Value = History> {
    let created = (0..3_u8).prop_map(|room| Happened { was: Was::Nowhere, now_in: Some(room) });
    let edited = (0..3_u8, prop::option::weighted(0.7, 0..3_u8))
        .prop_map(|(room, now_in)| Happened { was: Was::In(room), now_in });
    let untold = prop::option::weighted(0.5, 0..3_u8).prop_map(|now_in| Happened { was: Was::Unknown, now_in });
    let happened = prop_oneof![6 => created, 3 => edited, 1 => untold];
    vec((vec(prop::option::weighted(0.9, happened), 0..5), 0..5_usize), 1..12)
}

fn room(number: u8) -> Topic {
    Topic::Room(RoomName::parse(&format!("room {number}")).unwrap())
}

fn boundary(step: usize) -> Cursor {
    Cursor::boundary(EPOCH, time(step))
}

fn time(step: usize) -> ClusterTime {
    ClusterTime { seconds: START + step as u32, increment: 1 }
}

fn message(id: &MessageId, number: u8) -> Message {
    Message {
        id: id.clone(),
        content: "x".into(),
        sender: UserName::parse("Ana").unwrap(),
        to: Destination::Room(RoomName::parse(&format!("room {number}")).unwrap()),
        date: DateTime::UNIX_EPOCH,
    }
}

/// Every change of a history with its cursor, in stream order, and the place after each batch: one or two batches for each
/// cluster time. The first of two ends within its time, at its last change.
fn batches(history: &History) -> Vec<(Vec<Change>, Cursor)> {
    let change = |step: usize, index: usize, happened: Option<Happened>| {
        let cursor = Cursor { epoch: EPOCH, time: time(step), key: index as u32 + 1 };
        let event = happened.map(|Happened { was, now_in }| {
            let id = MessageId::from_text_form(cursor.to_string());
            let before = match was {
                Was::Nowhere => Before::Nowhere,
                Was::In(room) => Before::In(message(&id, room).topics()),
                Was::Unknown => Before::Unknown,
            };
            let after = now_in.map(|room| message(&id, room));
            Event { id, before, after, at_millis: 0 }
        });
        (cursor, event)
    };
    let batch = |(step, (happened, first)): (usize, &(Vec<Option<Happened>>, usize))| {
        let mut first_batch: Vec<Change> =
            happened.iter().enumerate().map(|(index, happened)| change(step, index, *happened)).collect();
        let rest = first_batch.split_off((*first).min(first_batch.len()));
        let first_end = first_batch.last().map(|(cursor, _)| *cursor);
        [first_end.map(|end| (first_batch, end)), Some((rest, boundary(step + 1)))]
    };
    history.iter().enumerate().flat_map(batch).flatten().collect()
}

/// What a reader of `rooms` must be told of these changes.
fn told(changes: &[Change], rooms: &BTreeSet<u8>) -> Vec<Cursor> {
    let topics: Vec<Topic> = rooms.iter().map(|number| room(*number)).collect();
    let concerns = |event: &Event| event.change_for(|topic| topics.contains(topic)).is_some();
    changes.iter().filter(|(_, event)| event.as_ref().is_some_and(concerns)).map(|(cursor, _)| *cursor).collect()
}

/// Reads to the end of a log.
fn drain(reader: &mut Reader) -> Result<Vec<Cursor>, Gap> {
    let mut seen = Vec::new();
    loop {
        match reader.read() {
            Reading::Entries(entries) if entries.is_empty() => return Ok(seen),
            Reading::Entries(entries) => seen.extend(entries.iter().map(|(_, entry)| entry.cursor)),
            Reading::Waiting => return Ok(seen),
            Reading::Gap(gap) => return Err(gap),
        }
    }
}

fn follow(reader: &mut Reader, rooms: &BTreeSet<u8>) {
    for number in rooms {
        reader.follow(room(*number));
    }
}

proptest! {
    #[test]
    fn the_text_of_a_cursor_reads_back(epoch: u32, seconds: u32, increment: u32, key: u32) {
        let cursor = Cursor { epoch, time: ClusterTime { seconds, increment }, key };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn no_text_makes_the_cursor_parser_panic_or_lie(text in ".{0,60}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    /// Whoever leaves with any cursor that it was given and comes back gets exactly the rest, or hears of a gap, and of
    /// none as long as the log reaches back to its cursor.
    #[test]
    fn a_cut_anywhere_goes_on_exactly(
        history in histories(),
        rooms in prop::collection::btree_set(0..3_u8, 0..3),
        entries_max in 1..40_usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut writer, feed) = open(LogLimits { entries_max, ..LIMITS }, boundary(0));
        let mut live = feed.reader_from_now();
        follow(&mut live, &rooms);
        let (mut changes, mut cursors) = (Vec::new(), vec![(boundary(0), 0)]);
        for (batch, position) in batches(&history) {
            for (n, (cursor, _)) in batch.iter().enumerate() {
                cursors.push((*cursor, changes.len() + n + 1));
            }
            changes.extend(batch.iter().cloned());
            writer.append(batch, position);
            // A live reader sees everything at once, whatever is evicted afterwards.
            if entries_max >= 5 {
                drain(&mut live).unwrap();
            }
            cursors.push((live.position(), changes.len()));
        }
        let (left_at, seen) = cursors[cut.index(cursors.len())];
        let mut back = feed.reader_after(left_at);
        follow(&mut back, &rooms);
        match drain(&mut back) {
            Ok(rest) if left_at.time <= feed.position().time => {
                // `live` may not have moved when it could not keep up; its position is then an older one.
                let from = changes.iter().position(|(cursor, _)| *cursor == left_at).map_or_else(
                    || changes.iter().take_while(|(cursor, _)| cursor.time < left_at.time).count(),
                    |index| index + 1,
                );
                prop_assert!(from <= seen || left_at.key != BOUNDARY);
                prop_assert_eq!(rest, told(&changes[from..], &rooms));
            }
            Ok(rest) => prop_assert!(rest.is_empty()),
            Err(gap) => {
                prop_assert_eq!(gap, Gap::Evicted);
                let missed = changes.iter().rev().take_while(|(cursor, _)| *cursor != left_at).count();
                prop_assert!(missed >= entries_max, "a needless gap: {missed} missed, {entries_max} kept");
            }
        }
    }

    /// Whoever comes at any moment with any cursor of the history, also with one that another server was faster to give out,
    /// is told exactly what comes after it.
    #[test]
    fn a_cursor_of_a_faster_server_is_waited_for_and_nothing_after_it_is_missed(
        history in histories(),
        rooms in prop::collection::btree_set(0..3_u8, 0..3),
        came in any::<prop::sample::Index>(),
        with in any::<prop::sample::Index>(),
    ) {
        let batches = batches(&history);
        let changes: Vec<Change> = batches.iter().flat_map(|(batch, _)| batch).cloned().collect();
        prop_assume!(!changes.is_empty());
        let known = with.index(changes.len());
        let (mut writer, feed) = open(LIMITS, boundary(0));
        let came = came.index(batches.len());
        for (batch, position) in &batches[..came] {
            writer.append(batch.clone(), *position);
        }
        let mut reader = feed.reader_after(changes[known].0);
        follow(&mut reader, &rooms);
        let mut seen = drain(&mut reader).unwrap();
        for (batch, position) in &batches[came..] {
            writer.append(batch.clone(), *position);
            seen.extend(drain(&mut reader).unwrap());
        }
        prop_assert_eq!(seen, told(&changes[known + 1..], &rooms));
    }

    /// A reader that goes through a closed log (a replay) and on into the live one is told everything once, wherever the
    /// two overlap.
    #[test]
    fn a_replay_meets_the_live_log_without_gap_or_repeat(
        history in histories(),
        rooms in prop::collection::btree_set(0..3_u8, 1..3),
        entries_max in 1..10_usize,
        until in any::<prop::sample::Index>(),
    ) {
        let batches = batches(&history);
        let changes: Vec<Change> = batches.iter().flat_map(|(batch, _)| batch).cloned().collect();
        let (mut writer, live) = open(LogLimits { entries_max, ..LIMITS }, boundary(0));
        for (batch, position) in &batches {
            writer.append(batch.clone(), *position);
        }
        let until = until.index(batches.len());
        let past: Vec<Change> = batches[..=until].iter().flat_map(|(batch, _)| batch).cloned().collect();
        let replay = Excerpt::new(LIMITS, boundary(0), past, batches[until].1).unwrap();
        let mut reader = live.reader_after(boundary(0));
        follow(&mut reader, &rooms);
        reader.continue_in(replay.feed());
        let mut seen = drain(&mut reader).unwrap();
        reader.continue_in(&live);
        match drain(&mut reader) {
            Ok(rest) => {
                seen.extend(rest);
                prop_assert_eq!(seen, told(&changes, &rooms));
            }
            // Too short a replay does not reach the log: said, not skipped.
            Err(gap) => prop_assert_eq!(gap, Gap::Evicted),
        }
    }

    /// Positions never fall, and no event is told below the one before it.
    #[test]
    fn what_a_reader_is_told_never_goes_back_in_time(history in histories(), entries_max in 5..40_usize) {
        let (mut writer, feed) = open(LogLimits { entries_max, ..LIMITS }, boundary(0));
        let mut reader = feed.reader_from_now();
        reader.follow(Topic::All);
        let mut newest = time(0);
        for (batch, position) in batches(&history) {
            writer.append(batch, position);
            for cursor in drain(&mut reader).unwrap() {
                prop_assert!(cursor.time >= newest);
                newest = cursor.time;
            }
            prop_assert!(reader.position().time >= newest);
        }
    }
}
