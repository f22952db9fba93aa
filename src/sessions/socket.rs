//! One WebSocket over any stream: ready frames out, messages in, and what is known of the life of its peer.
//!
//! While nothing happens it holds no buffer. What is read passes through the stack, what is joined for a write through
//! a buffer of the thread, and only what is unfinished stays: a part of a client's message, or the rest of the one
//! frame that the kernel had no room for.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::wire::{Decoder, Incoming, Violation};

/// How much is handed to the kernel at once, in bytes. More than that brings nothing, and would be copied for nothing
/// when it has no room.
const WRITE_BYTES: usize = 64 * 1024;
/// How much is read at once, in bytes: clients send little.
const READ_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where frames are joined. It is used within one poll only, so one for each worker is enough.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A WebSocket after its handshake.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    decoder: Decoder,
    /// Bytes that were read and not yet decoded: what a client sent behind a message, in one piece with it.
    unread: Bytes,
    /// The rest of a frame that was begun. Nothing else may be written before it.
    unwritten: Bytes,
    last_sign: Instant,
    is_blocked: bool,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The connection broke, or ended without a close frame.
    #[error("the connection is gone")]
    Gone,
}

/// Why something could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The client took no byte of it for as long as it may.
    #[error("the client does not read")]
    Stuck,
    /// The connection broke.
    #[error("the connection is gone")]
    Gone,
}

