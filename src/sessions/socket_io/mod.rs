//! Socket.IO 4: the subscription in the envelopes of a protocol that many front ends speak already.

mod admission;
mod command;
mod engine;
mod following;
mod joined;
mod packets;
mod room;
mod session;

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use poem::{Endpoint, Response};
use serde_json::Value;
use socketioxide::{
    ParserConfig, SocketIo, SocketIoBuilder,
    extract::{AckSender, SocketRef, TryData},
    handler::{ConnectHandler, FromMessageParts, Value as Packet},
    socket::Socket,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

pub use engine::EngineIo;

use super::{Sessions, wire::MESSAGE_BYTES_MAX};
use crate::{
    listener::ClientNetwork,
    rates::{Patience, Rates},
};
use admission::Admission;
use command::{Answer, Command, Kind};
use room::has_left;
use session::Session;

/// How long a client may take to answer a ping: one that is gone or stuck is let go within 45 seconds.
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a client that is connected may take to say that it speaks Socket.IO.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The most packets that wait for one client, beside what the kernel has. More than that is left in the log.
const PACKETS_WAITING_MAX: usize = 32;
/// The most bytes of a request's or an answer's packets, with polling.
const PAYLOAD_BYTES_MAX: u64 = 100_000;
/// The most attachments of one event, of which this protocol needs none, and the most bytes of them: the library keeps those
/// that have come until the last one has.
const ATTACHMENTS_MAX: usize = 16;
const ATTACHMENTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// The most commands of one client that wait; its messages are inserted one after the other.
const COMMANDS_WAITING_MAX: usize = 64;
/// The most bytes of these, as JSON: any single one fits.
const COMMANDS_WAITING_BYTES_MAX: usize = 256 * 1024;
/// How long the last sockets may take for their last words when the server stops, and then those to close that did not.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(500);
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The clocks of Engine.IO and Socket.IO.
#[derive(Debug, Clone, Copy)]
pub struct EngineClocks {
    /// Between two pings.
    pub ping_every: Duration,
    /// For the answer to one.
    pub ping_time_max: Duration,
    /// Until a client must have joined a namespace.
    pub connect_time_max: Duration,
}

/// The library with the settings of this server, but for the clocks: also for suites that test conformance.
pub fn socket_io_builder(clocks: EngineClocks) -> SocketIoBuilder {
    let parser = ParserConfig::common()
        .max_incoming_binaries(ATTACHMENTS_MAX)
        .max_incoming_binary_buf_size(ATTACHMENTS_BYTES_MAX);
    SocketIo::builder()
        .with_parser(parser)
        .ping_interval(clocks.ping_every)
        .ping_timeout(clocks.ping_time_max)
        .connect_timeout(clocks.connect_time_max)
        .max_buffer_size(PACKETS_WAITING_MAX)
        .max_payload(PAYLOAD_BYTES_MAX)
        .ws_read_buffer_size(4 * 1024)
        .ws_max_message_size(MESSAGE_BYTES_MAX)
        .ws_max_frame_size(MESSAGE_BYTES_MAX)
}

/// `/socket.io/`, over both of its transports.
pub fn serve_socket_io(sessions: &Arc<Sessions>) -> impl Endpoint<Output = Response> + use<> {
    let clocks = EngineClocks {
        // A poll that waits for a ping must not look like a silent connection to our own front door.
        ping_every: sessions.keep_alive,
        ping_time_max: PING_TIME_MAX,
        connect_time_max: CONNECT_TIME_MAX,
    };
    let (service, io) = socket_io_builder(clocks).build_svc();
    let own = TaskTracker::new();
    let connected = {
        let (sessions, own) = (sessions.clone(), own.clone());
        move |socket: SocketRef, TryData(auth): TryData<Value>| {
            begin(socket, auth.ok(), &sessions, &own);
            ready(())
        }
    };
    // Before the client hears that it is connected, and so before anything of it can come.
    let rates = sessions.rates.clone();
    let connecting = move |socket: SocketRef| {
        listen(&socket, &rates);
        ready(Ok::<(), Infallible>(()))
    };
    io.ns("/", connected.with(connecting));
    let closing = close_at_stop(io, sessions.stop.clone(), sessions.drain_max + LAST_WORDS_TIME_MAX, own);
    let failed = sessions.failed.clone().drop_guard();
    sessions.tasks.spawn(async move {
        closing.await;
        failed.disarm();
    });
    let (places, stop) = (sessions.places.clone(), sessions.stop.clone());
    EngineIo::new(service, places, PAYLOAD_BYTES_MAX as usize, sessions.silence_max, &sessions.metrics, stop)
        .with_rates(sessions.rates.clone())
        .with_drain(sessions.drain_max)
}

/// Counts events that no session looks at, and lets a client go that sends more and more of them.
#[derive(Clone)]
struct Unheard {
    rates: Rates,
    network: ClientNetwork,
    patience: Arc<Mutex<Patience>>,
}

impl Unheard {
    fn count(&self, socket: SocketRef) {
        let lose = || self.patience.lock().unwrap_or_else(PoisonError::into_inner).lose();
        if self.rates.request(self.network).is_err() && lose().is_err() {
            // It is closed already, or it is now.
            let _ = socket.disconnect();
        }
    }
}

/// Takes the commands of a client, in their order: the library would run a handler for each at once.
fn listen(socket: &SocketRef, rates: &Rates) {
    let Some(admission) = admission_of(socket) else {
        return;
    };
    let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
    let room = Arc::new(Semaphore::new(COMMANDS_WAITING_BYTES_MAX));
    *admission.commands.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    let unheard = Unheard { rates: rates.clone(), network: admission.client.network, patience: Arc::default() };
    for kind in Kind::ALL {
        let (commands, room, unheard) = (commands.clone(), room.clone(), unheard.clone());
        let take =
            move |from: SocketRef, TryData(data): TryData<Value>, ack: AckSender, IsAwaited(is_awaited): IsAwaited| {
                let answer = Answer { ack, is_awaited };
                let text = data.unwrap_or_default().to_string().into_boxed_str();
                // What can not be kept is answered at once. Without room for that its client hears nothing, and sends again.
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                match room.clone().try_acquire_many_owned(bytes) {
                    Ok(room) => {
                        if let Err(error) = commands.try_send(Command { kind, text, _room: room, answer }) {
                            error.into_inner().answer.refuse();
                            unheard.count(from);
                        }
                    }
                    Err(_) => {
                        answer.refuse();
                        unheard.count(from);
                    }
                }
                ready(())
            };
        socket.on(kind.event(), take);
    }
    socket.on_fallback(move |from: SocketRef| {
        unheard.count(from);
        ready(())
    });
}

fn begin(socket: SocketRef, auth: Option<Value>, sessions: &Arc<Sessions>, own: &TaskTracker) {
    let Some(admission) = admission_of(&socket) else {
        return;
    };
    let commands = admission.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(commands) = commands else {
        return;
    };
    let gone = CancellationToken::new();
    let on_disconnect = {
        let gone = gone.clone();
        move || {
            gone.cancel();
            ready(())
        }
    };
    socket.on_disconnect(on_disconnect);
    // It may have left just before, and then nobody is told.
    if has_left(&socket) {
        gone.cancel();
    }
    let place = auth.as_ref().and_then(|auth| auth.get("after")).and_then(Value::as_str).map(str::to_owned);
    let session = Session::new(socket, &admission, sessions.clone(), commands, gone, place);
    // Waited for twice: by the server, and by who closes the sockets.
    own.spawn(sessions.tasks.track_future(session.run()));
}

fn admission_of(socket: &SocketRef) -> Option<Arc<Admission>> {
    socket.req_parts().extensions.get::<Arc<Admission>>().cloned()
}

/// Closes the connections below the sockets that are still there when all have had the time to say where they were. A socket
/// that is disconnected by itself would tell its client that the server wants to be rid of it, and official clients then stay
/// away.
async fn close_at_stop(io: SocketIo, stop: CancellationToken, sessions_end_max: Duration, own: TaskTracker) {
    stop.cancelled().await;
    own.close();
    let _ = timeout(sessions_end_max, own.wait()).await;
    if timeout(CLOSE_TIME_MAX, io.close()).await.is_err() {
        debug!("some Socket.IO clients did not take their last packet");
    }
}

/// Whether the client has asked for an acknowledgement.
struct IsAwaited(bool);

impl<A: socketioxide::adapter::Adapter> FromMessageParts<A> for IsAwaited {
    type Error = Infallible;

    fn from_message_parts(_: &Arc<Socket<A>>, _: &mut Packet, ack: &Option<i64>) -> Result<Self, Infallible> {
        Ok(Self(ack.is_some()))
    }
}
