//! The bytes of one connection, below HTTP and after it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::guests::Guest;

/// Looks at what a client sends, before anybody else does. An error ends the connection.
pub type Inspector = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send + Sync>;

/// Stands in the extensions of a request that asks for another protocol. Whoever answers it with 101 can have the
/// connection itself, without the layers that hyper and Poem put around it: those cost a lock and a copy per write.
#[derive(Clone)]
pub struct Upgrade {
    upgrade: Arc<Mutex<Option<OnUpgrade>>>,
    guest: Arc<Guest>,
}

impl Upgrade {
    pub(super) fn new(upgrade: OnUpgrade, guest: Arc<Guest>) -> Self {
        Self { upgrade: Arc::new(Mutex::new(Some(upgrade))), guest }
    }

    /// The place of the connection's client, which counts once, until both the connection and what is returned are gone: for
    /// what may outlive the connection.
    pub fn guest(&self) -> Arc<Guest> {
        self.guest.clone()
    }

    /// The connection, when the answer has gone out; `None` when it was given away before, broke, or is not there
    /// within `patience`.
    pub fn stream(&self, patience: Duration) -> impl Future<Output = Option<ClientStream>> + Send + use<> {
        let upgrade = self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
        let guest = self.guest.clone();
        async move {
            let upgraded = timeout(patience, upgrade?).await.ok()?.ok()?;
            let parts = auto::upgrade::downcast::<TokioIo<ClientStream>>(upgraded).ok()?;
            let mut stream = parts.io.into_inner();
            // A copy, which is nearly always of nothing: a part of hyper's buffer, also an empty one, would keep all 16 KB.
            stream.unread = Bytes::copy_from_slice(&parts.read_buf);
            (stream.life, stream._behind_proxy) = (None, Some(guest));
            Some(stream)
        }
    }
}

/// When a byte last moved.
pub(super) struct Life {
    began: Instant,
    /// Milliseconds after `began`.
    moved_millis: AtomicU64,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), moved_millis: AtomicU64::new(0) }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn moved_at(&self) -> Instant {
        self.began + Duration::from_millis(self.moved_millis.load(Ordering::Relaxed))
    }

    fn moved(&self) {
        self.moved_millis.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// How a stream ends.
enum Ending {
    /// When its client ends it.
    Open,
    /// Then with these words, if its client has not ended it before.
    Awaited(Pin<Box<WaitForCancellationFutureOwned>>, &'static [u8]),
    Said,
}

/// The stream of a client, which counts as connected as long as this lives, also as a WebSocket.
pub struct ClientStream {
    stream: TcpStream,
    /// What was read of the next protocol together with the last request.
    unread: Bytes,
    inspector: Option<Inspector>,
    ending: Ending,
    /// `None` after HTTP: what comes then has deadlines of its own.
    life: Option<Arc<Life>>,
    _guest: Arc<Guest>,
    /// The client's own place, where the connection is that of a proxy.
    _behind_proxy: Option<Arc<Guest>>,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, life: Arc<Life>, guest: Arc<Guest>) -> Self {
        let (unread, inspector, ending) = (Bytes::new(), None, Ending::Open);
        Self { stream, unread, inspector, ending, life: Some(life), _guest: guest, _behind_proxy: None }
    }

    /// Shows all that the client sends from now on to `inspector`, also where a library reads it, and what is not read yet of
    /// what it has sent.
    ///
    /// # Errors
    /// Those of the inspector.
    pub fn inspect(&mut self, mut inspector: Inspector) -> io::Result<()> {
        inspector(&self.unread)?;
        self.inspector = Some(inspector);
        Ok(())
    }

    /// At `at` whoever reads from the connection hears these words, as if the client had said them, and then its end: for a
    /// library that can not be told to close one connection.
    pub fn end_with(&mut self, words: &'static [u8], at: CancellationToken) {
        self.ending = Ending::Awaited(Box::pin(at.cancelled_owned()), words);
    }

    /// Whether it is over, by its farewell and not by its client. Sees to it that somebody is woken then.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if let Ending::Awaited(at, words) = &mut self.ending
            && at.as_mut().poll(cx).is_ready()
        {
            (self.unread, self.ending) = (Bytes::from_static(words), Ending::Said);
        }
        matches!(self.ending, Ending::Said)
    }

    fn note(&self, moved: &Poll<io::Result<usize>>) {
        if let (Some(life), Poll::Ready(Ok(1..))) = (&self.life, moved) {
            life.moved();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_over = !self.unread.has_remaining() && self.is_over(cx);
        if self.unread.has_remaining() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        if is_over {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note(&Poll::Ready(Ok(buf.filled().len() - before)));
        match &mut self.inspector {
            Some(inspector) => Poll::Ready(inspector(&buf.filled()[before..])),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
