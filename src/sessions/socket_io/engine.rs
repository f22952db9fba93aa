//! Engine.IO, which carries Socket.IO, over our own front door: its requests, and its connections when it has upgraded.
//!
//! The library pings a client at once, before the first interval is over. Clients that take the protocol by its word are
//! not ready for that, the official test suites first among them. So every session begins here as one that polls, the
//! first ping is polled and answered, and only then it is the client's: also over a WebSocket, which joins it then.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use hyper::{body::Body as HyperBody, service::Service};
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, HeaderValue, Method, StatusCode, Uri, header},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, OpenSessions},
    joined::Joined,
    packets::{inspector, is_event},
};
use crate::{
    listener::{ClientNetwork, ClientStream, Guest, GuestBook, Upgrade},
    problem::Problem,
    rates::Rates,
    sessions::{Client, handshake::accept, wire::Outgoing},
    telemetry::{Counted, Metrics, ReasonLabels},
};

/// How long the body of a request may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the library may take to begin a session. It waits for nobody.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client may still wait for packets when all sessions have been told that the server stops. Those that have one
/// get it before.
const LAST_POLL_TIME_MAX: Duration = Duration::from_secs(1);
/// What ends a WebSocket, as if its client had said it: a close frame with 1012 and a mask of zeros, which the library
/// answers with the same code. Clients then come back by themselves.
const GOING_AWAY: &[u8] = b"\x88\x82\0\0\0\0\x03\xF4";
/// Where the answer that opens a session says its id once more: a proxy in front of several servers reads headers, and
/// must send what has this id to the server that knows it.
const SID_HEADER: &str = "engine-io-sid";

/// An Engine.IO service as an endpoint. Sessions are bounded in number here: with polling, a session is not a connection.
pub struct EngineIo<S> {
    service: Arc<S>,
    payload_bytes_max: usize,
    /// How long a client may take no byte.
    silence_max: Duration,
    places: Arc<Semaphore>,
    /// `None`: packets are not counted.
    rates: Option<Rates>,
    /// Over how long the sessions end at the stop.
    drain_max: Duration,
    sessions: OpenSessions,
    metrics: Metrics,
    stop: CancellationToken,
}

impl<S> EngineIo<S> {
    /// Of as many sessions at once as there are places, with payloads of so many bytes, until `stop`. Who takes no byte of a
    /// connection for `silence_max` is gone.
    pub fn new(
        service: S,
        places: Arc<Semaphore>,
        payload_bytes_max: usize,
        silence_max: Duration,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Self {
        Self {
            service: Arc::new(service),
            payload_bytes_max,
            silence_max,
            places,
            rates: None,
            drain_max: Duration::ZERO,
            sessions: OpenSessions::default(),
            metrics: metrics.clone(),
            stop,
        }
    }

    /// Counts with these what comes in the payloads of requests.
    pub fn with_rates(mut self, rates: Rates) -> Self {
        self.rates = Some(rates);
        self
    }

    /// Keeps requests for so long when it stops, while the sessions end one after the other.
    pub fn with_drain(mut self, drain_max: Duration) -> Self {
        self.drain_max = drain_max;
        self
    }

    /// The packets of a payload that nobody else counts: the first one is the request, and events are commands, which are
    /// counted when they are looked at.
    fn count_packets(&self, network: ClientNetwork, payload: &str) -> Result<(), Problem> {
        let Some(rates) = &self.rates else {
            return Ok(());
        };
        let others = payload.split('\x1e').skip(1).filter(|packet| !is_event(packet));
        for _ in others {
            rates.request(network)?;
        }
        Ok(())
    }

    fn admit(&self, request: &Request, guest: Option<Arc<Guest>>) -> Result<Arc<Admission>, Problem> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Problem::unavailable("there are too many sessions"))?;
        let counted = Counted::connection(&self.metrics, "socket.io");
        Ok(Admission::new(Client::of_request(request), place, guest, counted))
    }

    fn too_many(&self) -> Problem {
        self.metrics.refusals.get_or_create(&ReasonLabels { reason: "connections" }).inc();
        Problem::unavailable("there are too many sessions and connections from your address; close some")
    }

    /// The body of a request, which is text.
    async fn text_of(&self, request: &mut Request) -> Result<String, Problem> {
        let body = timeout(BODY_TIME_MAX, request.take_body().into_bytes_limit(self.payload_bytes_max)).await;
        let body = body
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
            .map_err(|error| Problem::of_error(&error.into(), "/docs"))?;
        String::from_utf8(body.into()).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "a payload must be UTF-8"))
    }
}

