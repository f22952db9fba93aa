//! The WebSocket: the handshake, and one task per socket.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::BoxFuture};
use poem::{
    Request, Response, Upgraded, handler,
    http::{HeaderMap, StatusCode, header},
    web::Data,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    close::Close,
    frame::{ClientFrame, FrameError, ServerFrame, event_frame},
    subscription::{Interest, Output, Sources, Subscription},
};
use crate::{
    message::{FieldError, MessageId, NewMessage},
    mongo::{InsertError, Inserted, Inserter},
    problem::Problem,
    telemetry::{Counted, Metrics, ReasonLabels},
    topic::Topic,
    watcher::WatcherStatus,
};

/// How often an idle client gets its position and a ping, in seconds: often enough for proxies, which cut
/// connections that are silent for a minute.
const KEEP_ALIVE_SECS: u64 = 25;
/// After so long without a byte from or to the client, in seconds, it is gone or stuck.
const SILENCE_SECS_MAX: u64 = 60;
/// How long a client that is told to go may take to read that, in seconds.
const CLOSE_SECS_MAX: u64 = 1;
/// How long the messages that a client sent before the end may take to be inserted, in seconds.
const FINISH_SECS_MAX: u64 = 3;
/// How much longer the sessions take to end for each one of them: 200 a second.
const DRAIN_PER_SESSION: Duration = Duration::from_millis(5);
/// Messages of one socket that wait for their insert; when there are more, its frames are not read on.
const WAITING_INSERTS_MAX: usize = 32;
/// The largest frame and message of a client, in bytes: a content of 4,000 characters in JSON escapes fits.
const CLIENT_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How much is handed to the socket at once, in bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// What sessions work with. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    /// Where they read.
    pub sources: Sources,
    /// What they tell of the stream.
    pub status: WatcherStatus,
    /// Where they insert.
    pub inserter: Inserter,
    /// Where they are counted.
    pub metrics: Metrics,
    /// Over how long the sessions end when the server stops, at most.
    pub drain_max: Duration,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Holds their tasks, so that the server can wait for them: they outlive their requests.
    pub tasks: TaskTracker,
}

impl Sessions {
    /// Resolves when this session must end because the server stops: each at a time of its own, so that the clients of
    /// a busy server do not all come back in one moment. A server with few clients does not keep them waiting.
    async fn dismissal(&self) {
        self.stop.cancelled().await;
        let spread = self.drain_max.min(DRAIN_PER_SESSION * u32::try_from(self.tasks.len()).unwrap_or(u32::MAX));
        sleep(spread.mul_f64(rand::random())).await;
    }
}

