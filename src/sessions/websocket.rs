//! The WebSocket: the handshake, and one task per socket.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use poem::{Request, Response, handler, http::StatusCode, web::Data};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    Client, Sessions,
    close::Close,
    frame::{ClientFrame, ServerFrame, event_frame},
    handshake::accept,
    socket::{ReadError, Socket, WriteError},
    subscription::{Interest, Output, Subscription, Told},
    wire::{Incoming, Outgoing, Violation},
};
use crate::{
    listener::ClientStream,
    message::FieldError,
    mongo::{InsertError, Inserted},
    problem::Problem,
    rates::{Patience, TooMany},
    telemetry::{Counted, ReasonLabels},
    topic::Topic,
};

/// How long a client that is told to go may take to read that.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Messages of one socket that are being inserted; when there are more, its frames are not read on.
const INSERTS_MAX: usize = 32;

/// `GET /ws?room=general&inbox=NAME&all=true&after=CURSOR`
#[handler]
pub fn serve_websocket(request: &Request, sessions: Data<&Arc<Sessions>>) -> Result<Response, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>();
    let pairs = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let interest = Interest::parse(pairs).map_err(Problem::invalid)?;
    let place = sessions.admit()?;
    let subscription = Subscription::open(&sessions.sources, interest)
        .map_err(|error| Problem::invalid(vec![FieldError::new("room", error)]))?;

    let (upgrade, answer) = accept(request)?;
    let client = Client::of_request(request);
    let sessions = Arc::clone(&sessions);
    sessions.tasks.clone().spawn(async move {
        let _place = place;
        if let Some(stream) = upgrade.stream(sessions.silence_max).await {
            let _counted = Counted::connection(&sessions.metrics, "websocket");
            Session::new(stream, client, subscription, sessions).run().await;
        }
    });
    Ok(answer)
}

/// One socket. Ten thousand of them wait most of the time, so it is small, and so is the future that runs it.
struct Session {
    socket: Socket<ClientStream>,
    client: Client,
    patience: Patience,
    subscription: Subscription,
    sessions: Arc<Sessions>,
    /// Inserts under way, in the order in which they were sent.
    inserting: VecDeque<Inserting>,
    keep_alive_at: Instant,
}

/// A task of its own, so that it goes on also when the client closes at once, or the server stops. Then nobody is told
/// any more: a client that is unsure sends again with the same id.
type Inserting = JoinHandle<(Option<String>, Result<Inserted, InsertError>)>;

/// Why a session ends.
enum End {
    /// The connection broke, or nobody is at its other end.
    Gone,
    /// The client closed, with this code or none.
    Closed(Option<u16>),
    /// The client broke the protocol, so that nothing more can be read.
    Violation(Violation),
    /// We close.
    Close(Close),
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Violation(violation) => End::Violation(violation),
            ReadError::Gone => End::Gone,
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stuck => End::Close(Close::Stuck),
            WriteError::Gone => End::Gone,
        }
    }
}

/// What wakes a session.
enum Step {
    /// There may be something to tell.
    Turned,
    Heard(Incoming),
    Inserted(Option<String>, Result<Inserted, InsertError>),
    /// It is time to look at the clock.
    Clock,
}

impl Session {
    fn new(stream: ClientStream, client: Client, subscription: Subscription, sessions: Arc<Sessions>) -> Self {
        let keep_alive_at = Instant::now() + sessions.keep_alive;
        let socket = Socket::new(stream);
        let patience = Patience::default();
        Self { socket, client, patience, subscription, sessions, inserting: VecDeque::new(), keep_alive_at }
    }

    async fn run(&mut self) {
        let sessions = self.sessions.clone();
        let mut dismissal = pin!(sessions.dismissal());
        let mut is_heard = false;
        let dismissed = poll_fn(|cx| {
            // A task has one waker all its life, so it is registered once. To ask again takes two locks that all sessions
            // share, and every message would do that in every session.
            if is_heard && !sessions.is_stopping() {
                return Poll::Pending;
            }
            is_heard = true;
            dismissal.as_mut().poll(cx)
        });
        let end = tokio::select! {
            biased;
            end = self.serve() => end,
            // Whatever the session waits for, also for a client that does not read, it hears of the stop.
            () = dismissed => End::Close(Close::Restart),
        };
        // Boxed: it is for the last moment of a session.
        let _ = Box::pin(timeout(CLOSE_MAX, self.say_goodbye(end))).await;
    }

