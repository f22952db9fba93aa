//! The frames of RFC 6455, as a server writes and reads them. Pure: bytes in, messages out, no I/O.
//!
//! ```text
//! |F|RSV|opcode| |M| length | length of 16 or 64 bits | mask of 32 bits | payload, masked |
//! ```
//!
//! What a server writes is not masked, so one frame is the same bytes for every client and is encoded once for all of
//! them. What a client writes must be masked, and is read strictly: the first byte that breaks the protocol ends the
//! connection, before anything is kept of what follows it.

use bytes::Bytes;

/// The largest message of a client, in bytes: a content of 4,000 characters in JSON escapes fits.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The largest payload of a control frame, in bytes, by RFC 6455.
const CONTROL_BYTES_MAX: usize = 125;
/// The longest header of a client's frame: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A frame that a server writes, as the bytes that go to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// A whole message of text, which must be UTF-8.
    Text(&'a [u8]),
    /// A whole message of bytes.
    Binary(&'a [u8]),
    /// Asks for a pong.
    Ping,
    /// Answers a ping with its own payload.
    Pong(&'a [u8]),
    /// The last frame: a code and a reason in words, of which only as much is sent as fits.
    Close(u16, &'a str),
    /// The answer to a close frame that gave no code.
    EmptyClose,
}

impl Outgoing<'_> {
    /// The answer to a client's close frame: its own code, or none.
    pub fn close_echo(code: Option<u16>) -> Self {
        code.map_or(Outgoing::EmptyClose, |code| Outgoing::Close(code, ""))
    }

    /// The bytes of the frame, in memory of exactly their size.
    pub fn encode(self) -> Bytes {
        match self {
            Outgoing::Text(payload) => frame(TEXT, payload),
            Outgoing::Binary(payload) => frame(BINARY, payload),
            Outgoing::Ping => frame(PING, &[]),
            Outgoing::Pong(payload) => frame(PONG, &payload[..payload.len().min(CONTROL_BYTES_MAX)]),
            Outgoing::EmptyClose => frame(CLOSE, &[]),
            Outgoing::Close(code, reason) => {
                let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
                frame(CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]].concat())
            }
        }
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    const FINAL: u8 = 0x80;
    let length = payload.len();
    let mut bytes = Vec::with_capacity(10 + length);
    bytes.push(FINAL | opcode);
    match length {
        0..=125 => bytes.push(length as u8),
        126..=0xFFFF => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    // What is kept in the log is counted there, so it must not be larger than it looks.
    bytes.into_boxed_slice().into()
}

/// The payload of a frame that [`Outgoing::encode`] made.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// What a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message of text.
    Text(String),
    /// A whole message of bytes.
    Binary(Vec<u8>),
    /// It asks for a pong with this payload.
    Ping(Vec<u8>),
    /// It has answered a ping, or says by itself that it lives.
    Pong,
    /// So many frames have come that are parts of a message. (Only a [`super::Socket`] tells them.)
    Fragments(u32),
    /// It closes, with this code or none.
    Close(Option<u16>),
}

/// How a client broke the protocol. Nothing that follows can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The frame is not one of RFC 6455.
    #[error("this is not RFC 6455")]
    Protocol,
    /// What is said to be text is not UTF-8.
    #[error("text must be UTF-8")]
    NotUtf8,
    /// The message is over [`MESSAGE_BYTES_MAX`].
    #[error("a message is at most 64 KiB")]
    TooBig,
}

/// Reads a client's frames from pieces of any size. Between two frames it holds no memory of its own.
#[derive(Debug, Default)]
pub struct Decoder {
    /// A header that has not come whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload comes next.
    frame: Option<Frame>,
    /// The payload of a control frame, which may stand between the fragments of a message.
    control: Vec<u8>,
    /// The message, fragment after fragment.
    message: Vec<u8>,
    /// How much of `message` is known to be whole characters of UTF-8.
    checked: u32,
    /// The opcode of a message whose last fragment has not come yet.
    unfinished: Option<u8>,
    /// Frames that did not end a message, since somebody has asked.
    fragments: u32,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: u8,
    is_final: bool,
    mask: [u8; 4],
    /// What of the payload has not come yet, in bytes. A frame over the bound is refused by its header.
    left: u32,
}

