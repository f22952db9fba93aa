//! What the official test suites of Engine.IO and Socket.IO ask for, over this server's front door and with its settings:
//! echoes at `/engine.io/` and `/socket.io/`. `HOST` (127.0.0.1) and `PORT` (3000; 0 = any free one) say where.
//!
//! The suites want short times: `--ping-interval-ms 300 --ping-timeout-ms 200 --connect-timeout-ms 1000`.

use std::{convert::Infallible, future::ready, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Parser;
use corriente::{
    listener::{DoorLimits, FrontDoor, SenderHeader},
    sessions::{EngineClocks, EngineIo, socket_io_builder},
    telemetry::Metrics,
};
use engineioxide::{
    DisconnectReason, Socket as EngineSocket, Str, config::EngineIoConfig, handler::EngineIoHandler,
    service::EngineIoService,
};
use poem::{EndpointExt, Route};
use serde::{Serialize, Serializer, ser::SerializeTuple};
use serde_json::{Value, json};
use socketioxide::{
    adapter::Adapter,
    extract::{AckSender, SocketRef, TryData},
    handler::{FromMessageParts, Value as Packet},
    socket::Socket,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const SESSIONS_MAX: usize = 1_000;
const GREETING_PAUSE: Duration = Duration::from_millis(10);

#[derive(Parser)]
struct Flags {
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: IpAddr,
    #[arg(long, env = "PORT", default_value_t = 3000)]
    port: u16,
    /// Between two pings
    #[arg(long, default_value_t = 25_000)]
    ping_interval_ms: u64,
    /// For the answer to one
    #[arg(long, default_value_t = 20_000)]
    ping_timeout_ms: u64,
    /// Until a client must have joined a namespace
    #[arg(long, default_value_t = 10_000)]
    connect_timeout_ms: u64,
    /// The most bytes of a payload; the suites look for this number
    #[arg(long, default_value_t = 1_000_000)]
    max_payload_bytes: usize,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let flags = Flags::parse();
    let listener = TcpListener::bind((flags.host, flags.port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let clocks = EngineClocks {
        ping_every: Duration::from_millis(flags.ping_interval_ms),
        ping_time_max: Duration::from_millis(flags.ping_timeout_ms),
        connect_time_max: Duration::from_millis(flags.connect_timeout_ms),
    };
    let (service, io) = socket_io_builder(clocks).max_payload(flags.max_payload_bytes as u64).build_svc();
    io.ns("/", |socket: SocketRef, TryData(auth): TryData<Value>| {
        socket.on("message", |socket: SocketRef, arguments: Arguments| {
            let _ = socket.emit("message-back", &arguments);
            ready(())
        });
        socket.on("message-with-ack", |arguments: Arguments, ack: AckSender| {
            let _ = ack.send(&arguments);
            ready(())
        });
        greet(socket, auth.ok())
    });
    io.ns("/custom", |socket: SocketRef, TryData(auth): TryData<Value>| greet(socket, auth.ok()));
    let config = EngineIoConfig::builder()
        .ping_interval(clocks.ping_every)
        .ping_timeout(clocks.ping_time_max)
        .max_payload(flags.max_payload_bytes as u64)
        .build();
    let engine = EngineIoService::with_config(Arc::new(Echo), config);

    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    let limits = DoorLimits {
        connections_max: SESSIONS_MAX,
        connections_per_address_max: SESSIONS_MAX,
        header_time_max: SILENCE_MAX,
        silence_max: SILENCE_MAX,
        answers_bytes_max: 1 << 28,
        trusted_proxies: [].into(),
        sender_header: SenderHeader::default(),
        bodies_bytes_max: 64 * 1024 * 1024,
    };
    let (payload, metrics) = (flags.max_payload_bytes, &metrics);
    let places = || Arc::new(Semaphore::new(SESSIONS_MAX));
    let routes = Route::new()
        .nest_no_strip("/socket.io", EngineIo::new(service, places(), payload, SILENCE_MAX, metrics, stop.clone()))
        .nest_no_strip("/engine.io", EngineIo::new(engine, places(), payload, SILENCE_MAX, metrics, stop.clone()));
    FrontDoor::new(listener, limits, metrics).serve(routes.map_to_response(), stop, SILENCE_MAX).await;
    Ok(())
}

/// Tells a client what it said of itself. A moment later: the suites listen for one packet after the other, and miss the
/// second of two that come in one piece.
async fn greet(socket: SocketRef, auth: Option<Value>) {
    sleep(GREETING_PAUSE).await;
    let _ = socket.emit("auth", &auth.filter(|auth| !auth.is_null()).unwrap_or_else(|| json!({})));
}

/// Engine.IO: what comes goes back.
#[derive(Debug)]
struct Echo;

impl EngineIoHandler for Echo {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<EngineSocket<()>>) {}

    fn on_disconnect(&self, _: Arc<EngineSocket<()>>, _: DisconnectReason) {}

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<EngineSocket<()>>) {
        let _ = socket.emit(message);
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<EngineSocket<()>>) {
        let _ = socket.emit_binary(data);
    }
}

/// All arguments of an event, bytes among them.
struct Arguments {
    values: Vec<Value>,
    attachments: Vec<Bytes>,
}

impl<A: Adapter> FromMessageParts<A> for Arguments {
    type Error = Infallible;

    fn from_message_parts(_: &Arc<Socket<A>>, packet: &mut Packet, _: &Option<i64>) -> Result<Self, Infallible> {
        let Packet::Str(text, attachments) = packet else {
            return Ok(Self { values: Vec::new(), attachments: Vec::new() });
        };
        let mut values: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        // The first one is the event's name.
        values.drain(..values.len().min(1));
        Ok(Self { values, attachments: attachments.take().unwrap_or_default().into() })
    }
}

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.values.len())?;
        for value in &self.values {
            tuple.serialize_element(&Argument { value, attachments: &self.attachments })?;
        }
        tuple.end()
    }
}

/// One argument, with its bytes put back in the places that were kept for them.
struct Argument<'a> {
    value: &'a Value,
    attachments: &'a [Bytes],
}

impl Serialize for Argument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let within = |value| Argument { value, attachments: self.attachments };
        match self.value {
            Value::Array(values) => serializer.collect_seq(values.iter().map(within)),
            Value::Object(fields) => {
                let number = fields.get("_placeholder").and(fields.get("num")).and_then(Value::as_u64);
                let attachment =
                    number.and_then(|number| usize::try_from(number).ok()).and_then(|at| self.attachments.get(at));
                match attachment {
                    Some(bytes) => serializer.serialize_bytes(bytes),
                    None => serializer.collect_map(fields.iter().map(|(name, value)| (name, within(value)))),
                }
            }
            value => value.serialize(serializer),
        }
    }
}
