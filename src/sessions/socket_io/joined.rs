//! A WebSocket that takes over a session which has begun without it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::sync::DropGuard;

/// What a client says to take a session over to its WebSocket: the frames `2probe` and `5`, with a mask of zeros.
const ASKED: &[u8] = b"\x81\x86\0\0\0\x002probe\x81\x81\0\0\0\x005";
/// What it is answered: the frame `3probe`.
const ANSWERED: &[u8] = b"\x81\x063probe";

/// A connection as the library takes it.
pub struct Joined<S> {
    stream: S,
    /// What the library still hears as if the client had said it.
    asked: Bytes,
    /// How much of the library's answer the client does not see.
    unanswered_bytes: usize,
    /// Set while a write waits: a client that takes no byte for so long is given up.
    stuck: Option<Pin<Box<Sleep>>>,
    silence_max: Duration,
    _until: DropGuard,
}

impl<S> Joined<S> {
    /// Of a client that asks for the upgrade itself. `until` is told when the connection is over.
    pub(super) fn new(stream: S, silence_max: Duration, until: DropGuard) -> Self {
        Self { stream, asked: Bytes::new(), unanswered_bytes: 0, stuck: None, silence_max, _until: until }
    }

    /// On which the upgrade is asked for and answered, as far as the library can tell, and the client has seen nothing of it.
    pub(super) fn at_once(stream: S, silence_max: Duration, until: DropGuard) -> Self {
        let (asked, unanswered_bytes) = (Bytes::from_static(ASKED), ANSWERED.len());
        Self { asked, unanswered_bytes, ..Self::new(stream, silence_max, until) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.asked.has_remaining() {
            let taken = self.asked.len().min(buf.remaining());
            buf.put_slice(&self.asked.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unanswered_bytes > 0 {
            let taken = self.unanswered_bytes.min(buf.len());
            self.unanswered_bytes -= taken;
            return Poll::Ready(Ok(taken));
        }
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, buf) {
            self.stuck = None;
            return Poll::Ready(written);
        }
        let silence_max = self.silence_max;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(silence_max)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::sessions::wire::{Decoder, Incoming, Outgoing};

    #[tokio::test]
    async fn the_library_takes_the_session_over_and_the_client_sees_nothing_of_it() {
        let (server, mut client) = duplex(64);
        let over = CancellationToken::new();
        let mut joined = Joined::at_once(server, Duration::from_millis(50), over.clone().drop_guard());
        let mut asked = [0; ASKED.len()];
        joined.read_exact(&mut asked).await.unwrap();
        let (mut decoder, mut input) = (Decoder::default(), &asked[..]);
        assert_eq!(decoder.next(&mut input), Ok(Some(Incoming::Text("2probe".into()))));
        assert_eq!(decoder.next(&mut input), Ok(Some(Incoming::Text("5".into()))));
        joined.write_all(&Outgoing::Text(b"3probe").encode()).await.unwrap();
        joined.write_all(b"then").await.unwrap();
        client.write_all(b"and").await.unwrap();
        let (mut seen, mut heard) = ([0; 4], [0; 3]);
        client.read_exact(&mut seen).await.unwrap();
        joined.read_exact(&mut heard).await.unwrap();
        assert_eq!((&seen, &heard), (b"then", b"and"));
        // Nobody reads what comes next.
        let stuck = joined.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        assert!(!over.is_cancelled());
        drop(joined);
        assert!(over.is_cancelled());
    }
}
