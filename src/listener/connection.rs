//! One connection, from its first byte to its end or until it becomes a WebSocket.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, http, service::service_fn, upgrade::OnUpgrade};
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
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    DoorLimits,
    answers::Answers,
    guests::Guest,
    stream::{ClientStream, Life, Upgrade},
};

/// The most that is read ahead, and so the most that the headers of a request may have, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// The most header bytes of a request over HTTP/2.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// What is needed to serve a connection.
pub(super) struct Connection<E> {
    pub(super) endpoint: Arc<E>,
    pub(super) answers: Answers,
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
        let life = Arc::new(Life::new());
        let stream = ClientStream::new(stream, life.clone(), guest);

        let has_asked = Arc::new(AtomicBool::new(false));
        let answer = {
            let (endpoint, answers, has_asked) = (self.endpoint, self.answers, has_asked.clone());
            let (local, remote) = (LocalAddr(local.into()), RemoteAddr(self.remote.into()));
            move |mut request: http::Request<Incoming>| {
                has_asked.store(true, Ordering::Relaxed);
                if let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() {
                    request.extensions_mut().insert(Upgrade::new(upgrade));
                }
                let request = Request::from((request, local.clone(), remote.clone(), Scheme::HTTP));
                let (endpoint, answers) = (endpoint.clone(), answers.clone());
                async move {
                    let answer = answers.send(endpoint.get_response(request).await).await;
                    Ok::<http::Response<_>, Infallible>(answer.into())
                }
            }
        };
        let builder = builder(header_time_max);
        let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)));

        let mut is_stopping = false;
        loop {
            let silent_at = life.moved_at() + silence_max;
            // hyper's own deadline begins when it knows which version of HTTP is spoken.
            let first_request_until = (!has_asked.load(Ordering::Relaxed)).then(|| life.began() + header_time_max);
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
