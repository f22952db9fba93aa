//! What a message of a load test carries in its content: who wrote it, the how-manieth of that writer it is, and when it
//! was meant to be sent. A reader finds and reads it without parsing any JSON.
//!
//! ```text
//! ~L 002a 0000012f 0000049b1f3c2a10 corriente corriente cor...      (without the blanks)
//! mark writer sequence intended, ns  filler up to the length asked for
//! ```
//!
//! The time is that of the machine's monotonic clock, which all processes share: writer, server and reader must be on
//! one machine, and no step of the wall clock can spoil a measurement.

use rustix::time::{ClockId, clock_gettime};

/// What a stamp begins with. Readers look for it, so it must not occur in what surrounds a content.
pub const MARK: &[u8] = b"~L";
/// The length of a stamp, and so of the shortest content.
pub const STAMP_BYTES: usize = MARK.len() + 4 + 8 + 16;

const FILLER: &[u8] = b"corriente";

/// Nanoseconds of the monotonic clock.
pub type Nanos = u64;

/// The time now. A monotonic clock that can not be read does not exist on any system that runs this.
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher of this run.
    pub writer: u16,
    /// Counts the messages of the writer, from 0.
    pub sequence: u32,
    /// When the message was meant to be sent, whether or not that was possible.
    pub intended: Nanos,
}

impl Stamp {
    /// A content of `bytes` bytes, all of them ASCII without anything that JSON escapes.
    pub fn content(&self, bytes: usize) -> String {
        let mut content = format!("~L{:04x}{:08x}{:016x}", self.writer, self.sequence, self.intended);
        content.extend(filler().take(bytes.saturating_sub(STAMP_BYTES)));
        content
    }

    /// Reads a stamp at the beginning of `bytes`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(MARK)?;
        Some(Self {
            writer: u16::try_from(hex(digits.get(..4)?)?).ok()?,
            sequence: u32::try_from(hex(digits.get(4..12)?)?).ok()?,
            intended: hex(digits.get(12..28)?)?,
        })
    }
}

/// Whether what follows a stamp is what the writer put there: `bytes` of filler and then the end of the string.
pub fn is_intact(after_stamp: &[u8], content_bytes: usize) -> bool {
    let bytes = content_bytes.saturating_sub(STAMP_BYTES);
    let (Some(found), Some(end)) = (after_stamp.get(..bytes), after_stamp.get(bytes)) else {
        return false;
    };
    *end == b'"' && found.iter().copied().map(char::from).eq(filler().take(bytes))
}

fn filler() -> impl Iterator<Item = char> {
    FILLER.iter().copied().map(char::from).cycle()
}

/// A table in place of comparisons: this runs for every single delivery.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

fn hex(digits: &[u8]) -> Option<u64> {
    let (mut number, mut wrong) = (0_u64, 0_u8);
    for digit in digits {
        let value = VALUES[usize::from(*digit)];
        wrong |= value;
        number = number << 4 | u64::from(value & 0xf);
    }
    (wrong <= 0xf).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for stamp in [
            Stamp { writer: 0, sequence: 0, intended: 0 },
            Stamp { writer: 0x2a, sequence: 0x12f, intended: now() },
            Stamp { writer: u16::MAX, sequence: u32::MAX, intended: u64::MAX },
        ] {
            let content = stamp.content(40);
            assert_eq!(content.len(), 40);
            assert_eq!(Stamp::read(content.as_bytes()), Some(stamp));
            let told = format!("{content}\",\"sender\"");
            assert!(is_intact(&told.as_bytes()[STAMP_BYTES..], 40));
            assert!(!is_intact(&told.as_bytes()[STAMP_BYTES..], 39));
            assert!(!is_intact(&told.replace("cor", "c0r").as_bytes()[STAMP_BYTES..], 40));
        }
    }

    #[test]
    fn anything_else_is_no_stamp() {
        for text in ["", "~L", "hola", "~L00000000000g0000000000000000", "~L000000000000000000000000000"] {
            assert_eq!(Stamp::read(text.as_bytes()), None, "{text}");
        }
    }
}
