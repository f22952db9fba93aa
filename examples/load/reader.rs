//! One reader: what it does with the bytes that come. Pure, but for the buffer that all readers of a thread share.

use anyhow::{bail, ensure};

use super::{
    flags::Transport,
    frames::{Frame, Kind, client_pong, client_text},
    order::Order,
    sse::EventStream,
    stamp::{MARK, Nanos, STAMP_BYTES, Stamp, is_intact},
    stats::{Delays, no_delays, record},
};

/// What all readers of one thread share and add to.
pub struct Tally {
    pub delays: Delays,
    /// Messages that were meant to be sent from then on and before then are measured.
    pub window: (Nanos, Nanos),
    /// Frames with a stamp.
    pub deliveries: u64,
    /// All bytes read.
    pub bytes: u64,
    /// Contents that were compared and are not what was written.
    pub damaged: u64,
    /// Times that a server told a reader to reload.
    pub resets: u64,
    /// Compare every n-th content of these many bytes; 0 = none.
    pub check_every: u64,
    pub content_bytes: usize,
}

impl Tally {
    pub fn new(check_every: u64, content_bytes: usize) -> Self {
        Self {
            delays: no_delays(),
            window: (Nanos::MAX, Nanos::MAX),
            deliveries: 0,
            bytes: 0,
            damaged: 0,
            resets: 0,
            check_every,
            content_bytes,
        }
    }
}

/// What one reader remembers between two reads.
pub struct Reader {
    wire: Wire,
    pub seen: Seen,
    /// To be sent to the server.
    pub reply: Vec<u8>,
    room: String,
}

enum Wire {
    WebSocket,
    SocketIo,
    Sse(EventStream),
}

/// What one reader has seen.
pub struct Seen {
    pub order: Order,
    /// Messages, however many of them twice.
    pub messages: u64,
    /// The server has said that it is live.
    pub is_ready: bool,
    /// Where the stamp stood in the last frame: it stands there again as long as ids and names are of one length.
    stamp_at: usize,
}

impl Reader {
    /// A reader whose handshake is done.
    pub fn new(transport: Transport, is_chunked: bool, writers: usize, room: &str) -> Self {
        let wire = match transport {
            Transport::Websocket => Wire::WebSocket,
            Transport::SocketIo => Wire::SocketIo,
            Transport::Sse => Wire::Sse(EventStream::new(is_chunked)),
        };
        let seen = Seen { order: Order::new(writers), messages: 0, is_ready: false, stamp_at: 0 };
        Self { wire, seen, reply: Vec::new(), room: room.to_owned() }
    }

    /// Takes what was read at `time`, and says how much of it was used. The rest is the beginning of a frame, to be given
    /// again with what follows it.
    ///
    /// # Errors
    /// When the server closed the connection or said what it must not.
    pub fn take(&mut self, bytes: &[u8], time: Nanos, tally: &mut Tally) -> anyhow::Result<usize> {
        let seen = &mut self.seen;
        if let Wire::Sse(events) = &mut self.wire {
            events.feed(bytes, |event| seen.see(event, time, tally))?;
            return Ok(bytes.len());
        }
        let mut at = 0;
        while let Some(frame) = Frame::at(bytes, at) {
            at = frame.payload.end;
            let payload = &bytes[frame.payload];
            match frame.kind {
                Kind::Text if matches!(self.wire, Wire::WebSocket) => seen.see(payload, time, tally),
                Kind::Text => see_packet(payload, time, seen, tally, &mut self.reply, &self.room)?,
                Kind::Ping => self.reply.extend(client_pong(payload)),
                Kind::Close => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    bail!("the server closed the connection with code {code}");
                }
                Kind::Other => {}
            }
        }
        Ok(at)
    }
}

impl Seen {
    /// The one thing that happens for every delivery.
    fn see(&mut self, frame: &[u8], time: Nanos, tally: &mut Tally) {
        let found = frame.get(self.stamp_at..).and_then(Stamp::read).or_else(|| {
            self.stamp_at = frame.windows(MARK.len()).position(|window| window == MARK)?;
            Stamp::read(&frame[self.stamp_at..])
        });
        let Some(stamp) = found else {
            self.see_other(frame, tally);
            return;
        };
        self.messages += 1;
        tally.deliveries += 1;
        self.order.saw(stamp.writer, stamp.sequence);
        if (tally.window.0..tally.window.1).contains(&stamp.intended) {
            record(&mut tally.delays, time.saturating_sub(stamp.intended));
        }
        if tally.check_every > 0 && tally.deliveries.is_multiple_of(tally.check_every) {
            let rest = frame.get(self.stamp_at + STAMP_BYTES..).unwrap_or_default();
            tally.damaged += u64::from(!is_intact(rest, tally.content_bytes));
        }
    }

