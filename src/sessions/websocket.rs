//! The WebSocket: the handshake, and one task per socket.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use poem::{
    Request, Response, Upgraded, handler,
    http::{StatusCode, header},
    web::Data,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};
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
    handshake::{handshake_key, not_an_upgrade},
    progress::{Life, Progress},
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
/// After so long without a sign of life of the client it is gone or stuck. A ping every 25 s asks for one.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a client that is told to go may take to read that, in seconds.
const CLOSE_SECS_MAX: u64 = 1;
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
        let Ok(Ok(stream)) = timeout(SILENCE_MAX, upgrade).await else {
            return;
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(WRITE_BYTES)
            // A frame of an event is at most 24 KB of content in escapes, so this is never met by what we write.
            .max_write_buffer_size(8 * WRITE_BYTES)
            .max_message_size(Some(CLIENT_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(CLIENT_MESSAGE_BYTES_MAX));
        let stream = Progress::new(stream);
        let life = stream.life();
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let _counted = Counted::connection(&sessions.metrics, "websocket");
        Session::new(socket, life, subscription, sessions).run().await;
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .finish())
}

/// One socket.
struct Session {
    socket: WebSocketStream<Progress<Upgraded>>,
    subscription: Subscription,
    sessions: Sessions,
    /// The insert under way: one at a time, so that two messages over one socket keep their order.
    inserting: Option<Inserting>,
    waiting: VecDeque<(Option<String>, NewMessage)>,
    life: Life,
    /// What the subscription gave out is not all written yet.
    is_telling: bool,
}

/// A task of its own, so that it goes on, and gives back its connection to MongoDB, also while the session waits for a
/// client that does not read.
type Inserting = JoinHandle<(Option<String>, Result<Inserted, InsertError>)>;

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
    fn new(
        socket: WebSocketStream<Progress<Upgraded>>,
        life: Life,
        subscription: Subscription,
        sessions: Sessions,
    ) -> Self {
        Self { socket, subscription, sessions, inserting: None, waiting: VecDeque::new(), life, is_telling: false }
    }

    async fn run(mut self) {
        let sessions = self.sessions.clone();
        let end = tokio::select! {
            end = self.serve() => end,
            // Whatever the session waits for, also for a client that does not read, it hears of the stop.
            () = sessions.dismissal() => End::Close(Close::Restart),
        };
        self.finish_inserts();
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
            // A part of it only: a client that is far behind is heard in between.
            let has_more = match self.tell().await {
                Ok(has_more) => has_more,
                Err(end) => return end,
            };
            let may_read = self.waiting.len() < WAITING_INSERTS_MAX;
            let step = tokio::select! {
                turned = self.subscription.turn(), if !has_more => {
                    if turned { Ok(()) } else { Err(End::Close(Close::Internal)) }
                }
                frame = self.socket.next(), if may_read => match frame {
                    Some(Ok(message)) => self.hear(message).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(End::Gone),
                },
                inserted = next_of(&mut self.inserting) => match inserted {
                    Some((id, outcome)) => self.answer(id, outcome).await,
                    None => Err(End::Close(Close::Internal)),
                },
                () = std::future::ready(()), if has_more => Ok(()),
                () = sleep_until(self.life.last_sign() + SILENCE_MAX) => {
                    if self.is_silent() { Err(End::Gone) } else { Ok(()) }
                }
                _ = keep_alive.tick() => self.keep_alive().await,
                Ok(()) = told.changed() => self.tell_position().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Tells the client a part of what there is to tell. Returns whether there may be more.
    async fn tell(&mut self) -> Result<bool, End> {
        let outputs = self.subscription.take();
        if outputs.is_empty() {
            return Ok(false);
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
        Ok(true)
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
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
            let insert = async move { (id, inserter.insert(message).await) };
            self.inserting = Some(self.sessions.tasks.spawn(insert));
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

    /// What the client has sent is inserted, also when it closed at once or the server stops. Nobody is told any more: a
    /// client that is unsure sends again with the same id.
    fn finish_inserts(&mut self) {
        let (inserting, waiting) = (self.inserting.take(), std::mem::take(&mut self.waiting));
        let inserter = self.sessions.inserter.clone();
        self.sessions.tasks.spawn(async move {
            if let Some(inserting) = inserting {
                let _ = inserting.await;
            }
            for (_, message) in waiting {
                // The inserter counts and logs what fails.
                let _ = inserter.insert(message).await;
            }
        });
    }

    fn is_silent(&self) -> bool {
        self.life.last_sign().elapsed() >= SILENCE_MAX
    }

    async fn keep_alive(&mut self) -> Result<(), End> {
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
        let written = self.life.outlast(self.socket.feed(message), SILENCE_MAX).await;
        written.ok_or(End::Close(Close::Stuck))?.map_err(End::from)
    }

    async fn flush(&mut self) -> Result<(), End> {
        let flushed = self.life.outlast(self.socket.flush(), SILENCE_MAX).await;
        flushed.ok_or(End::Close(Close::Stuck))?.map_err(End::from)
    }
}

/// The outcome of the insert under way; for ever pending when there is none. `None` when its task failed. May be dropped
/// and called again.
async fn next_of(inserting: &mut Option<Inserting>) -> Option<(Option<String>, Result<Inserted, InsertError>)> {
    match inserting {
        Some(insert) => insert.await.ok(),
        None => std::future::pending().await,
    }
}