impl From<io::Error> for WriteError {
    fn from(_: io::Error) -> Self {
        // Whatever it was, the connection can not be used any more, and there is nobody to tell.
        WriteError::Gone
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream on which the handshake is done.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            unread: Bytes::new(),
            unwritten: Bytes::new(),
            last_sign: Instant::now(),
            is_blocked: false,
        }
    }

    /// When the peer last gave a sign of life: a byte came, or a byte could be written after it had stopped to take any.
    /// A write that never had to wait is none: the kernel takes it also for a peer that is gone.
    pub fn last_sign(&self) -> Instant {
        self.last_sign
    }

    /// Whether a frame was begun and is not written whole.
    pub fn is_blocked(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The next message. May be dropped at any time and called again.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn read(&mut self) -> Result<Incoming, ReadError> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, ReadError>> {
        loop {
            if !self.unread.is_empty() {
                let mut input = &self.unread[..];
                let decoded = self.decoder.next(&mut input)?;
                let taken = self.unread.len() - input.len();
                self.unread.advance(taken);
                if self.unread.is_empty() {
                    // An empty part of them would keep them all.
                    self.unread = Bytes::new();
                }
                if let Some(incoming) = decoded {
                    return Poll::Ready(Ok(incoming));
                }
            }
            let fragments = self.decoder.take_fragments();
            if fragments > 0 {
                return Poll::Ready(Ok(Incoming::Fragments(fragments)));
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Err(ReadError::Gone)),
            }
            self.last_sign = Instant::now();
            let mut input = buffer.filled();
            if let Some(incoming) = self.decoder.next(&mut input)? {
                self.unread = Bytes::copy_from_slice(input);
                return Poll::Ready(Ok(incoming));
            }
        }
    }

    /// Says that nothing more will be written, and takes no notice of what still comes until the peer says the same. A
    /// connection that is closed before it was read to its end takes with it what was written last.
    pub async fn part(&mut self) {
        let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
        poll_fn(|cx| {
            loop {
                let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
                let mut buffer = ReadBuf::uninit(&mut space);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Writes one frame, from the memory that it is in. Waits as long as the peer takes bytes, however slowly.
    ///
    /// # Errors
    /// When the connection is gone, or no byte has moved for `silence_max`.
    pub async fn write(&mut self, frame: Bytes, silence_max: Duration) -> Result<(), WriteError> {
        self.finish(silence_max).await?;
        self.unwritten = frame;
        self.finish(silence_max).await
    }

    /// Writes as many of `frames` as the kernel takes at once, without waiting for room, and returns how many that were;
    /// at least one when there is any. The last of these may only be begun: see [`Self::finish`], which must have
    /// returned before this is called. So a client that does not read holds one frame, not all that was meant for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn begin<'a>(
        &mut self,
        cx: &mut Context<'_>,
        frames: impl Iterator<Item = &'a Bytes>,
    ) -> Result<usize, WriteError> {
        let mut frames = frames.peekable();
        let mut begun = 0;
        while let Some(first) = frames.next() {
            let joins = |next: &&Bytes, bytes: usize| bytes + next.len() <= WRITE_BYTES;
            if !frames.peek().is_some_and(|next| joins(next, first.len())) {
                // One that waits alone is not copied.
                begun += 1;
                let written = self.write_now(cx, first)?;
                if written < first.len() {
                    self.unwritten = first.slice(written..);
                    break;
                }
                continue;
            }
            let cut = JOINED.with_borrow_mut(|joined| {
                joined.clear();
                joined.extend_from_slice(first);
                let mut parts = vec![first];
                while let Some(next) = frames.next_if(|next| joins(next, joined.len())) {
                    joined.extend_from_slice(next);
                    parts.push(next);
                }
                let mut written = self.write_now(cx, joined)?;
                for part in parts {
                    begun += 1;
                    if written < part.len() {
                        return Ok::<_, WriteError>(Some(part.slice(written..)));
                    }
                    written -= part.len();
                }
                Ok(None)
            })?;
            if let Some(rest) = cut {
                self.unwritten = rest;
                break;
            }
        }
        if self.unwritten.is_empty() && begun > 0 {
            let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        }
        Ok(begun)
    }

    /// Hands `bytes` to the kernel. Returns how many it took, which may be none.
    fn write_now(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, WriteError> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => {
                self.is_blocked = true;
                Ok(0)
            }
            Poll::Ready(Ok(0)) => Err(WriteError::Gone),
            Poll::Ready(written) => {
                if std::mem::take(&mut self.is_blocked) {
                    self.last_sign = Instant::now();
                }
                Ok(written?)
            }
        }
    }

    /// Writes the rest of what was begun. Waits as long as the peer takes bytes, however slowly.
    ///
    /// # Errors
    /// When the connection is gone, or no byte has moved for `silence_max`.
    pub async fn finish(&mut self, silence_max: Duration) -> Result<(), WriteError> {
        if !self.unwritten.is_empty() {
            return match poll_fn(|cx| Poll::Ready(self.poll_finish(cx))).await {
                Poll::Ready(finished) => finished,
                // Boxed, as few sessions wait at any time.
                Poll::Pending => Box::pin(self.finish_slowly(silence_max)).await,
            };
        }
        Ok(())
    }

    async fn finish_slowly(&mut self, silence_max: Duration) -> Result<(), WriteError> {
        let began = Instant::now();
        let mut patience = pin!(sleep_until(began + silence_max));
        loop {
            tokio::select! {
                biased;
                finished = poll_fn(|cx| self.poll_finish(cx)) => return finished,
                () = &mut patience => {
                    let deadline = self.last_sign.max(began) + silence_max;
                    if Instant::now() >= deadline {
                        return Err(WriteError::Stuck);
                    }
                    patience.as_mut().reset(deadline);
                }
            }
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while !self.unwritten.is_empty() {
            let mut unwritten = std::mem::take(&mut self.unwritten);
            let written = self.write_now(cx, &unwritten)?;
            unwritten.advance(written);
            self.unwritten = unwritten;
            if written == 0 {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(WriteError::from)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::sessions::wire::Outgoing;

    const SILENCE_MAX: Duration = Duration::from_millis(100);

    /// Counts what would be system calls.
    struct Counting {
        inner: DuplexStream,
        writes: usize,
    }

    impl AsyncRead for Counting {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            Pin::new(&mut self.inner).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    fn socket(kernel_bytes: usize) -> (Socket<Counting>, DuplexStream) {
        let (ours, theirs) = duplex(kernel_bytes);
        (Socket::new(Counting { inner: ours, writes: 0 }), theirs)
    }

    fn frames(count: usize) -> Vec<Bytes> {
        (0..count).map(|number| Outgoing::Text(format!("{number:0>300}").as_bytes()).encode()).collect()
    }

    async fn begin(socket: &mut Socket<Counting>, frames: &[Bytes]) -> usize {
        poll_fn(|cx| Poll::Ready(socket.begin(cx, frames.iter()))).await.unwrap()
    }

    #[tokio::test]
    async fn what_waits_together_is_one_write() {
        let (mut socket, mut peer) = socket(1 << 20);
        let frames = frames(500);
        assert_eq!(begin(&mut socket, &frames[..1]).await, 1);
        assert_eq!(socket.stream.writes, 1, "one that is alone waits for no other");
        assert_eq!(begin(&mut socket, &frames[1..201]).await, 200);
        assert_eq!(socket.stream.writes, 2);
        assert_eq!(begin(&mut socket, &frames[201..]).await, 299);
        assert_eq!(socket.stream.writes, 4, "90 KB, at most 64 KiB at once");
        let mut seen = vec![0; frames.concat().len()];
        peer.read_exact(&mut seen).await.unwrap();
        assert!(seen == frames.concat());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_one_frame_and_is_found_out() {
        let (mut socket, mut peer) = socket(1_000);
        let frames = frames(10);
        assert_eq!(begin(&mut socket, &frames).await, 4, "three have room, and the fourth in part");
        assert!(socket.is_blocked() && socket.unwritten.len() < frames[0].len());
        assert_eq!(socket.finish(SILENCE_MAX).await, Err(WriteError::Stuck));
        // Nothing is lost by that: whoever has patience goes on in the middle of the frame.
        let mut seen = vec![0; frames[..5].concat().len()];
        let (sent, read) = tokio::join!(socket.write(frames[4].clone(), SILENCE_MAX), peer.read_exact(&mut seen));
        assert!(sent.is_ok() && read.is_ok() && seen == frames[..5].concat());
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_is_kept() {
        let (mut socket, mut peer) = socket(10);
        let (frame, mut seen) = (frames(1).remove(0), [0; 304]);
        let began = Instant::now();
        let slow = async {
            for byte in seen.chunks_mut(38) {
                tokio::time::sleep(SILENCE_MAX / 2).await;
                peer.read_exact(byte).await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(socket.write(frame.clone(), SILENCE_MAX), slow);
        assert_eq!(sent, Ok(()));
        assert!(began.elapsed() > 2 * SILENCE_MAX && seen[..] == frame[..]);
        assert!(socket.last_sign() > began);
    }

    #[tokio::test]
    async fn messages_in_one_piece_are_read_one_by_one_and_leave_nothing() {
        let (mut socket, mut peer) = socket(1 << 16);
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let unmasked = [0x81, 0x00];
        peer.write_all(&[&hello[..], &hello, &hello[..4]].concat()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(socket.read().await.unwrap(), Incoming::Text("Hello".into()));
        }
        peer.write_all(&[&hello[4..], &unmasked].concat()).await.unwrap();
        assert_eq!(socket.read().await.unwrap(), Incoming::Text("Hello".into()));
        assert!(matches!(socket.read().await, Err(ReadError::Violation(Violation::Protocol))));
        drop(peer);
        assert!(matches!(socket.read().await, Err(ReadError::Gone)));
    }
}