    #[cold]
    fn see_other(&mut self, frame: &[u8], tally: &mut Tally) {
        let holds = |word: &str| frame.windows(word.len()).any(|window| window == word.as_bytes());
        if holds(r#""type":"ready""#) || holds("event: ready") || holds("event:ready") {
            self.is_ready = true;
        } else if holds(r#""type":"reset""#) || holds("event: reset") || holds("event:reset") {
            tally.resets += 1;
        }
    }
}

/// A packet of Engine.IO 4 that carries Socket.IO 5.
fn see_packet(
    packet: &[u8],
    time: Nanos,
    seen: &mut Seen,
    tally: &mut Tally,
    reply: &mut Vec<u8>,
    room: &str,
) -> anyhow::Result<()> {
    match packet {
        [b'4', b'2', ..] => seen.see(packet, time, tally),
        // Open: connect to the main namespace. Connected: follow the room. Acknowledged: live.
        [b'0', ..] => reply.extend(client_text(b"40")),
        [b'4', b'0', ..] => {
            reply.extend(client_text(format!(r#"420["subscribe",{{"room":"{room}"}}]"#).as_bytes()));
        }
        [b'4', b'3', ..] => {
            ensure!(!packet.windows(9).any(|window| window == b"\"problem\""), "the server refused to follow the room");
            seen.is_ready = true;
        }
        [b'2', ..] => reply.extend(client_text(b"3")),
        [b'1', ..] | [b'4', b'1' | b'4', ..] => bail!("the server closed the Socket.IO connection"),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut bytes = vec![0x81, 126];
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn created(sequence: u32, intended: Nanos) -> String {
        let content = Stamp { writer: 0, sequence, intended }.content(40);
        format!(r#"{{"type":"created","cursor":"x","message":{{"content":"{content}","sender":"a"}}}}"#)
    }

    fn measured() -> Tally {
        Tally { window: (1_000_000, 2_000_000), ..Tally::new(1, 40) }
    }

    #[test]
    fn a_websocket_reader_counts_measures_and_answers() {
        let mut tally = measured();
        let mut reader = Reader::new(Transport::Websocket, false, 1, "load");
        let mut bytes = frame(r#"{"type":"ready","cursor":"y"}"#);
        bytes.extend(frame(&created(0, 5)));
        bytes.extend([0x89, 1, b'p']);
        bytes.extend(frame(&created(1, 1_500_000)));
        let used = reader.take(&bytes, 3_500_000, &mut tally).unwrap();
        assert_eq!(used, bytes.len());
        assert!(reader.seen.is_ready);
        assert_eq!((reader.seen.messages, tally.deliveries, tally.damaged), (2, 2, 0));
        assert_eq!((tally.delays.len(), tally.delays.max()), (1, 2_000));
        assert_eq!(reader.reply, client_pong(b"p"));
        let cut = frame(&created(2, 1_500_000));
        assert_eq!(reader.take(&cut[..cut.len() - 1], 0, &mut tally).unwrap(), 0);
        let wrong = frame(&created(2, 1_500_000).replace("corr", "c0rr"));
        reader.take(&wrong, 3_500_000, &mut tally).unwrap();
        reader.take(&frame(r#"{"type":"reset"}"#), 3_500_000, &mut tally).unwrap();
        assert_eq!((tally.damaged, tally.resets), (1, 1));
        assert!(reader.take(&[0x88, 2, 3, 0xf4], 0, &mut tally).unwrap_err().to_string().contains("1012"));
    }

    #[test]
    fn a_socket_io_reader_connects_subscribes_and_reads() {
        let mut tally = measured();
        let mut reader = Reader::new(Transport::SocketIo, false, 1, "load");
        let mut say = |text: &str| {
            reader.take(&frame(text), 3_000_000, &mut tally).unwrap();
            std::mem::take(&mut reader.reply)
        };
        assert_eq!(say(r#"0{"sid":"a"}"#), client_text(b"40"));
        assert_eq!(say(r#"40{"sid":"b"}"#), client_text(br#"420["subscribe",{"room":"load"}]"#));
        say(r#"430[{"topic":{"room":"load"}}]"#);
        assert_eq!(say("2"), client_text(b"3"));
        say(&format!(r#"42["created",{}]"#, created(0, 1_000_000)));
        assert!(reader.seen.is_ready);
        assert_eq!((reader.seen.messages, tally.delays.max()), (1, 2_000));
    }

    #[test]
    fn an_event_stream_is_read() {
        let mut tally = measured();
        let mut reader = Reader::new(Transport::Sse, false, 1, "load");
        let text = format!("event: ready\ndata: {{}}\n\nid: 1\ndata: {}\n\n", created(0, 1_000_000));
        for part in text.as_bytes().chunks(50) {
            assert_eq!(reader.take(part, 3_000_000, &mut tally).unwrap(), part.len());
        }
        assert!(reader.seen.is_ready);
        assert_eq!((reader.seen.messages, tally.damaged, tally.delays.len()), (1, 0, 1));
    }
}
