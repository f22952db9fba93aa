//! One connection, from its first byte to its end or until it becomes a WebSocket.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, http, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use poem::{
    Endpoint, Request, Response,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{DoorLimits, guests::Guest};

/// The most that is read ahead, and so the most that the headers of a request may have, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// The most header bytes of a request over HTTP/2.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// What is needed to serve a connection.
pub(super) struct Connection<E> {
    pub(super) endpoint: Arc<E>,
    pub(super) limits: DoorLimits,
    pub(super) remote: SocketAddr,
}

impl<E> Connection<E>
where
    E: Endpoint<Output = Response> + 'static,
{
    /// Serves requests until the client goes, takes too long, or `stop`.
    pub(super) async fn serve(self, stream: TcpStream, guest: Guest, stop: CancellationToken) {
        let DoorLimits { header_time_max, silence_max, .. } = self.limits;
        let Ok(local) = stream.local_addr() else {
            return;
        };
        // A peer that has vanished acknowledges nothing: the system then ends the connection, whoever holds it.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(silence_max));
        let life = Arc::new(Life { began: Instant::now(), moved_millis: AtomicU64::new(0) });
        let stream = Caller { stream, life: life.clone(), _guest: guest };

        let has_asked = Arc::new(AtomicBool::new(false));
        let answer = {
            let (endpoint, has_asked) = (self.endpoint, has_asked.clone());
            let (local, remote) = (LocalAddr(local.into()), RemoteAddr(self.remote.into()));
            move |request: http::Request<Incoming>| {
                has_asked.store(true, Ordering::Relaxed);
                let request = Request::from((request, local.clone(), remote.clone(), Scheme::HTTP));
                let endpoint = endpoint.clone();
                async move { Ok::<http::Response<_>, Infallible>(endpoint.get_response(request).await.into()) }
            }
        };
        let builder = builder(header_time_max);
        let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)));

        let mut is_stopping = false;
        loop {
            let silent_at = life.moved_at() + silence_max;
            // hyper's own deadline begins when it knows which version of HTTP is spoken.
            let first_request_until = (!has_asked.load(Ordering::Relaxed)).then(|| life.began + header_time_max);
            let deadline = first_request_until.map_or(silent_at, |until| until.min(silent_at));
            tokio::select! {
                _ = &mut serving => return,
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = sleep_until(deadline) => {
                    let is_late = first_request_until.is_some() && !has_asked.load(Ordering::Relaxed);
                    if is_late || life.moved_at() + silence_max <= Instant::now() {
                        return;
                    }
                }
            }
        }
    }
}

fn builder(header_time_max: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_time_max).max_buf_size(READ_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        // A peer that does not answer a ping is gone.
        .keep_alive_interval(header_time_max)
        .keep_alive_timeout(header_time_max);
    builder
}

/// When a byte last moved.
struct Life {
    began: Instant,
    /// Milliseconds after `began`.
    moved_millis: AtomicU64,
}

impl Life {
    fn moved(&self) {
        self.moved_millis.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn moved_at(&self) -> Instant {
        self.began + Duration::from_millis(self.moved_millis.load(Ordering::Relaxed))
    }
}

/// The stream of a client, which counts as connected as long as this lives, also as a WebSocket.
struct Caller {
    stream: TcpStream,
    life: Arc<Life>,
    _guest: Guest,
}

impl AsyncRead for Caller {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.life.moved();
        }
        read
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(1..)) = written {
            self.life.moved();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(1..)) = written {
            self.life.moved();
        }
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
