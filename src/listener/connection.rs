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

use hyper::{body::Incoming, header, http, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use poem::{
    Endpoint, Request, Response,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    DoorLimits, PROBLEM, RETRY_AFTER_SECS,
    answers::{Answers, Untaken, Way},
    bodies::{self, Bodies, Held},
    guests::{Guest, GuestBook, Guests},
    network::ClientNetwork,
    proxies::{client_of, is_forwarded},
    stream::{ClientStream, Life, Upgrade},
};
use crate::telemetry::Seldom;

/// The most that is read ahead, and so the most that the headers of a request may have, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// How much of requests over one HTTP/2 connection may come unread, and how much of each answer may wait, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;
const SEND_BYTES_MAX: usize = 64 * 1024;
/// The most header bytes of a request over HTTP/2.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// What is needed to serve a connection.
pub(super) struct Connection<E> {
    pub(super) endpoint: Arc<E>,
    pub(super) answers: Answers,
    pub(super) limits: DoorLimits,
    pub(super) remote: SocketAddr,
    pub(super) guests: Guests,
    pub(super) bodies: Bodies,
    /// Whether it is one of a trusted proxy.
    pub(super) is_proxied: bool,
    pub(super) strangers: Arc<Seldom>,
    /// Counts clients for whom there was no place.
    pub(super) refusals: Counter,
}

impl<E> Connection<E>
where
    E: Endpoint<Output = Response> + 'static,
{
    /// Serves requests until the client goes, takes too long, or `stop`.
    pub(super) async fn serve(self, stream: TcpStream, guest: Guest, stop: CancellationToken) {
        let DoorLimits { header_time_max, silence_max, trusted_proxies, sender_header, .. } = self.limits;
        let Ok(local) = stream.local_addr() else {
            return;
        };
        // A peer that has vanished acknowledges nothing: the system then ends the connection, whoever holds it.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(silence_max));
        let life = Arc::new(Life::new());
        let own = Arc::new(guest);
        let stream = ClientStream::new(stream, life.clone(), own.clone());

        let (has_asked, is_http_1) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let untaken = Untaken::default();
        let answer = {
            let (endpoint, answers, untaken) = (self.endpoint, self.answers, untaken.clone());
            let (has_asked, is_http_1) = (has_asked.clone(), is_http_1.clone());
            let (local, peer) = (LocalAddr(local.into()), self.remote);
            move |mut request: http::Request<Incoming>| {
                has_asked.store(true, Ordering::Relaxed);
                let client = if self.is_proxied {
                    client_of(&trusted_proxies, peer.ip(), request.headers())
                } else {
                    let is_claiming = is_forwarded(request.headers()) || sender_header.is_in(request.headers());
                    warn_of_stranger(&self.strangers, peer, is_claiming);
                    peer.ip()
                };
                let writer = sender_header.take(request.headers_mut(), self.is_proxied);
                // A connection may carry many requests at once, or those of many clients one after the other.
                let is_one_of_many = request.version() >= http::Version::HTTP_2;
                is_http_1.store(!is_one_of_many, Ordering::Relaxed);
                let network = ClientNetwork::of(client);
                let guest = if self.is_proxied || is_one_of_many {
                    let guest = self.guests.admit_request(network, is_one_of_many);
                    guest.map(Arc::new).map(Some).ok_or(())
                } else {
                    Ok(None)
                };
                if let (Some(upgrade), Ok(guest)) = (request.extensions_mut().remove::<OnUpgrade>(), &guest) {
                    let guest = guest.clone().unwrap_or_else(|| own.clone());
                    request.extensions_mut().insert(Upgrade::new(upgrade, guest));
                }
                let is_counted = bodies::is_counted(request.body());
                let remote = RemoteAddr(SocketAddr::new(client, peer.port()).into());
                let mut request = Request::from((request, local.clone(), remote, Scheme::HTTP));
                request.set_data(GuestBook::new(self.guests.clone(), network));
                request.set_data(writer);
                request.set_data(Way { answers: answers.clone(), network, untaken: untaken.clone() });
                let (endpoint, bodies, refusals) = (endpoint.clone(), self.bodies.clone(), self.refusals.clone());
                async move {
                    let (response, guest) = match guest {
                        Ok(guest) => {
                            let _taken = is_counted.then(|| bodies.bound(&mut request, network));
                            (endpoint.call(request).await.unwrap_or_else(|error| error.into_response()), guest)
                        }
                        Err(()) => {
                            refusals.inc();
                            (too_many(), None)
                        }
                    };
                    let response: http::Response<_> = response.into();
                    Ok::<_, Infallible>(response.map(|body| Held { body, _guest: guest }))
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
                    // Over HTTP/2 the other streams go on.
                    if untaken.give_up_stuck(silence_max) && is_http_1.load(Ordering::Relaxed) {
                        return;
                    }
                    let is_late = first_request_until.is_some() && !has_asked.load(Ordering::Relaxed);
                    if is_late || life.moved_at() + silence_max <= Instant::now() {
                        return;
                    }
                }
            }
        }
    }
}

/// All clients of a proxy that is not named look like one, and share what is meant for one.
fn warn_of_stranger(strangers: &Seldom, peer: SocketAddr, is_claiming: bool) {
    if is_claiming && let Some(count) = strangers.count() {
        warn!(
            "{} names others for whom it asks ({count} requests so far), and is not believed: if it is your proxy, name it \
             with --trust-proxy, or all of its clients count as one",
            peer.ip()
        );
    }
}

/// The answer to a client that has too many requests and streams already.
fn too_many() -> Response {
    let response = Response::builder().status(http::StatusCode::SERVICE_UNAVAILABLE);
    let response = response.content_type("application/problem+json").header(header::RETRY_AFTER, RETRY_AFTER_SECS);
    response.body(PROBLEM)
}

fn builder(header_time_max: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_time_max).max_buf_size(READ_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        // A peer that does not answer a ping is gone.
        .keep_alive_interval(header_time_max)
        .keep_alive_timeout(header_time_max);
    builder
}
