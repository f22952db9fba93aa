//! Counts what a client sends of which the library tells nothing: pongs, acknowledgements, and whatever else there is.

use std::io;

use crate::{
    listener::{ClientNetwork, Inspector},
    rates::{Patience, Rates},
};

/// The most bytes of a frame's header: two, a length, a mask.
const HEADER_BYTES_MAX: usize = 14;
/// How much of a packet says whether it is an event of ours.
const BEGINNING_BYTES: usize = 3;
/// The first byte of a frame that is a whole text.
const WHOLE_TEXT: u8 = 0x81;

/// Whether it is an event of ours, which counts when somebody looks at it.
pub(super) fn is_event(packet: &str) -> bool {
    begins_an_event(packet.as_bytes())
}

fn begins_an_event(packet: &[u8]) -> bool {
    packet.starts_with(b"42") && packet.get(2) != Some(&b'/')
}

/// Counts the frames of a WebSocket but for those with events, and ends it when its client sends more and more of them.
pub(super) fn inspector(rates: Rates, network: ClientNetwork) -> Inspector {
    let (mut frames, mut patience) = (Frames::default(), Patience::default());
    Box::new(move |bytes| {
        for _ in 0..frames.count(bytes) {
            if rates.request(network).is_err() {
                patience.lose().map_err(|_| io::ErrorKind::ConnectionAborted)?;
            }
        }
        Ok(())
    })
}

/// The frame that is coming (RFC 6455, 5.2). Nothing of it is kept but its beginning: the library holds the rest, and refuses
/// what is wrong or too long before anything else could count for less than it is.
#[derive(Default)]
struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    payload_len: u64,
    beginning: [u8; BEGINNING_BYTES],
}

impl Frames {
    /// How many frames end in these bytes that are no events.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut counted = 0;
        loop {
            if self.header_len < self.header_bytes() {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return counted;
                };
                self.header[self.header_len] = byte;
                self.header_len += 1;
                bytes = rest;
                continue;
            }
            let left = self.payload_bytes() - self.payload_len;
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            for &byte in &bytes[..taken.min(BEGINNING_BYTES)] {
                self.begin_with(byte);
            }
            // Those of the beginning are counted.
            self.payload_len += (taken.saturating_sub(BEGINNING_BYTES)) as u64;
            bytes = &bytes[taken..];
            if self.payload_len < self.payload_bytes() {
                return counted;
            }
            counted += usize::from(!self.is_event());
            *self = Self::default();
        }
    }

    /// Takes one byte of what the frame carries.
    fn begin_with(&mut self, byte: u8) {
        if let Some(place) = usize::try_from(self.payload_len).ok().filter(|place| *place < BEGINNING_BYTES) {
            let mask = if self.is_masked() { self.header[self.header_len - 4 + place] } else { 0 };
            self.beginning[place] = byte ^ mask;
        }
        self.payload_len += 1;
    }

    fn is_event(&self) -> bool {
        let len = self.payload_len.min(BEGINNING_BYTES as u64) as usize;
        self.header[0] == WHOLE_TEXT && begins_an_event(&self.beginning[..len])
    }

    fn is_masked(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    /// How long the header is, as far as that is known.
    fn header_bytes(&self) -> usize {
        let length = match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_len < 2 { 2 } else { 2 + length + if self.is_masked() { 4 } else { 0 } }
    }

    /// How much the frame carries, when its header is here.
    fn payload_bytes(&self) -> u64 {
        let long = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        match self.header[1] & 0x7F {
            126 => long(&self.header[2..4]),
            127 => long(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a mask.
    fn frame(first: u8, payload: &str) -> Vec<u8> {
        let mask = [7, 99, 0, 201];
        let length = match payload.len() {
            short @ ..126 => vec![0x80 | short as u8],
            long => [&[0x80 | 126][..], &(long as u16).to_be_bytes()].concat(),
        };
        let payload = payload.bytes().enumerate().map(|(n, byte)| byte ^ mask[n % 4]);
        [first].into_iter().chain(length).chain(mask).chain(payload).collect()
    }

    #[test]
    fn all_frames_count_but_those_with_events() {
        let frames = [
            frame(0x81, "3"),
            frame(0x81, r#"42["message",{}]"#),
            frame(0x81, &format!(r#"42["message",{{"content":"{}"}}]"#, "x".repeat(300))),
            frame(0x81, r#"42/other,["message",{}]"#),
            frame(0x81, "431[]"),
            frame(0x81, ""),
            frame(0x8A, "pong"),
            frame(0x01, "4"),
            frame(0x80, "31[]"),
        ];
        let all = frames.concat();
        assert_eq!(Frames::default().count(&all), 7);
        for piece in 1..20 {
            let mut frames = Frames::default();
            assert_eq!(all.chunks(piece).map(|bytes| frames.count(bytes)).sum::<usize>(), 7, "in pieces of {piece}");
        }
    }
}
