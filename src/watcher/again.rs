//! Going on by time: a stream that begins at a time tells all changes of that time once more, and what of them is new is
//! for us to find out.

use crate::{
    cursor::{BOUNDARY, ClusterTime, Cursor},
    event::Event,
    mongo::Broken,
};

/// The most changes of one time that are held back until it is known which of them are new. More are told again.
const AGAIN_EVENTS_MAX: usize = 10_000;

/// A place of the stream, and what is there.
pub(super) type Received = (Cursor, Result<Event, Broken>);

/// What a batch has that is not in the log yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// That can only be said after the next batch: the changes of a transaction share one time, and may come in several.
    Held,
    /// These.
    Are(Vec<Received>),
    /// The newest change that is known is not in this history, of which these come after `start`.
    OfAnotherHistory { start: Cursor, events: Vec<Received> },
}

/// What of a batch, which ends at `position`, is not in the log yet, when `again` has what came before it of a time that
/// is told again: that of `known`.
pub(super) fn new_of(
    again: &mut Option<Vec<Received>>,
    events: Vec<Received>,
    position: Cursor,
    known: Cursor,
) -> News {
    let Some(mut held) = again.take() else {
        return News::Are(events);
    };
    let is_at_end = events.is_empty();
    held.extend(events);
    if known.key == BOUNDARY {
        return News::Are(held);
    }
    if let Some(index) = held.iter().position(|(cursor, _)| *cursor == known) {
        // The first match counts: after a collision of hashes something is repeated, never skipped.
        held.drain(..=index);
        return News::Are(held);
    }
    let first_later = held.iter().position(|(cursor, _)| cursor.time > known.time);
    let is_over = first_later.is_some() || position.time > known.time || (is_at_end && !held.is_empty());
    if !is_over && held.len() >= AGAIN_EVENTS_MAX {
        // Better twice than never.
        return News::Are(held);
    }
    if !is_over {
        let news = if held.is_empty() { News::Are(Vec::new()) } else { News::Held };
        *again = Some(held);
        return news;
    }
    let events = held.split_off(first_later.unwrap_or(held.len()));
    // Behind that time, so that no cursor of the other history is taken for one of this.
    let next = ClusterTime { increment: known.time.increment.saturating_add(1), ..known.time };
    let time = events.first().map_or(next, |(cursor, _)| cursor.time);
    News::OfAnotherHistory { start: Cursor::boundary(known.epoch, time), events }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mongo::Invalid;

    fn at(seconds: u32, key: u32) -> Cursor {
        Cursor { epoch: 1, time: ClusterTime { seconds, increment: 1 }, key }
    }

    fn batch(cursors: &[Cursor]) -> Vec<Received> {
        let broken = Broken { reason: Invalid::Id, fault: String::new(), gone: None };
        cursors.iter().map(|cursor| (*cursor, Err(broken.clone()))).collect()
    }

    /// What is new in a stream that goes on by time after `known`, batch by batch. Each batch ends at its last event, or
    /// where it is said to end.
    fn news(known: Cursor, batches: &[(&[Cursor], Cursor)]) -> Vec<News> {
        let mut again = Some(Vec::new());
        batches.iter().map(|(cursors, end)| new_of(&mut again, batch(cursors), *end, known)).collect()
    }

    fn are(cursors: &[Cursor]) -> News {
        News::Are(batch(cursors))
    }

    #[test]
    fn a_stream_that_goes_on_by_time_repeats_nothing_that_is_known() {
        let again = [at(5, 1), at(5, 2), at(5, 3), at(6, 1)];
        assert_eq!(news(at(5, 2), &[(&again, at(6, 1))]), [are(&again[2..])]);
        assert_eq!(news(at(5, 3), &[(&again, at(6, 1))]), [are(&again[3..])]);
        assert_eq!(news(at(5, BOUNDARY), &[(&again, at(6, 1))]), [are(&again)], "nothing of that time was known");
        let collided = [at(5, 1), at(5, 2), at(5, 1), at(6, 1)];
        assert_eq!(news(at(5, 1), &[(&collided, at(6, 1))]), [are(&collided[1..])], "better twice than never");
    }

    #[test]
    fn a_time_that_comes_again_in_several_batches_is_told_from_where_it_was_left() {
        let (nothing, time) = (&[][..], at(5, BOUNDARY));
        let batches = [(nothing, time), (&[at(5, 1), at(5, 2)][..], time), (&[at(5, 3), at(5, 4)][..], time)];
        assert_eq!(news(at(5, 3), &batches), [are(&[]), News::Held, are(&[at(5, 4)])]);
        let mut again = None;
        let next = new_of(&mut again, batch(&[at(5, 5), at(6, 3)]), at(6, 3), at(5, 4));
        assert_eq!(next, are(&[at(5, 5), at(6, 3)]), "from then on everything is new");
    }

    #[test]
    fn a_history_without_the_newest_change_that_is_known_is_another_one() {
        let another = |start, events: &[Cursor]| News::OfAnotherHistory { start, events: batch(events) };
        let behind = Cursor::boundary(1, ClusterTime { seconds: 5, increment: 2 });
        let known = at(5, 9);
        // It has other changes of that time, and then some more; or nothing at all, and time has moved on.
        let batches = [(&[at(5, 1), at(6, 1)][..], at(6, 1))];
        assert_eq!(news(known, &batches), [another(at(6, BOUNDARY), &[at(6, 1)])]);
        let batches = [(&[at(5, 1)][..], at(5, 1)), (&[][..], at(5, 1))];
        assert_eq!(news(known, &batches), [News::Held, another(behind, &[])]);
        assert_eq!(news(known, &[(&[], at(5, BOUNDARY)), (&[], at(7, BOUNDARY))]), [are(&[]), another(behind, &[])]);
    }
}
