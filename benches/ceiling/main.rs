//! The ceiling: the smallest server that writes one shared, ready frame to every socket over Poem's raw upgrade. It has no
//! database, one thread for all sockets, and nothing that a chat needs. What it costs is what the system and the framework
//! cost, so the goals of the real server are ratios to it, measured in the same run: `load --scenario fanout-100`.
//!
//! All frames are of one length and stand one after the other in a ring of bytes, so that what waits for a socket is
//! one piece that can be written at once. Its readers are those of the load generator, which find in its frames what
//! they find in the real ones.

#[allow(dead_code)] // Each program uses its part.
#[path = "../../examples/load/schedule.rs"]
mod schedule;
#[allow(dead_code)]
#[path = "../../examples/load/stamp.rs"]
mod stamp;

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, ready},
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use poem::{
    EndpointExt, Request, Response, Route, Server, get, handler,
    http::{StatusCode, header, uri::Scheme},
    listener::Acceptor,
    post,
    web::{Data, LocalAddr, Query, RemoteAddr},
};
use schedule::{Schedule, deal};
use serde::Deserialize;
use stamp::{Nanos, Stamp, now};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The most that is written at once, in bytes.
const WRITE_BYTES_MAX: u64 = 64 * 1024;
/// What waits for the slowest socket, in frames, before publishing as fast as it goes waits for it.
const RING_FRAMES: usize = 4_096;

/// The fan-out without a chat: what a server can not be faster than
#[derive(Parser)]
#[command(name = "ceiling", version)]
struct Arguments {
    /// The port; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bytes of a message's content, as in `load`
    #[arg(long, default_value_t = 40)]
    content_bytes: usize,
}

/// Frames that were published, and who has written how much of them.
struct Ring {
    bytes: Vec<u8>,
    frame: Frame,
    /// Bytes that were ever published; the newest of them stand in the ring.
    end: u64,
    /// How much each socket has written; `None` when it is gone.
    written: Vec<Option<u64>>,
}

/// A frame and where its stamp stands.
struct Frame {
    bytes: Vec<u8>,
    stamp_at: usize,
    content_bytes: usize,
}

struct Shared {
    ring: Mutex<Ring>,
    published: Notify,
}

#[derive(Deserialize)]
struct Order {
    /// Frames per second, or `max`.
    rate: String,
    start: Nanos,
    until: Nanos,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let frame = Frame::new(arguments.content_bytes);
    let ring = Ring { bytes: vec![0; RING_FRAMES * frame.bytes.len()], frame, end: 0, written: Vec::new() };
    let shared = Arc::new(Shared { ring: Mutex::new(ring), published: Notify::new() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await.context("the port is taken")?;
        println!("listening on http://{}", listener.local_addr()?);
        let routes = Route::new()
            .at("/ws", get(serve))
            .at("/publish", post(publish))
            .at("/published", post(published))
            .data(shared);
        Ok(Server::new_with_acceptor(Door(listener)).run(routes).await?)
    })
}

