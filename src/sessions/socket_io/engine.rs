//! Engine.IO, which carries Socket.IO, over our own front door: its requests, and its connections when it has upgraded.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use hyper::service::Service;
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, HeaderMap, Method, StatusCode, header},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::command::Command;
use crate::{
    listener::Upgrade,
    problem::Problem,
    sessions::handshake::check,
    telemetry::{Counted, Metrics},
};

/// How long the body of a request may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a client may still wait for packets when the server stops. Those that have one get it before.
const LAST_POLL_TIME_MAX: Duration = Duration::from_secs(2);

/// An Engine.IO service as an endpoint. Sessions are bounded in number here: with polling, a session is not a connection.
pub struct EngineIo<S> {
    service: S,
    payload_bytes_max: usize,
    places: Arc<Semaphore>,
    metrics: Metrics,
    stop: CancellationToken,
}

/// Goes with the request that begins a session, and so with the session, which keeps the request's parts.
pub(super) struct Admission {
    /// Where the commands of its client come, until its session takes them up.
    pub(super) commands: Mutex<Option<mpsc::Receiver<Command>>>,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

impl<S> EngineIo<S> {
    /// Of so many sessions at once, with payloads of so many bytes, until `stop`.
    pub fn new(
        service: S,
        sessions_max: usize,
        payload_bytes_max: usize,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(sessions_max.min(Semaphore::MAX_PERMITS)));
        Self { service, payload_bytes_max, places, metrics: metrics.clone(), stop }
    }

    fn admit(&self) -> Result<Arc<Admission>, Problem> {
        let place = self.places.clone().try_acquire_owned();
        let _place = place.map_err(|_| Problem::unavailable("there are too many Socket.IO sessions"))?;
        let _counted = Counted::connection(&self.metrics, "socket.io");
        Ok(Arc::new(Admission { commands: Mutex::default(), _place, _counted }))
    }

    /// The request as the service takes it: with its body, which is text, and without the front door's own things.
    async fn translate(&self, request: &mut Request) -> Result<http::Request<String>, Problem> {
        let body = timeout(BODY_TIME_MAX, request.take_body().into_bytes_limit(self.payload_bytes_max)).await;
        let body = body
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
            .map_err(|error| Problem::of_error(&error.into()))?;
        let body = String::from_utf8(body.into())
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "a payload must be UTF-8"))?;
        let mut translated = http::Request::new(body);
        *translated.method_mut() = request.method().clone();
        *translated.uri_mut() = request.uri().clone();
        *translated.headers_mut() = request.headers().clone();
        if is_upgrade(request.method(), request.headers()) {
            check(request.headers())?;
            let upgrade = request.data::<Upgrade>().and_then(Upgrade::take);
            let upgrade = upgrade.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "this can not be upgraded"))?;
            translated.extensions_mut().insert(upgrade);
        }
        Ok(translated)
    }
}

impl<S, B> Endpoint for EngineIo<S>
where
    S: Service<http::Request<String>, Response = http::Response<B>> + Send + Sync,
    S::Future: Send,
    S::Error: std::fmt::Display,
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let mut translated = self.translate(&mut request).await?;
        let query = request.uri().query().unwrap_or_default();
        if !query.split('&').any(|pair| pair.starts_with("sid=")) {
            translated.extensions_mut().insert(self.admit()?);
        }
        let answer = tokio::select! {
            answer = self.service.call(translated) => answer,
            () = async { self.stop.cancelled().await; sleep(LAST_POLL_TIME_MAX).await } => {
                // Its client takes the session for lost, and opens another one.
                return Err(Problem::unavailable("the server stops").into());
            }
        };
        let failed = |error: S::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let (parts, body) = answer.map_err(failed)?.into_parts();
        let mut response = Response::builder().status(parts.status).body(body_of(body));
        *response.headers_mut() = parts.headers;
        Ok(response)
    }
}

fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && headers.contains_key(header::UPGRADE)
}

fn body_of<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::from_bytes_stream(stream::unfold(body, |mut body| async move {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await?;
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => return Some((Ok(data), body)),
                // Trailers, of which there are none.
                Ok(Err(_)) => {}
                Err(error) => return Some((Err(std::io::Error::other(error.to_string())), body)),
            }
        }
    }))
}
