//! A stream that knows when its peer was last heard of, so that a slow client can be told from a dead one.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// When a peer last gave a sign of life. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Life {
    began: Instant,
    /// Milliseconds after `began`.
    sign_millis: Arc<AtomicU64>,
}

impl Life {
    fn sign(&self) {
        self.sign_millis.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// When the peer was last heard of.
    pub(super) fn last_sign(&self) -> Instant {
        self.began + Duration::from_millis(self.sign_millis.load(Ordering::Relaxed))
    }

    /// Waits for a write as long as the peer takes bytes, however slowly. `None` after `silence_max` without one.
    pub(super) async fn outlast<T>(&self, write: impl Future<Output = T>, silence_max: Duration) -> Option<T> {
        tokio::pin!(write);
        let began = Instant::now();
        loop {
            let moved_at = self.last_sign().max(began);
            tokio::select! {
                written = &mut write => return Some(written),
                () = sleep_until(moved_at + silence_max) => {
                    if self.last_sign() <= moved_at {
                        return None;
                    }
                }
            }
        }
    }
}

/// Notes two signs of life: a byte came, or a byte could be written after the peer had stopped to take any. A write
/// that never had to wait is none: the kernel takes it also for a peer that is gone.
pub(super) struct Progress<S> {
    inner: S,
    life: Life,
    is_blocked: bool,
}

impl<S> Progress<S> {
    pub(super) fn new(inner: S) -> Self {
        let life = Life { began: Instant::now(), sign_millis: Arc::default() };
        Self { inner, life, is_blocked: false }
    }

    pub(super) fn life(&self) -> Life {
        self.life.clone()
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.is_blocked = true,
            Poll::Ready(Ok(1..)) if self.is_blocked => {
                self.is_blocked = false;
                self.life.sign();
            }
            Poll::Ready(_) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.life.sign();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
