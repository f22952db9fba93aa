//! The events of a `text/event-stream`, out of chunked HTTP.

use anyhow::{Context, ensure};

/// The most that may wait for its end, in bytes: far more than an event.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// One stream, between two reads.
#[derive(Debug)]
pub struct EventStream {
    is_chunked: bool,
    /// Bytes of the chunk under way that are still to come, with the line end behind it.
    chunk_left: usize,
    /// A chunk's head that came without its end.
    head: Vec<u8>,
    /// An event that came without its end.
    text: Vec<u8>,
}

impl EventStream {
    /// The stream after the head of its answer.
    pub fn new(is_chunked: bool) -> Self {
        Self { is_chunked, chunk_left: 0, head: Vec::new(), text: Vec::new() }
    }

    /// Takes what was read, and gives each whole event to `see`, with its lines as they are.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> anyhow::Result<()> {
        if self.is_chunked {
            self.unchunk(bytes)?;
        } else {
            self.text.extend_from_slice(bytes);
        }
        let mut start = 0;
        while let Some(length) = self.text[start..].windows(2).position(|pair| pair == b"\n\n") {
            see(&self.text[start..start + length]);
            start += length + 2;
        }
        self.text.drain(..start);
        ensure!(self.text.len() < WAITING_BYTES_MAX, "an event without end");
        Ok(())
    }

    fn unchunk(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.chunk_left > 0 {
                let taken = self.chunk_left.min(bytes.len());
                // The last two bytes of a chunk are a line end, not text.
                let text = taken.min(self.chunk_left.saturating_sub(2));
                self.text.extend_from_slice(&bytes[..text]);
                self.chunk_left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            bytes = rest;
            if *first != b'\n' {
                ensure!(self.head.len() < 64, "a chunk's head without end");
                self.head.push(*first);
                continue;
            }
            let head = str::from_utf8(&self.head).context("a chunk's head that is no text")?;
            let digits = head.trim_end().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(digits, 16).with_context(|| format!("`{head}` is no chunk's head"))?;
            ensure!(length > 0, "the server ended the event stream");
            self.chunk_left = length + 2;
            self.head.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "id: 1\nevent: created\ndata: {\"a\":1}\n\nid: 2\ndata: b\n\n: ping\n\n";

    fn chunked(text: &str, size: usize) -> Vec<u8> {
        let chunks = text.as_bytes().chunks(size);
        chunks.flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).collect()
    }

    #[test]
    fn events_are_whole_however_they_are_cut() {
        for chunk in [1, 3, 17, 1_000] {
            for read in [1, 2, 5, 64, 10_000] {
                let mut stream = EventStream::new(true);
                let mut seen = Vec::new();
                for part in chunked(EVENTS, chunk).chunks(read) {
                    stream.feed(part, |event| seen.push(String::from_utf8_lossy(event).into_owned())).unwrap();
                }
                assert_eq!(seen, ["id: 1\nevent: created\ndata: {\"a\":1}", "id: 2\ndata: b", ": ping"]);
            }
        }
    }

    #[test]
    fn the_end_of_a_stream_is_told() {
        let mut stream = EventStream::new(true);
        let told = stream.feed(b"0\r\n\r\n", |_| ()).unwrap_err();
        assert_eq!(told.to_string(), "the server ended the event stream");
        assert!(EventStream::new(true).feed(b"hello\r\n", |_| ()).is_err());
    }
}
