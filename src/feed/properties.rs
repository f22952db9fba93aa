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

/// A history: per cluster time, the rooms of its changes; `None` is a document that breaks the contract.
type History = Vec<Vec<Option<u8>>>;

fn histories() -> impl Strategy<Value = History> {
    vec(vec(prop::option::weighted(0.9, 0..3_u8), 0..5), 1..12)
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

/// Every change of a history with its cursor, in stream order, one batch per cluster time.
fn batches(history: &History) -> Vec<Vec<Change>> {
    let change = |step: usize, index: usize, room: Option<u8>| {
        let cursor = Cursor { epoch: EPOCH, time: time(step), key: index as u32 + 1 };
        let event = room.map(|number| {
            let id = MessageId::from_text_form(cursor.to_string());
            let message = Message {
                id: id.clone(),
                content: "x".into(),
                sender: UserName::parse("Ana").unwrap(),
                to: Destination::Room(RoomName::parse(&format!("room {number}")).unwrap()),
                date: DateTime::UNIX_EPOCH,
            };
            Event { id, before: Before::Nowhere, after: Some(message) }
        });
        (cursor, event)
    };
    let batch = |(step, rooms): (usize, &Vec<Option<u8>>)| {
        rooms.iter().enumerate().map(|(index, room)| change(step, index, *room)).collect()
    };
    history.iter().enumerate().map(batch).collect()
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
        for (step, batch) in batches(&history).into_iter().enumerate() {
            for (cursor, _) in &batch {
                cursors.push((*cursor, cursors.last().map_or(0, |(_, seen)| seen + 1)));
            }
            let position = boundary(step + 1);
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
        let changes: Vec<Change> = batches.iter().flatten().cloned().collect();
        let (mut writer, live) = open(LogLimits { entries_max, ..LIMITS }, boundary(0));
        for (step, batch) in batches.iter().enumerate() {
            writer.append(batch.clone(), boundary(step + 1));
        }
        let step = until.index(batches.len()) + 1;
        let past: Vec<Change> = batches[..step].iter().flatten().cloned().collect();
        let replay = closed(LIMITS, boundary(0), past, boundary(step)).unwrap();
        let mut reader = live.reader_after(boundary(0));
        follow(&mut reader, &rooms);
        reader.continue_in(&replay);
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
        for (step, batch) in batches(&history).into_iter().enumerate() {
            writer.append(batch, boundary(step + 1));
            for cursor in drain(&mut reader).unwrap() {
                prop_assert!(cursor.time >= newest);
                newest = cursor.time;
            }
            prop_assert!(reader.position().time >= newest);
        }
    }
}