    async fn say_goodbye(&mut self, end: End) {
        let (frame, is_readable) = match end {
            End::Gone => return,
            End::Closed(code) => (Outgoing::close_echo(code).encode(), false),
            End::Violation(violation) => (violation.close_frame(), false),
            End::Close(close) => {
                debug!("closing a session: {close:?}");
                if close == Close::Restart && !self.socket.is_blocked() {
                    // The place to come back with, also for a client that got nothing for a while. One that is behind is
                    // not kept for it.
                    let _ = self.tell_position().await;
                }
                (close.frame(), true)
            }
        };
        if self.socket.write(frame, CLOSE_MAX).await.is_err() {
            return;
        }
        if is_readable {
            // The client's own close frame, so that it has surely read ours before the connection goes.
            while let Ok(incoming) = self.socket.read().await {
                if let Incoming::Close(_) = incoming {
                    return;
                }
            }
        }
        self.socket.part().await;
    }

    async fn serve(&mut self) -> End {
        let mut told = self.sessions.status.told();
        let mut clock = pin!(sleep_until(self.keep_alive_at));
        loop {
            // A part of it only: a client that is far behind is heard in between.
            let has_more = match self.tell().await {
                Ok(has_more) => has_more,
                Err(end) => return end,
            };
            // The watcher wakes everybody when it changes. Waiting for it here as well would cost every wake-up.
            if told.has_changed().unwrap_or(false) {
                told.mark_unchanged();
                if let Err(end) = Box::pin(self.tell_position()).await {
                    return end;
                }
            }
            let may_read = self.inserting.len() < INSERTS_MAX;
            let step = tokio::select! {
                turned = self.subscription.turn(), if !has_more => {
                    if turned { Ok(Step::Turned) } else { Err(End::Close(Close::Internal)) }
                }
                heard = self.socket.read(), if may_read => heard.map(Step::Heard).map_err(End::from),
                inserted = next_of(&mut self.inserting) => match inserted {
                    Some((id, outcome)) => Ok(Step::Inserted(id, outcome)),
                    None => Err(End::Close(Close::Internal)),
                },
                () = std::future::ready(()), if has_more => Ok(Step::Turned),
                () = &mut clock => Ok(Step::Clock),
            };
            // What follows is rare and not needed while the session waits, so it does not count for its size.
            let done = match step {
                Ok(Step::Turned) => Ok(()),
                Ok(Step::Heard(incoming)) => Box::pin(self.hear(incoming)).await,
                Ok(Step::Inserted(id, outcome)) => Box::pin(self.answer(id, outcome)).await,
                Ok(Step::Clock) => {
                    let done = Box::pin(self.look_at_clock()).await;
                    clock.as_mut().reset(self.keep_alive_at.min(self.socket.last_sign() + self.sessions.silence_max));
                    done
                }
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Tells the client a part of what there is to tell. Returns whether there may be more.
    async fn tell(&mut self) -> Result<bool, End> {
        let frame = match self.subscription.take() {
            None => return Ok(false),
            Some(Output::Events(events)) => {
                self.begin(&events).await?;
                self.socket.finish(self.sessions.silence_max).await?;
                return Ok(self.subscription.has_more());
            }
            Some(Output::Ready(cursor)) => ServerFrame::Ready { cursor }.encode(),
            Some(Output::Reset(cursor, reason)) => {
                self.sessions.metrics.resets.get_or_create(&ReasonLabels { reason }).inc();
                ServerFrame::Reset { cursor, reason }.encode()
            }
        };
        self.socket.write(frame, self.sessions.silence_max).await?;
        Ok(self.subscription.has_more())
    }

    /// Writes what the client has room for. The rest is let go: a client that does not read keeps its place in the log,
    /// and nothing of the log.
    async fn begin(&mut self, events: &[Told]) -> Result<(), End> {
        let begin = |cx: &mut Context<'_>| {
            let frames = events.iter().map(|told| event_frame(&told.entry, told.change));
            Poll::Ready(self.socket.begin(cx, frames))
        };
        let begun = poll_fn(begin).await?;
        self.sessions.metrics.deliveries.note(begun, self.subscription.written_millis(events));
        if begun < events.len() {
            self.subscription.go_back_to(&events[begun - 1]);
        }
        Ok(())
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<(), End> {
        let text = match incoming {
            Incoming::Text(text) => text,
            Incoming::Binary(_) => return Err(End::Close(Close::NotText)),
            Incoming::Close(code) => return Err(End::Closed(code)),
            Incoming::Ping(payload) => {
                return if self.count_frames(1)? {
                    self.write(Outgoing::Pong(&payload).encode()).await
                } else {
                    Ok(())
                };
            }
            Incoming::Pong => return self.count_frames(1).map(drop),
            Incoming::Fragments(count) => return self.count_frames(count).map(drop),
        };
        let frame = ClientFrame::parse(&text);
        if let Err(too_many) = self.sessions.rates.request(self.client.network) {
            let id = if let Ok(ClientFrame::Send { id, .. }) = frame { id } else { None };
            return self.refuse(id, too_many).await;
        }
        match frame {
            Ok(ClientFrame::Send { id, draft }) => {
                let message = match self.client.message(draft) {
                    Ok(message) => message,
                    Err(problem) => return self.complain(id, problem).await,
                };
                if let Err(too_many) = self.sessions.rates.message(self.client.network, &message.sender) {
                    return self.refuse(id, too_many).await;
                }
                // It joins the queue here, and so in its order.
                let inserting = self.sessions.inserter.begin(message);
                self.inserting.push_back(self.sessions.tasks.spawn(async { (id, inserting.await) }));
                Ok(())
            }
            Ok(ClientFrame::Subscribe(topic)) => self.follow(topic).await,
            Ok(ClientFrame::Unsubscribe(topic)) => {
                self.subscription.unfollow(&topic);
                self.say(ServerFrame::Unsubscribed { topic: &topic }).await
            }
            Err(error) => self.complain(None, error.into()).await,
        }
    }

    /// Counts frames that get no answer when they are too many. Returns whether they are not.
    fn count_frames(&mut self, count: u32) -> Result<bool, End> {
        let mut is_within = true;
        for _ in 0..count {
            if self.sessions.rates.request(self.client.network).is_err() {
                is_within = false;
                self.patience.lose().map_err(|_| End::Close(Close::Flood))?;
            }
        }
        Ok(is_within)
    }

    /// The connection goes on: a client that comes back at once would cost more.
    async fn refuse(&mut self, id: Option<String>, too_many: TooMany) -> Result<(), End> {
        self.patience.lose().map_err(|_| End::Close(Close::Flood))?;
        self.complain(id, too_many.into()).await
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

    async fn answer(&mut self, id: Option<String>, outcome: Result<Inserted, InsertError>) -> Result<(), End> {
        self.inserting.pop_front();
        match outcome {
            Ok(inserted) => {
                // In the client's own spelling, so that it finds its message again.
                let id = id.as_deref().unwrap_or(inserted.message.id.as_str());
                self.say(ServerFrame::Sent { id }).await
            }
            Err(error) => self.complain(id, error.into()).await,
        }
    }

    async fn look_at_clock(&mut self) -> Result<(), End> {
        if self.socket.last_sign().elapsed() >= self.sessions.silence_max {
            return Err(End::Gone);
        }
        if self.keep_alive_at <= Instant::now() {
            // Also when it has not moved: a page sees no pings, and tells by this frame that its connection lives.
            self.tell_position().await?;
            self.write(Outgoing::Ping.encode()).await?;
            self.keep_alive_at = Instant::now() + self.sessions.keep_alive;
        }
        Ok(())
    }

    async fn tell_position(&mut self) -> Result<(), End> {
        let stream = self.sessions.status.told().borrow().as_str();
        let cursor = self.subscription.position();
        self.say(ServerFrame::Position { cursor, stream }).await
    }

    async fn complain(&mut self, id: Option<String>, problem: Problem) -> Result<(), End> {
        self.say(ServerFrame::Error { id: id.as_deref(), problem: &problem }).await
    }

    async fn say(&mut self, frame: ServerFrame<'_>) -> Result<(), End> {
        self.write(frame.encode()).await
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), End> {
        self.socket.write(frame, self.sessions.silence_max).await.map_err(End::from)
    }
}

/// The outcome of the oldest insert under way; for ever pending when there is none. `None` when its task failed. May be
/// dropped and called again.
async fn next_of(inserting: &mut VecDeque<Inserting>) -> Option<(Option<String>, Result<Inserted, InsertError>)> {
    match inserting.front_mut() {
        Some(insert) => insert.await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that a method returns.
    fn size_of_future<'a, F: Future>(_: fn(&'a mut Session) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_waits_is_small() {
        let bytes = size_of::<Session>() + size_of_future(Session::run);
        assert!(bytes <= 1_536, "{bytes} bytes for each session");
    }
}