/// `GET /ws?room=general&inbox=NAME&all=true&after=CURSOR`
#[handler]
pub fn serve_websocket(request: &Request, sessions: Data<&Sessions>) -> Result<Response, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>();
    let pairs = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let interest = Interest::parse(pairs).map_err(Problem::invalid)?;
    let subscription = Subscription::open(&sessions.sources, interest)
        .map_err(|error| Problem::invalid(vec![FieldError::new("room", error)]))?;

    let key = handshake_key(request.headers())?;
    let upgrade = request.take_upgrade().map_err(|_| not_an_upgrade())?;
    let sessions = sessions.clone();
    sessions.tasks.clone().spawn(async move {
        let Ok(Ok(stream)) = timeout(Duration::from_secs(SILENCE_SECS_MAX), upgrade).await else {
            return;
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(WRITE_BYTES)
            // A frame of an event is at most 24 KB of content in escapes, so this is never met by what we write.
            .max_write_buffer_size(8 * WRITE_BYTES)
            .max_message_size(Some(CLIENT_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(CLIENT_MESSAGE_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let _counted = Counted::connection(&sessions.metrics, "websocket");
        Session::new(socket, subscription, sessions).run().await;
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .finish())
}

/// The client's key, when the request is a handshake of RFC 6455.
fn handshake_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has_word = |name, word: &str| text(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    if !has_word(header::UPGRADE, "websocket") || !has_word(header::CONNECTION, "upgrade") {
        return Err(not_an_upgrade());
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
    }
    match text(header::SEC_WEBSOCKET_KEY) {
        // Sixteen bytes in base64.
        key if key.len() == 24 => Ok(key),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

fn not_an_upgrade() -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket; connect with ws:// or wss://")
}

/// One socket.
struct Session {
    socket: WebSocketStream<Upgraded>,
    subscription: Subscription,
    sessions: Sessions,
    /// The insert under way: one at a time, so that two messages over one socket keep their order.
    inserting: Option<Inserting>,
    waiting: VecDeque<(Option<String>, NewMessage)>,
    heard_at: Instant,
    /// What the subscription gave out is not all written yet.
    is_telling: bool,
}

type Inserting = BoxFuture<'static, (Option<String>, Result<Inserted, InsertError>)>;

/// Why a session ends.
enum End {
    /// The client closed, or its connection broke.
    Gone,
    /// We close.
    Close(Close),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => End::Close(Close::TooBig),
            Error::Utf8(_) => End::Close(Close::NotUtf8),
            Error::Protocol(_) => End::Close(Close::Protocol),
            _ => End::Gone,
        }
    }
}

impl Session {
    fn new(socket: WebSocketStream<Upgraded>, subscription: Subscription, sessions: Sessions) -> Self {
        Self {
            socket,
            subscription,
            sessions,
            inserting: None,
            waiting: VecDeque::new(),
            heard_at: Instant::now(),
            is_telling: false,
        }
    }

    async fn run(mut self) {
        let sessions = self.sessions.clone();
        let end = tokio::select! {
            end = self.serve() => end,
            // Whatever the session waits for, also for a client that does not read, it hears of the stop.
            () = sessions.dismissal() => End::Close(Close::Restart),
        };
        self.finish_inserts().await;
        if let End::Close(close) = end {
            debug!("closing a session: {close:?}");
            let goodbye = async {
                if close == Close::Restart && !self.is_telling {
                    // The place to come back with, also for a client that got nothing for a while. Not for one that was
                    // cut off in the middle: the position is beyond what it was told.
                    let _ = self.tell_position().await;
                }
                self.socket.close(Some(close.frame())).await?;
                // The client's own close frame, so that it has surely read ours before the connection goes.
                while let Some(Ok(_)) = self.socket.next().await {}
                Ok::<_, Error>(())
            };
            let _ = timeout(Duration::from_secs(CLOSE_SECS_MAX), goodbye).await;
        }
    }

    async fn serve(&mut self) -> End {
        let period = Duration::from_secs(KEEP_ALIVE_SECS);
        let mut keep_alive = interval_at(Instant::now() + period, period);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = self.sessions.status.told();
        loop {
            if let Err(end) = self.tell().await {
                return end;
            }
            let may_read = self.waiting.len() < WAITING_INSERTS_MAX;
            let step = tokio::select! {
                turned = self.subscription.turn() => {
                    if turned { Ok(()) } else { Err(End::Close(Close::Internal)) }
                }
                frame = self.socket.next(), if may_read => match frame {
                    Some(Ok(message)) => self.hear(message).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(End::Gone),
                },
                (id, outcome) = next_of(&mut self.inserting) => self.answer(id, outcome).await,
                _ = keep_alive.tick() => self.keep_alive().await,
                Ok(()) = told.changed() => self.tell_position().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Tells the client everything that there is to tell now.
    async fn tell(&mut self) -> Result<(), End> {
        loop {
            let outputs = self.subscription.take();
            if outputs.is_empty() {
                return Ok(());
            }
            self.is_telling = true;
            let mut bytes = 0;
            for output in outputs {
                let frame = match &output {
                    Output::Event(entry, change) => event_frame(entry, *change),
                    Output::Ready(cursor) => ServerFrame::Ready { cursor: *cursor }.encode(),
                    Output::Reset(cursor, reason) => {
                        self.sessions.metrics.resets.get_or_create(&ReasonLabels { reason }).inc();
                        ServerFrame::Reset { cursor: *cursor, reason }.encode()
                    }
                };
                bytes += frame.len();
                self.feed(frame).await?;
                if bytes >= WRITE_BYTES {
                    bytes = 0;
                    self.flush().await?;
                }
            }
            self.flush().await?;
            self.is_telling = false;
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        self.heard_at = Instant::now();
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(End::Close(Close::NotText)),
            Message::Close(_) => {
                // The library has queued the answer; what is left is to send it.
                let _ = timeout(Duration::from_secs(CLOSE_SECS_MAX), self.socket.flush()).await;
                return Err(End::Gone);
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        match ClientFrame::parse(&text) {
            Ok(ClientFrame::Send { id, message: Ok(message) }) => {
                self.waiting.push_back((id, message));
                self.insert_next();
                Ok(())
            }
            Ok(ClientFrame::Send { id, message: Err(errors) }) => self.complain(id, Problem::invalid(errors)).await,
            Ok(ClientFrame::Subscribe(topic)) => self.follow(topic).await,
            Ok(ClientFrame::Unsubscribe(topic)) => {
                self.subscription.unfollow(&topic);
                self.say(ServerFrame::Unsubscribed { topic: &topic }).await
            }
            Err(error) => {
                let status = match error {
                    FrameError::Syntax => StatusCode::BAD_REQUEST,
                    FrameError::Meaning(_) => StatusCode::UNPROCESSABLE_ENTITY,
                };
                self.complain(None, Problem::new(status, error.to_string())).await
            }
        }
    }

    async fn follow(&mut self, topic: Topic) -> Result<(), End> {
        match self.subscription.follow(topic.clone()) {
            Ok(cursor) => self.say(ServerFrame::Subscribed { topic: &topic, cursor }).await,
            Err(error) => {
                let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
                self.complain(None, problem).await
            }
        }
    }

    fn insert_next(&mut self) {
        if self.inserting.is_none()
            && let Some((id, message)) = self.waiting.pop_front()
        {
            let inserter = self.sessions.inserter.clone();
            self.inserting = Some(Box::pin(async move { (id, inserter.insert(message).await) }));
        }
    }

    async fn answer(&mut self, id: Option<String>, outcome: Result<Inserted, InsertError>) -> Result<(), End> {
        self.inserting = None;
        self.insert_next();
        match outcome {
            Ok(inserted) => {
                // In the client's own spelling, so that it finds its message again.
                let sent: &MessageId = &inserted.message.id;
                self.say(ServerFrame::Sent { id: sent }).await
            }
            Err(error) => self.complain(id, error.into()).await,
        }
    }

    /// What the client has sent is inserted, also when it closed at once or the server stops.
    async fn finish_inserts(&mut self) {
        let deadline = Duration::from_secs(FINISH_SECS_MAX);
        let finish = async {
            while self.inserting.is_some() {
                let (id, outcome) = next_of(&mut self.inserting).await;
                if self.answer(id, outcome).await.is_err() {
                    // The client is gone; its messages are inserted all the same.
                    continue;
                }
            }
        };
        let _ = timeout(deadline, finish).await;
    }

    async fn keep_alive(&mut self) -> Result<(), End> {
        if self.heard_at.elapsed() > Duration::from_secs(SILENCE_SECS_MAX) {
            return Err(End::Gone);
        }
        // Also when it has not moved: a page sees no pings, and tells by this frame that its connection lives.
        self.tell_position().await?;
        self.write(Message::Ping(Bytes::new())).await?;
        self.flush().await
    }

    async fn tell_position(&mut self) -> Result<(), End> {
        let stream = self.sessions.status.told().borrow().as_str();
        self.say(ServerFrame::Position { cursor: self.subscription.position(), stream }).await
    }

    async fn complain(&mut self, id: Option<String>, problem: Problem) -> Result<(), End> {
        self.say(ServerFrame::Error { id: id.as_deref(), problem: &problem }).await
    }

    async fn say(&mut self, frame: ServerFrame<'_>) -> Result<(), End> {
        self.feed(frame.encode()).await?;
        self.flush().await
    }

    async fn feed(&mut self, frame: Bytes) -> Result<(), End> {
        // What we encoded is UTF-8; the check is the price of the library's type.
        let text = Utf8Bytes::try_from(frame).map_err(|_| End::Close(Close::Internal))?;
        self.write(Message::Text(text)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), End> {
        match timeout(Duration::from_secs(SILENCE_SECS_MAX), self.socket.feed(message)).await {
            Ok(written) => written.map_err(End::from),
            Err(_) => Err(End::Close(Close::Stuck)),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        match timeout(Duration::from_secs(SILENCE_SECS_MAX), self.socket.flush()).await {
            Ok(flushed) => flushed.map_err(End::from),
            Err(_) => Err(End::Close(Close::Stuck)),
        }
    }
}

/// The outcome of the insert under way; for ever pending when there is none. May be dropped and called again.
async fn next_of(inserting: &mut Option<Inserting>) -> (Option<String>, Result<Inserted, InsertError>) {
    match inserting {
        Some(insert) => insert.await,
        None => std::future::pending().await,
    }
}
