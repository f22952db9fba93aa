//! WebSocket frames, as little of them as a load test needs: the headers of what a server sends, and masked frames to
//! send back. A library would copy and check every payload, and the reader must cost next to nothing beside the server.

use std::ops::Range;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Close,
    Ping,
    /// Pongs, binary frames and continuations: nothing that our servers send.
    Other,
}

/// One frame within some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Range<usize>,
}

impl Frame {
    /// The frame at the beginning of `bytes[at..]`, or `None` when it is not all there yet. Servers do not mask.
    pub fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let header = bytes.get(at..)?;
        let (&[first, short], rest) = header.split_first_chunk()?;
        let (length, header_bytes) = match short & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            length => (u64::from(length), 2),
        };
        let start = at + header_bytes;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        let kind = match first & 0x0f {
            1 => Kind::Text,
            8 => Kind::Close,
            9 => Kind::Ping,
            _ => Kind::Other,
        };
        (end <= bytes.len()).then_some(Self { kind, payload: start..end })
    }
}

/// A text frame of a client.
pub fn client_text(payload: &[u8]) -> Vec<u8> {
    client_frame(0x81, payload)
}

/// The answer to a ping.
pub fn client_pong(payload: &[u8]) -> Vec<u8> {
    client_frame(0x8a, payload)
}

/// The mask is all zeros, which the standard allows no client that strangers can steer, and which costs nothing here:
/// the server has to apply it all the same.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_text(payload: &[u8]) -> Vec<u8> {
        let mut frame = client_text(payload);
        frame[1] &= 0x7f;
        let mask_at = frame.len() - payload.len() - 4;
        frame.drain(mask_at..mask_at + 4);
        frame
    }

    #[test]
    fn frames_of_every_length_are_walked() {
        let lengths = [0, 1, 125, 126, 250, 65_535, 65_536, 100_000];
        let payloads: Vec<Vec<u8>> = lengths.iter().map(|length| vec![b'x'; *length]).collect();
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| server_text(payload)).collect();
        let mut at = 0;
        for payload in &payloads {
            let frame = Frame::at(&bytes, at).unwrap();
            assert_eq!((frame.kind, &bytes[frame.payload.clone()]), (Kind::Text, payload.as_slice()));
            at = frame.payload.end;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(Frame::at(&bytes, at), None);
    }

    #[test]
    fn a_frame_without_its_end_is_waited_for() {
        for length in [0, 5, 200, 70_000] {
            let bytes = server_text(&vec![b'x'; length]);
            for cut in (0..bytes.len()).step_by(7) {
                assert_eq!(Frame::at(&bytes[..cut], 0), None, "{cut} of {length}");
            }
            assert!(Frame::at(&bytes, 0).is_some());
        }
    }

    #[test]
    fn a_length_beyond_all_memory_is_only_a_frame_that_never_ends() {
        let bytes = [0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(Frame::at(&bytes, 0), None);
    }
}
