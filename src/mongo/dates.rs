//! The dates that messages are stored with, by which everybody who reads them puts them in order.
//!
//! A history is in the order of (date, id), and ids are chosen by clients: often at random. Messages that leave in one
//! batch would nearly all have one millisecond, and their ids would shuffle them. So two messages of one sender are
//! dated such that they stand in the order in which they were sent, and an answer stands behind what it answers: that
//! was in an earlier batch, or nobody could have seen it.

use std::collections::HashMap;

use mongodb::bson::oid::ObjectId;

/// How far dates may run ahead of the clock, in milliseconds, for a sender whose ids fall. It takes a sender a thousand
/// messages a second to come there; those are then in the order of their ids.
const AHEAD_MILLIS_MAX: i64 = 1_000;

/// Gives out dates, in milliseconds since 1970. They never fall, though the wall clock may step back.
#[derive(Debug, Default)]
pub(super) struct Dates {
    newest: i64,
}

impl Dates {
    /// The dates of one batch, which leaves at `now`: each message is told by its sender and its id, in the order in which
    /// they were sent.
    pub(super) fn of_batch<'a>(&mut self, now: i64, batch: impl Iterator<Item = (&'a str, ObjectId)>) -> Vec<i64> {
        // Behind every earlier batch. There is less than one a millisecond, so that alone takes no date ahead of the clock.
        let mut date = now.max(self.newest + 1);
        let mut last_of: HashMap<&str, (i64, ObjectId)> = HashMap::new();
        let date_of = |(sender, id): (&'a str, ObjectId)| {
            let would_be_behind = last_of.get(sender).is_some_and(|last| *last > (date, id));
            if would_be_behind && date < now + AHEAD_MILLIS_MAX {
                date += 1;
            }
            last_of.insert(sender, (date, id));
            date
        };
        let dates: Vec<i64> = batch.map(date_of).collect();
        self.newest = dates.last().copied().unwrap_or(self.newest);
        dates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ObjectId {
        ObjectId::from_bytes([number; 12])
    }

    /// The dates of one batch of messages, and the messages as a history shows them.
    fn shown(dates: &mut Dates, now: i64, sent: &[(&'static str, u8)]) -> (Vec<i64>, Vec<(&'static str, u8)>) {
        let given = dates.of_batch(now, sent.iter().map(|(sender, number)| (*sender, id(*number))));
        let mut history: Vec<_> =
            given.iter().zip(sent).map(|(date, (sender, n))| (*date, id(*n), *sender, *n)).collect();
        history.sort_unstable();
        (given, history.into_iter().map(|(_, _, sender, number)| (sender, number)).collect())
    }

    #[test]
    fn what_one_sender_sends_stands_in_the_order_of_sending() {
        let sent = [("Ana", 5), ("Ana", 7), ("Ana", 6), ("Luis", 1), ("Ana", 2), ("Luis", 3)];
        let (given, history) = shown(&mut Dates::default(), 1_000, &sent);
        assert_eq!(given, [1_000, 1_000, 1_001, 1_001, 1_002, 1_002]);
        for sender in ["Ana", "Luis"] {
            let of_sender = |messages: &[(&'static str, u8)]| {
                messages.iter().filter(|(name, _)| *name == sender).copied().collect::<Vec<_>>()
            };
            assert_eq!(of_sender(&history), of_sender(&sent));
        }
    }

    #[test]
    fn ids_that_rise_share_the_millisecond_of_their_batch() {
        let (given, _) = shown(&mut Dates::default(), 1_000, &[("Ana", 1), ("Luis", 9), ("Ana", 2), ("Eva", 1)]);
        assert_eq!(given, [1_000; 4]);
    }

    #[test]
    fn a_later_batch_stands_behind_an_earlier_one_whatever_the_clock_says() {
        let mut dates = Dates::default();
        assert_eq!(shown(&mut dates, 1_000, &[("Ana", 9), ("Ana", 8)]).0, [1_000, 1_001]);
        assert_eq!(shown(&mut dates, 1_001, &[("Luis", 1)]).0, [1_002], "an answer, which has a smaller id");
        assert_eq!(shown(&mut dates, 900, &[("Luis", 0)]).0, [1_003], "the clock stepped back");
        assert_eq!(shown(&mut dates, 2_000, &[("Luis", 0)]).0, [2_000]);
    }

    #[test]
    fn a_flood_of_falling_ids_takes_dates_a_second_ahead_at_most() {
        let mut dates = Dates::default();
        let number = |n: u32| {
            ObjectId::from_bytes([[0; 8].as_slice(), &(u32::MAX - n).to_be_bytes()].concat().try_into().unwrap())
        };
        for batch in 0..100 {
            let given = dates.of_batch(1_000 + batch, (0..1_000).map(|n| ("Ana", number(n))));
            assert!(
                given.is_sorted() && *given.last().unwrap() <= 1_000 + batch + AHEAD_MILLIS_MAX + batch + 1,
                "{given:?}"
            );
        }
    }
}