impl Decoder {
    /// Takes from the front of `input` until there is a message, and leaves what comes after it. `None`: all of it was
    /// taken, and the message is not whole yet.
    ///
    /// # Errors
    /// When the client broke the protocol. The decoder must not be used again.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.take_header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let left = self.take_payload(frame, input)?;
            if left > 0 {
                self.frame = Some(Frame { left, mask: rotated(frame, left), ..frame });
                return Ok(None);
            }
            self.frame = None;
            if let Some(incoming) = self.end_frame(frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// How many frames came since this was last asked that did not end a message.
    pub fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.fragments)
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        // Byte by byte: the second one says how many there are, and a bad one is refused before the rest has come.
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.header[usize::from(self.header_len)] = byte;
            self.header_len += 1;
            if self.header_len == 1 {
                self.check_first_byte(byte)?;
            } else if self.header_len == 2 {
                self.check_second_byte(byte)?;
            }
            let length_bytes = match self.header[1] & 0x7F {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            if self.header_len >= 2 && usize::from(self.header_len) == 2 + length_bytes + 4 {
                self.header_len = 0;
                return self.frame_of_header(length_bytes).map(Some);
            }
        }
        Ok(None)
    }

    fn check_first_byte(&self, byte: u8) -> Result<(), Violation> {
        let (is_final, reserved, opcode) = (byte & 0x80 != 0, byte & 0x70, byte & 0x0F);
        let is_legal = match opcode {
            CONTINUATION => self.unfinished.is_some(),
            TEXT | BINARY => self.unfinished.is_none(),
            CLOSE | PING | PONG => is_final,
            _ => false,
        };
        if is_legal && reserved == 0 { Ok(()) } else { Err(Violation::Protocol) }
    }

    fn check_second_byte(&self, byte: u8) -> Result<(), Violation> {
        let (is_masked, length) = (byte & 0x80 != 0, usize::from(byte & 0x7F));
        let is_control = self.header[0] & 0x08 != 0;
        if is_masked && !(is_control && length > CONTROL_BYTES_MAX) { Ok(()) } else { Err(Violation::Protocol) }
    }

    fn frame_of_header(&self, length_bytes: usize) -> Result<Frame, Violation> {
        let (first, rest) = (self.header[0], &self.header[2..]);
        let (length, rest) = rest.split_at(length_bytes);
        let length = match length_bytes {
            0 => u64::from(self.header[1] & 0x7F),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        // The shortest form that holds the length, and never the highest bit.
        let is_canonical = match length_bytes {
            0 => true,
            2 => length > 125,
            _ => length > 0xFFFF && length >> 63 == 0,
        };
        if !is_canonical {
            return Err(Violation::Protocol);
        }
        // Refused by what the header says: nothing of it is kept.
        let is_control = first & 0x08 != 0;
        let room = if is_control { CONTROL_BYTES_MAX } else { MESSAGE_BYTES_MAX - self.message.len() };
        let left = u32::try_from(length).ok().filter(|left| *left as usize <= room).ok_or(Violation::TooBig)?;
        let mask = [rest[0], rest[1], rest[2], rest[3]];
        Ok(Frame { opcode: first & 0x0F, is_final: first & 0x80 != 0, mask, left })
    }

    /// Takes what there is of a frame's payload. Returns what has not come yet.
    fn take_payload(&mut self, frame: Frame, input: &mut &[u8]) -> Result<u32, Violation> {
        let taken = input.len().min(frame.left as usize);
        let (payload, rest) = input.split_at(taken);
        *input = rest;
        let is_control = frame.opcode & 0x08 != 0;
        let into = if is_control { &mut self.control } else { &mut self.message };
        let from = into.len();
        into.extend_from_slice(payload);
        for chunk in into[from..].chunks_mut(4) {
            chunk.iter_mut().zip(frame.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        if frame.opcode == TEXT || (frame.opcode == CONTINUATION && self.unfinished == Some(TEXT)) {
            self.check_text()?;
        }
        Ok(frame.left - taken as u32)
    }

    /// Checks as much of the text as has come: what can not become UTF-8 any more is refused at once.
    fn check_text(&mut self) -> Result<(), Violation> {
        let unchecked = &self.message[self.checked as usize..];
        match std::str::from_utf8(unchecked) {
            Ok(_) => self.checked = self.message.len() as u32,
            // It ends within a character.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to() as u32,
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn end_frame(&mut self, frame: Frame) -> Result<Option<Incoming>, Violation> {
        let kind = match frame.opcode {
            PING => return Ok(Some(Incoming::Ping(std::mem::take(&mut self.control)))),
            PONG => {
                self.control = Vec::new();
                return Ok(Some(Incoming::Pong));
            }
            CLOSE => return close_of(&std::mem::take(&mut self.control)).map(Some),
            CONTINUATION => self.unfinished.unwrap_or(BINARY),
            opcode => opcode,
        };
        if !frame.is_final {
            self.unfinished = Some(kind);
            self.fragments = self.fragments.saturating_add(1);
            return Ok(None);
        }
        (self.unfinished, self.checked) = (None, 0);
        let message = std::mem::take(&mut self.message);
        if kind == BINARY {
            return Ok(Some(Incoming::Binary(message)));
        }
        // What was checked on the way is checked once more as a whole, for the type; this also finds a last character
        // that was cut off.
        String::from_utf8(message).map(|text| Some(Incoming::Text(text))).map_err(|_| Violation::NotUtf8)
    }
}

/// The mask as it goes on after the part of a payload that has come.
fn rotated(frame: Frame, left: u32) -> [u8; 4] {
    let mut mask = frame.mask;
    mask.rotate_left((frame.left - left) as usize % 4);
    mask
}

fn close_of(payload: &[u8]) -> Result<Incoming, Violation> {
    match payload {
        [] => Ok(Incoming::Close(None)),
        [_] => Err(Violation::Protocol),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // 1004 to 1006 and 1015 are never sent; the rest below 3000 is for the RFC and its registry.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Incoming::Close(Some(code)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(0, payload).to_vec();
        bytes[0] = first;
        bytes[1] |= 0x80;
        let header = bytes.len() - payload.len();
        bytes.splice(header..header, MASK);
        bytes[header + 4..].iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        bytes
    }

    /// All messages of a stream that comes in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Incoming>, Violation> {
        let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
        for mut piece in pieces {
            while let Some(incoming) = decoder.next(&mut piece)? {
                seen.push(incoming);
            }
            assert!(piece.is_empty(), "what is not taken comes before a message");
        }
        Ok(seen)
    }

    fn read_all(stream: &[u8]) -> Result<Vec<Incoming>, Violation> {
        read([stream])
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(&Outgoing::Text(b"Hello").encode()[..], b"\x81\x05Hello");
        assert_eq!(&Outgoing::Binary(&[0; 256]).encode()[..4], b"\x82\x7E\x01\x00");
        assert_eq!(&Outgoing::Binary(&[0; 65536]).encode()[..10], b"\x82\x7F\0\0\0\0\0\x01\0\0");
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read_all(&hello), Ok(vec![Incoming::Text("Hello".into())]));
    }

    #[test]
    fn the_payload_of_a_frame_is_what_was_put_in() {
        for length in [0, 1, 125, 126, 0xFFFF, 0x1_0000] {
            let text = vec![b'x'; length];
            assert_eq!(payload(&Outgoing::Text(&text).encode()), text);
        }
        assert_eq!(payload(&[]), b"");
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        let stream = [masked(0x01, b"Hel"), masked(0x89, b"?"), masked(0x8A, b"!"), masked(0x80, b"lo")].concat();
        let seen = [Incoming::Ping(b"?".to_vec()), Incoming::Pong, Incoming::Text("Hello".into())];
        assert_eq!(read_all(&stream), Ok(seen.to_vec()));
    }

    #[test]
    fn the_decoder_holds_nothing_between_frames() {
        let mut decoder = Decoder::default();
        let stream = [masked(0x81, &[b'x'; 5_000]), masked(0x8A, &[b'x'; 125])].concat();
        let mut input = &stream[..];
        while decoder.next(&mut input).unwrap().is_some() {}
        assert_eq!((decoder.message.capacity(), decoder.control.capacity()), (0, 0));
        assert!(size_of::<Decoder>() <= 112, "{}", size_of::<Decoder>());
    }

    #[test]
    fn what_breaks_the_protocol_is_refused_by_its_name() {
        use Violation::*;
        let mut unmasked = masked(0x81, b"x");
        unmasked[1] &= 0x7F;
        let with_length = |length: &[u8]| [&[0x82][..], length, &MASK].concat();
        let table = [
            ("not masked", unmasked, Protocol),
            ("a reserved bit", masked(0xC1, b"x"), Protocol),
            ("a reserved opcode", masked(0x83, b"x"), Protocol),
            ("a reserved control opcode", masked(0x8B, b"x"), Protocol),
            ("a fragment of a control frame", masked(0x09, b"x"), Protocol),
            ("a long control frame", masked(0x89, &[0; 126]), Protocol),
            ("a continuation of nothing", masked(0x80, b"x"), Protocol),
            ("a message within another", [masked(0x01, b"x"), masked(0x81, b"x")].concat(), Protocol),
            ("a length in too many bytes", with_length(&[0xFE, 0, 5]), Protocol),
            ("a length of 64 bits", with_length(&[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), Protocol),
            ("a close of one byte", masked(0x88, b"x"), Protocol),
            ("a close code that is never sent", masked(0x88, &1005_u16.to_be_bytes()), Protocol),
            ("a close code of nobody", masked(0x88, &2999_u16.to_be_bytes()), Protocol),
            ("a close reason that is no text", masked(0x88, &[3, 232, 0xFF]), NotUtf8),
            ("text that is not UTF-8", masked(0x81, b"\xFF"), NotUtf8),
            ("a surrogate", masked(0x81, b"\xED\xA0\x80"), NotUtf8),
            ("text that ends within a character", masked(0x81, "ñ".as_bytes().split_at(1).0), NotUtf8),
            ("no text in a fragment", masked(0x01, b"x\xF4\x90"), NotUtf8),
            ("64 MiB, by the header", with_length(&[0xFF, 0, 0, 0, 0, 4, 0, 0, 0]), TooBig),
            ("fragments that add up", [masked(0x02, &[0; 65_536]), masked(0x80, b"x")].concat(), TooBig),
        ];
        for (what, stream, violation) in table {
            assert_eq!(read_all(&stream), Err(violation), "{what}");
            assert_eq!(read(stream.chunks(1)), Err(violation), "{what}, byte by byte");
        }
        let largest = masked(0x82, &[7; MESSAGE_BYTES_MAX]);
        assert_eq!(read_all(&largest), Ok(vec![Incoming::Binary(vec![7; MESSAGE_BYTES_MAX])]));
    }

    #[test]
    fn a_full_message_in_fragments_leaves_no_room_but_for_control_frames() {
        let stream = [masked(0x02, &[0; MESSAGE_BYTES_MAX]), masked(0x89, b"?"), masked(0x80, b"")].concat();
        assert_eq!(read_all(&stream).map(|seen| seen.len()), Ok(2));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Outgoing::Close(1000, &"ñ".repeat(100)).encode();
        assert_eq!(usize::from(close[1]), close.len() - 2);
        assert!(close.len() <= 127 && std::str::from_utf8(&close[4..]).is_ok());
    }

    fn incoming() -> impl Strategy<Value = (Incoming, Vec<u8>)> {
        let codes = prop_oneof![1000_u16..1004, 3000_u16..5000];
        prop_oneof![
            (".{0,300}", any::<prop::sample::Index>()).prop_map(|(text, at)| {
                // In two fragments, cut also within a character.
                let (head, tail) = text.as_bytes().split_at(at.index(text.len() + 1));
                let stream = [masked(0x01, head), masked(0x80, tail)].concat();
                (Incoming::Text(text), stream)
            }),
            vec(any::<u8>(), 0..300).prop_map(|data| (Incoming::Binary(data.clone()), masked(0x82, &data))),
            vec(any::<u8>(), 0..126).prop_map(|data| (Incoming::Ping(data.clone()), masked(0x89, &data))),
            codes.prop_map(|code| (Incoming::Close(Some(code)), masked(0x88, &code.to_be_bytes()))),
        ]
    }

    proptest! {
        #[test]
        fn any_pieces_of_a_stream_give_the_same_messages(
            messages in vec(incoming(), 0..8),
            sizes in vec(1..64_usize, 1..40),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let (mut rest, mut pieces) = (&stream[..], Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let sent: Vec<Incoming> = messages.into_iter().map(|(message, _)| message).collect();
            prop_assert_eq!(read(pieces), Ok(sent));
        }

        #[test]
        fn no_bytes_make_it_panic_and_pieces_do_not_matter(noise in vec(any::<u8>(), 0..400), size in 1..50_usize) {
            prop_assert_eq!(read_all(&noise), read(noise.chunks(size)));
        }
    }
}