impl<S: Library> EngineIo<S> {
    /// Begins a session that polls.
    async fn begin(&self, request: &Request) -> poem::Result<Response> {
        let book = request.data::<GuestBook>();
        let guest = book.map(|book| book.admit().map(Arc::new).ok_or_else(|| self.too_many())).transpose()?;
        let admission = self.admit(request, guest)?;
        // Without headers: the library keeps its requests as long as their sessions, and looks at none of them.
        let mut opening = asking(request.method().clone(), request.uri().clone(), String::new());
        opening.extensions_mut().insert(admission.clone());
        let mut answer = self.service.ask(opening).await?;
        // Else it is none, and says why.
        if answer.status() == StatusCode::OK {
            let opened = Opened::of(&answer.take_body().into_string().await?)?;
            self.sessions.add(&opened.sid, &admission);
            opened.hear_first_ping(&*self.service, request.uri()).await?;
            if let Ok(sid) = HeaderValue::try_from(&opened.sid) {
                answer.headers_mut().insert(SID_HEADER, sid);
            }
            answer.set_body(opened.packet());
        }
        Ok(answer)
    }

    /// Begins a session, and lets the request's own connection take it over.
    async fn begin_websocket(&self, request: &Request) -> poem::Result<Response> {
        let (upgrade, answer) = accept(request)?;
        let admission = self.admit(request, Some(upgrade.guest()))?;
        let mut opening = asking(Method::GET, with_transport(request.uri(), "polling")?, String::new());
        opening.extensions_mut().insert(admission.clone());
        let refused = self.service.ask(opening).await?;
        if refused.status() != StatusCode::OK {
            return Ok(refused);
        }
        let mut opened = Opened::of(&refused.into_body().into_string().await?)?;
        self.sessions.add(&opened.sid, &admission);
        opened.fields["upgrades"] = json!([]);
        opened.hear_first_ping(&*self.service, request.uri()).await?;
        self.take_over(request, &upgrade, &admission, Some(&opened))?;
        Ok(answer)
    }

    /// Lets the connection of a request take a session over, which then ends with it. The client of one that has just been
    /// `opened` is told so first.
    fn take_over(
        &self,
        request: &Request,
        upgrade: &Upgrade,
        admission: &Admission,
        opened: Option<&Opened>,
    ) -> Result<(), Problem> {
        let uri = |transport| session_uri(request.uri(), transport, admission.sid());
        let joining = asking(Method::GET, uri("websocket")?, ());
        let leaving = asking(Method::POST, uri("polling")?, "1".to_owned());
        let hello = opened.map(|opened| Outgoing::Text(opened.packet().as_bytes()).encode());
        let inspector = self.rates.clone().map(|rates| inspector(rates, ClientNetwork::of_request(request)));
        let (service, silence_max) = (self.service.clone(), self.silence_max);
        let (coming, leave, is_new) = (upgrade.stream(silence_max), admission.leave.clone(), opened.is_some());
        tokio::spawn(async move {
            let over = CancellationToken::new();
            let until = over.clone().drop_guard();
            // Boxed: it is done long before the connection is over.
            let joined = Box::pin(async {
                let mut stream = coming.await?;
                stream.end_with(GOING_AWAY, leave);
                inspector.map_or(Ok(()), |inspector| stream.inspect(inspector)).ok()?;
                let connection = match hello {
                    Some(hello) => {
                        timeout(silence_max, stream.write_all(&hello)).await.ok()?.ok()?;
                        Joined::at_once(stream, silence_max, until)
                    }
                    None => Joined::new(stream, silence_max, until),
                };
                service.join(connection, joining).await
            });
            let has_joined = joined.await.is_some();
            if has_joined {
                over.cancelled().await;
            }
            // The library ends a session with its WebSocket, but not when the upgrade fails; and of one that was gone before
            // it knows nothing. A client that polls goes on then.
            if has_joined || is_new {
                let _ = service.ask(leaving).await;
            }
        });
        Ok(())
    }
}

