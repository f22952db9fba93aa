//! A place in the change stream, valid on every server process and across restarts.
//!
//! ```text
//! 9f3a07c2-67440f1a00000003-5be1d2c4
//! epoch    T       I        k
//! ```
//!
//! - `epoch` says which collection it is a place in: a dropped and recreated one has another.
//! - `(T, I)` is MongoDB's cluster time of the change: seconds, and a counter within the second.
//! - `k` tells changes of one cluster time apart (all those of a transaction share it): a hash of the event's
//!   resume token. `k` = 0 is a boundary: everything before `(T, I)` was seen, nothing at it.
//!
//! Clients treat it as an opaque word. Whether a cursor can be answered is for the log to say: see `feed`.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// MongoDB's cluster time: the order of all changes of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterTime {
    /// Seconds since 1970.
    pub seconds: u32,
    /// Counts changes within the second, from 1.
    pub increment: u32,
}

/// See the module. Not ordered: two places within one cluster time have an order only in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Hash of the collection's UUID, and of a word that says which of its lives this is.
    pub epoch: u32,
    /// When the change was made.
    pub time: ClusterTime,
    /// Which change of that time; [`BOUNDARY`] = before all of them.
    pub key: u32,
}

/// The `k` of a place that lies before every change of its time.
pub const BOUNDARY: u32 = 0;

impl Cursor {
    /// The place before every change at `time`.
    pub fn boundary(epoch: u32, time: ClusterTime) -> Self {
        Self { epoch, time, key: BOUNDARY }
    }

    /// The place of the change whose resume token has this `_data`.
    pub fn of_event(epoch: u32, time: ClusterTime, token_data: &str) -> Self {
        Self {
            epoch,
            time,
            key: match fnv1a(token_data.as_bytes()) {
                // A hash that happens to be 0 must not turn an event into a boundary.
                BOUNDARY => 1,
                key => key,
            },
        }
    }

    /// The epoch of the collection with this UUID. A collection that was restored from a snapshot has its old UUID, and is
    /// told from what it was before by `word`.
    pub fn epoch_of(uuid: &[u8], word: &str) -> u32 {
        fnv1a(&[uuid, word.as_bytes()].concat())
    }
}

/// FNV-1a: every server process must agree on it, today and in the next version, so it is spelled out here
/// rather than left to the standard library's hasher, which may change.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClusterTime { seconds, increment } = self.time;
        write!(f, "{:08x}-{seconds:08x}{increment:08x}-{:08x}", self.epoch, self.key)
    }
}

/// The text is not a cursor. What it was instead is not said: cursors are opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this server; use one that it gave you, unchanged")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    /// Reads exactly what [`Cursor`]'s `Display` writes, at a constant cost whatever the text's length.
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = text.as_bytes();
        if bytes.len() != 34 || bytes[8] != b'-' || bytes[25] != b'-' {
            return Err(InvalidCursor);
        }
        let word = |at: usize| -> Result<u32, InvalidCursor> {
            bytes[at..at + 8].iter().try_fold(0, |word: u32, digit| {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(InvalidCursor),
                };
                Ok(word << 4 | u32::from(value))
            })
        };
        Ok(Self { epoch: word(0)?, time: ClusterTime { seconds: word(9)?, increment: word(17)? }, key: word(26)? })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        let time = ClusterTime { seconds: 0x6744_0f1a, increment: 3 };
        let cursor = Cursor::of_event(0x9f3a_07c2, time, "8267440F1A");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!(cursor.to_string().len() <= 40);
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Cursor::boundary(1, ClusterTime::default()).to_string();
        for bad in [
            "",
            "live",
            &good[1..],
            &good.to_uppercase().replace('0', "A"),
            &good.replace('-', "_"),
            &format!("{good}0"),
            &"ñ".repeat(17),
            &"0".repeat(1_000_000),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad:.40}");
        }
    }

    #[test]
    fn an_epoch_is_that_of_a_collection_and_of_its_life() {
        let epochs = [(b"1", ""), (b"2", ""), (b"1", "after the fire"), (b"1", "2")];
        let epochs: std::collections::BTreeSet<u32> = epochs.map(|(uuid, word)| Cursor::epoch_of(uuid, word)).into();
        assert_eq!(epochs.len(), 4);
        assert_eq!(Cursor::epoch_of(b"a", ""), 0xe40c_292c, "as in every version: that of FNV-1a's test vectors");
    }

    #[test]
    fn an_event_is_never_a_boundary() {
        let time = ClusterTime::default();
        for n in 0..10_000 {
            assert_ne!(Cursor::of_event(0, time, &n.to_string()).key, BOUNDARY);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_reads_as_a_cursor_is_written_back_the_same(
            text in proptest::prop_oneof![".{0,64}", "[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}", "[0-9a-fA-F_-]{34}"],
        ) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                proptest::prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn a_flipped_bit_makes_it_another_one_or_none(numbers: [u32; 4], at in 0..34_usize, bit in 0..8_u32) {
            let [epoch, seconds, increment, key] = numbers;
            let cursor = Cursor { epoch, time: ClusterTime { seconds, increment }, key };
            let mut bytes = cursor.to_string().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                proptest::prop_assert_ne!(text.parse(), Ok(cursor));
            }
        }
    }
}