#[handler]
async fn serve(request: &Request, shared: Data<&Arc<Shared>>) -> Result<Response, poem::Error> {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let upgrade = request.take_upgrade()?;
    let shared = shared.clone();
    tokio::spawn(async move {
        if let Ok(mut stream) = upgrade.await
            && stream.write_all(&text_frame(br#"{"type":"ready","cursor":"0"}"#)).await.is_ok()
        {
            let number = {
                let mut ring = shared.ring();
                let end = ring.end;
                ring.written.push(Some(end));
                ring.written.len() - 1
            };
            // The other end is gone: there is nobody to tell.
            let _ = write_all(&shared, number, stream).await;
            shared.ring().written[number] = None;
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .finish())
}

/// Writes what is published until the socket is closed. What it reads it throws away: reading tells that the socket is
/// closed, and the first read gives back the buffer of the handshake.
async fn write_all(shared: &Shared, number: usize, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let mut stream = pin!(stream);
    let mut more = pin!(shared.published.notified());
    poll_fn(|cx| {
        loop {
            // Listened for before the ring is looked at, so that nothing that is published meanwhile is missed.
            while more.as_mut().poll(cx).is_ready() {
                more.set(shared.published.notified());
            }
            let mut ring = shared.ring();
            let from = ring.written[number].unwrap_or(ring.end);
            let piece = ring.piece(from);
            if piece.is_empty() {
                drop(ring);
                let mut thrown_away = [0; 64];
                let mut into = ReadBuf::new(&mut thrown_away);
                ready!(stream.as_mut().poll_read(cx, &mut into))?;
                if into.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let wrote = ready!(stream.as_mut().poll_write(cx, piece))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ring.written[number] = Some(from + wrote as u64);
        }
    })
    .await
}

#[handler]
async fn publish(order: Query<Order>, shared: Data<&Arc<Shared>>) -> StatusCode {
    let Order { rate, start, until } = order.0;
    let shared = shared.clone();
    match rate.parse() {
        Ok(per_second) => tokio::spawn(publish_at(shared, Schedule { start, per_second }, until)),
        Err(_) => tokio::spawn(publish_at_most(shared, start, until)),
    };
    StatusCode::OK
}

/// Publishes by a schedule. A ring that is full means that the rate is too high; the frame is late, and its delay says so.
async fn publish_at(shared: Arc<Shared>, schedule: Schedule, until: Nanos) {
    let mut sequence = 0;
    for mut times in deal(schedule, until, 1) {
        while let Some(due) = times.recv().await {
            while !shared.ring().has_room() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            shared.ring().push(sequence, due);
            shared.published.notify_waiters();
            sequence += 1;
        }
    }
}

/// Publishes a ring full of frames whenever the slowest socket has room for it.
async fn publish_at_most(shared: Arc<Shared>, start: Nanos, until: Nanos) {
    let mut sequence = 0;
    while now() < until {
        if now() >= start {
            while shared.ring().has_room() {
                shared.ring().push(sequence, now());
                sequence += 1;
            }
            shared.published.notify_waiters();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many frames were published.
#[handler]
async fn published(shared: Data<&Arc<Shared>>) -> String {
    let ring = shared.ring();
    (ring.end / ring.frame.bytes.len() as u64).to_string()
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Whether one more frame leaves all sockets what they have not written yet.
    fn has_room(&self) -> bool {
        let slowest = self.written.iter().flatten().min().copied().unwrap_or(self.end);
        self.end + self.frame.bytes.len() as u64 - slowest <= self.bytes.len() as u64
    }

    fn push(&mut self, sequence: u32, intended: Nanos) {
        let frame = self.frame.with(&Stamp { writer: 0, sequence, intended });
        let at = (self.end % self.bytes.len() as u64) as usize;
        self.bytes[at..at + frame.len()].copy_from_slice(frame);
        self.end += frame.len() as u64;
    }

    /// What is to be written next by who has written up to `from`.
    fn piece(&self, from: u64) -> &[u8] {
        let size = self.bytes.len() as u64;
        let at = from % size;
        let length = (self.end - from).min(WRITE_BYTES_MAX).min(size - at);
        &self.bytes[at as usize..(at + length) as usize]
    }
}

impl Frame {
    /// One that looks and weighs like those of the real server.
    fn new(content_bytes: usize) -> Self {
        let content = Stamp { writer: 0, sequence: 0, intended: 0 }.content(content_bytes);
        let before = concat!(
            r#"{"type":"created","cursor":"97bf3ca9-6b063e3900000003-d87b4be1","topics":[{"room":"load"}],"#,
            r#""message":{"id":"6b063e391b85d9cbc0f827c1","content":""#
        );
        let after = r#"","sender":"writer 0","room":"load","date":"2026-11-25T01:47:37.775Z"}}"#;
        let bytes = text_frame(format!("{before}{content}{after}").as_bytes());
        Self { stamp_at: bytes.len() - after.len() - content.len(), bytes, content_bytes }
    }

    fn with(&mut self, stamp: &Stamp) -> &[u8] {
        let content = stamp.content(self.content_bytes);
        self.bytes[self.stamp_at..self.stamp_at + content.len()].copy_from_slice(content.as_bytes());
        &self.bytes
    }
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// Accepts for Poem, which by itself would let frames wait for each other.
struct Door(TcpListener);

impl Acceptor for Door {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, remote) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok((stream, LocalAddr(local.into()), RemoteAddr(remote.into()), Scheme::HTTP))
    }
}