impl<S: Library> Endpoint for EngineIo<S> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let query = request.uri().query().unwrap_or_default();
        let is_get = *request.method() == Method::GET;
        if is_get && !query.split('&').any(|pair| pair.starts_with("sid=")) {
            // What asks for both, or for neither, is refused by the library.
            let is_upgrade = request.headers().contains_key(header::UPGRADE);
            let is_websocket = is_upgrade && query.split('&').any(|pair| pair == "transport=websocket");
            return if is_websocket { self.begin_websocket(&request).await } else { self.begin(&request).await };
        }
        let admission = self.sessions.named_in(query);
        if admission.as_ref().is_some_and(|admission| !admission.client.is_same_writer(&request)) {
            return Err(
                Problem::new(StatusCode::FORBIDDEN, "somebody else who is signed in has begun this session").into()
            );
        }
        let body = self.text_of(&mut request).await?;
        self.count_packets(ClientNetwork::of_request(&request), &body)?;
        let mut asked = asking(request.method().clone(), request.uri().clone(), body);
        *asked.headers_mut() = request.headers().clone();
        let answer = tokio::select! {
            answer = self.service.ask(asked) => answer?,
            // Its client takes the session for lost, and opens another one.
            () = async { self.stop.cancelled().await; sleep(self.drain_max + LAST_POLL_TIME_MAX).await } => {
                return Err(Problem::unavailable("the server stops").into());
            }
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        // The library would take the connection from hyper, with what hyper has read already, which nobody would count. It was
        // given none, and gets it from us.
        let (upgrade, accepted) = accept(&request)?;
        let admission = admission
            .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "there is no such session; begin another one"))?;
        self.take_over(&request, &upgrade, &admission, None)?;
        Ok(accepted)
    }
}

/// An Engine.IO service, as it takes requests and connections.
pub trait Library: Send + Sync + 'static {
    /// Answers a request.
    fn ask(&self, request: http::Request<String>) -> impl Future<Output = Result<Response, Problem>> + Send;

    /// Lets a connection take over the session that the request names. `None` when there is none.
    fn join(
        &self,
        connection: Joined<ClientStream>,
        request: http::Request<()>,
    ) -> impl Future<Output = Option<()>> + Send;
}

impl<S, B> Library for S
where
    S: Service<http::Request<String>, Response = http::Response<B>>
        + Service<(Joined<ClientStream>, http::Request<()>), Response = ()>
        + Send
        + Sync
        + 'static,
    <S as Service<http::Request<String>>>::Future: Send,
    <S as Service<http::Request<String>>>::Error: std::fmt::Display,
    <S as Service<(Joined<ClientStream>, http::Request<()>)>>::Future: Send,
    B: HyperBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    async fn ask(&self, request: http::Request<String>) -> Result<Response, Problem> {
        let answer = Service::<http::Request<String>>::call(self, request).await;
        let failed = |error: <S as Service<http::Request<String>>>::Error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        };
        let (parts, body) = answer.map_err(failed)?.into_parts();
        let mut response = Response::builder().status(parts.status).body(body_of(body));
        *response.headers_mut() = parts.headers;
        Ok(response)
    }

    async fn join(&self, connection: Joined<ClientStream>, request: http::Request<()>) -> Option<()> {
        Service::<(Joined<ClientStream>, http::Request<()>)>::call(self, (connection, request)).await.ok()
    }
}

/// A session as the library has opened it.
struct Opened {
    sid: String,
    /// Of the packet that tells the client.
    fields: Value,
}

impl Opened {
    fn of(packet: &str) -> Result<Self, Problem> {
        let fields = packet.strip_prefix('0').and_then(|fields| serde_json::from_str::<Value>(fields).ok());
        let sid = fields.as_ref().and_then(|fields| fields["sid"].as_str()).map(str::to_owned);
        match (sid, fields) {
            (Some(sid), Some(fields)) => Ok(Self { sid, fields }),
            _ => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the session could not be opened")),
        }
    }

    fn packet(&self) -> String {
        format!("0{}", self.fields)
    }

    /// Polls the first ping, and answers it.
    async fn hear_first_ping(&self, library: &impl Library, of: &Uri) -> Result<(), Problem> {
        let uri = session_uri(of, "polling", &self.sid)?;
        let polled = async {
            library.ask(asking(Method::GET, uri.clone(), String::new())).await?;
            library.ask(asking(Method::POST, uri, "3".to_owned())).await
        };
        match timeout(BEGIN_TIME_MAX, polled).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(Problem::unavailable("the session could not be opened in time")),
        }
    }
}

/// A request as the library takes it: without the front door's own things.
fn asking<T>(method: Method, uri: Uri, body: T) -> http::Request<T> {
    let mut request = http::Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    request
}

/// Where requests of a session go.
fn session_uri(of: &Uri, transport: &str, sid: &str) -> Result<Uri, Problem> {
    uri(&format!("{}?EIO=4&transport={transport}&sid={sid}", of.path()))
}

fn with_transport(of: &Uri, transport: &str) -> Result<Uri, Problem> {
    let others = of.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("transport="));
    let query: Vec<&str> = others.collect();
    uri(&format!("{}?{}&transport={transport}", of.path(), query.join("&")))
}

fn uri(text: &str) -> Result<Uri, Problem> {
    text.parse().map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the URL can not be read"))
}

fn body_of<B>(body: B) -> Body
where
    B: HyperBody<Data = Bytes> + Send + Unpin + 'static,
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
