//! All readers: a few threads with a task for each connection, and one large buffer for each thread.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{anyhow, bail, ensure};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    flags::{Plan, Transport},
    http::{Site, ask, upgrade_request},
    reader::{Reader, Tally},
    stamp::{Nanos, now},
    stats::{Delays, no_delays},
};

/// What one thread reads at once, in bytes: at full load a kernel buffer holds about as much.
const BUFFER_BYTES: usize = 256 * 1024;
/// Handshakes under way at once: a server's backlog is bounded too.
const HANDSHAKES_MAX: usize = 64;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Reads,
    Idles,
    IsStuck,
}

/// The readers of one run.
pub struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    benches: Vec<Arc<Mutex<Bench>>>,
}

/// How far the readers are, for writers that wait for them.
#[derive(Clone)]
pub struct Progress(Arc<Shared>);

struct Shared {
    site: Site,
    plan: Plan,
    handshakes: Semaphore,
    ready: AtomicUsize,
    /// Messages that each reader has got.
    messages: Vec<AtomicU64>,
    /// Those that read, to be judged at the end.
    seen: Mutex<Vec<Arc<Mutex<Reader>>>>,
    /// Why the first connection failed.
    failure: Mutex<Option<String>>,
    failures: AtomicUsize,
    is_ending: AtomicBool,
    stop: CancellationToken,
}

/// What the readers of one thread work on in turn. Its lock is never contended, but for a look at the numbers.
struct Bench {
    buffer: Vec<u8>,
    tally: Tally,
}

/// The end of a run, seen by its readers.
pub struct Verdict {
    pub delays: Delays,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub damaged: u64,
    pub resets: u64,
    pub foreign: u64,
    pub disconnected: u64,
    /// Bytes of all deliveries, with their envelopes.
    pub bytes: u64,
    pub deliveries: u64,
}

impl Readers {
    /// Starts to open all connections of `plan`.
    pub fn start(site: &Site, plan: &Plan, threads: u16) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            site: site.clone(),
            plan: plan.clone(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            ready: AtomicUsize::new(0),
            messages: (0..plan.readers).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::default(),
            failure: Mutex::default(),
            failures: AtomicUsize::new(0),
            is_ending: AtomicBool::new(false),
            stop: CancellationToken::new(),
        });
        let begun = Instant::now();
        let mut readers = Self { shared, threads: Vec::new(), benches: Vec::new() };
        for thread in 0..usize::from(threads) {
            let tally = Tally::new(plan.check_every, plan.content_bytes);
            let bench = Arc::new(Mutex::new(Bench { buffer: vec![0; BUFFER_BYTES], tally }));
            readers.benches.push(bench.clone());
            let shared = readers.shared.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            readers.threads.push(std::thread::spawn(move || {
                runtime.block_on(async {
                    for n in (thread..shared.connections()).step_by(usize::from(threads)) {
                        tokio::spawn(live(shared.clone(), bench.clone(), n, begun));
                    }
                    shared.stop.cancelled().await;
                });
            }));
        }
        Ok(readers)
    }

    /// How many connections are live, of how many.
    pub fn ready(&self) -> (usize, usize) {
        (self.shared.ready.load(Ordering::Relaxed), self.shared.connections())
    }

    /// Why the first connection failed, if one has.
    pub fn failure(&self) -> Option<String> {
        lock(&self.shared.failure).clone()
    }

    /// Measures the messages that are meant to be sent within these times.
    pub fn measure(&self, from: Nanos, until: Nanos) {
        for bench in &self.benches {
            lock(bench).tally.window = (from, until);
        }
    }

    /// Deliveries so far.
    pub fn deliveries(&self) -> u64 {
        self.benches.iter().map(|bench| lock(bench).tally.deliveries).sum()
    }

    /// See [`Progress`].
    pub fn progress(&self) -> Progress {
        Progress(self.shared.clone())
    }

    /// Ends all connections and judges. `sent` is how many messages each writer has sent, without those that nobody
    /// promised.
    pub fn finish(mut self, sent: &[u32], is_excused: impl Fn(u16, u32) -> bool) -> Verdict {
        self.close();
        let mut verdict = Verdict {
            delays: no_delays(),
            lost: 0,
            duplicated: 0,
            reordered: 0,
            damaged: 0,
            resets: 0,
            foreign: 0,
            disconnected: self.shared.failures.load(Ordering::Relaxed) as u64,
            bytes: 0,
            deliveries: 0,
        };
        for bench in &self.benches {
            let bench = lock(bench);
            // Both are made with the same bounds, so the sum can not fail.
            let _ = verdict.delays.add(&bench.tally.delays);
            verdict.damaged += bench.tally.damaged;
            verdict.resets += bench.tally.resets;
            verdict.bytes += bench.tally.bytes;
            verdict.deliveries += bench.tally.deliveries;
        }
        for reader in lock(&self.shared.seen).iter() {
            let order = &lock(reader).seen.order;
            verdict.lost += order.lost(sent, &is_excused);
            verdict.duplicated += order.duplicated;
            verdict.reordered += order.reordered;
            verdict.foreign += order.foreign;
        }
        verdict
    }

    fn close(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        self.shared.stop.cancel();
        for thread in self.threads.drain(..) {
            // A reader that panicked has said so, and counts as one that failed.
            if thread.join().is_err() {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Progress {
    /// Messages that every reader has got. Without readers there is nobody to wait for.
    pub fn slowest(&self) -> u64 {
        self.0.messages.iter().map(|messages| messages.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }
}

impl Shared {
    fn connections(&self) -> usize {
        self.plan.readers + self.plan.idle + self.plan.stuck
    }

    fn role_of(&self, n: usize) -> Role {
        if n < self.plan.readers {
            Role::Reads
        } else if n < self.plan.readers + self.plan.idle {
            Role::Idles
        } else {
            Role::IsStuck
        }
    }
}

/// The life of one connection.
async fn live(shared: Arc<Shared>, bench: Arc<Mutex<Bench>>, n: usize, begun: Instant) {
    sleep_until(begun + Duration::from_secs_f64(n as f64 / shared.plan.connect_rate)).await;
    let Err(error) = read(&shared, &bench, n).await else {
        return;
    };
    if !shared.is_ending.load(Ordering::Relaxed) {
        shared.failures.fetch_add(1, Ordering::Relaxed);
        lock(&shared.failure).get_or_insert(format!("{error:#}"));
    }
}

async fn read(shared: &Shared, bench: &Mutex<Bench>, n: usize) -> anyhow::Result<()> {
    let role = shared.role_of(n);
    let (mut stream, mut reader, mut rest) = {
        let _turn = shared.handshakes.acquire().await?;
        join(shared, n, role).await?
    };
    // What came with the answer to the handshake is looked at before anything is waited for.
    let used = reader.take(&rest, now(), &mut lock(bench).tally)?;
    rest.drain(..used);
    let reader = Arc::new(Mutex::new(reader));
    if role == Role::Reads {
        lock(&shared.seen).push(reader.clone());
    }
    let mut is_ready = false;
    loop {
        let reply = {
            let mut reader = lock(&reader);
            if let Some(messages) = shared.messages.get(n) {
                messages.store(reader.seen.messages, Ordering::Relaxed);
            }
            if reader.seen.is_ready && !is_ready {
                is_ready = true;
                shared.ready.fetch_add(1, Ordering::Relaxed);
            }
            mem::take(&mut reader.reply)
        };
        if !reply.is_empty() {
            stream.write_all(&reply).await?;
        }
        if is_ready && role == Role::IsStuck {
            // It holds its connection and does not read until the end.
            shared.stop.cancelled().await;
            return Ok(());
        }
        poll_fn(|cx| poll_read(cx, bench, &mut stream, &reader, &mut rest)).await?;
    }
}

/// One read into the buffer that all share. Only the beginning of a frame is kept for its reader, in `rest`.
fn poll_read(
    cx: &mut Context<'_>,
    bench: &Mutex<Bench>,
    stream: &mut TcpStream,
    reader: &Mutex<Reader>,
    rest: &mut Vec<u8>,
) -> Poll<anyhow::Result<()>> {
    let mut bench = lock(bench);
    let Bench { buffer, tally } = &mut *bench;
    let begun = rest.len();
    let Some((before, free)) = buffer.split_at_mut_checked(begun).filter(|(_, free)| !free.is_empty()) else {
        return Poll::Ready(Err(anyhow!("a frame of more than {BUFFER_BYTES} bytes")));
    };
    before.copy_from_slice(rest);
    let mut into = ReadBuf::new(free);
    ready!(Pin::new(stream).poll_read(cx, &mut into))?;
    let read = into.filled().len();
    if read == 0 {
        return Poll::Ready(Err(anyhow!("the server closed the connection")));
    }
    let bytes = &buffer[..begun + read];
    tally.bytes += read as u64;
    let used = lock(reader).take(bytes, now(), tally)?;
    rest.clear();
    rest.extend_from_slice(&bytes[used..]);
    Poll::Ready(Ok(()))
}

/// The handshake of one connection. Returns what came after it, too.
async fn join(shared: &Shared, n: usize, role: Role) -> anyhow::Result<(TcpStream, Reader, Vec<u8>)> {
    let plan = &shared.plan;
    let room = match role {
        Role::Reads | Role::IsStuck => plan.room.clone(),
        Role::Idles => format!("{}-idle", plan.room),
    };
    let (path, expected) = match plan.transport {
        Transport::Websocket => (format!("/ws?room={room}"), 101),
        Transport::SocketIo => (format!("/socket.io/?EIO=4&transport=websocket&room={room}"), 101),
        Transport::Sse => (format!("/api/events?room={room}"), 200),
    };
    let host = &shared.site.host;
    let request = match plan.transport {
        Transport::Sse => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"),
        _ => upgrade_request(&shared.site, &path),
    };
    let mut stream = shared.site.dial(n).await?;
    let (head, rest) = ask(&mut stream, &request).await?;
    let status = head.status;
    match (plan.transport, status) {
        _ if status == expected => {}
        (Transport::Sse, 404) => bail!("this server has no server-sent events at /api/events (it answered 404)"),
        (_, 404) => bail!("this server has nothing at {path} (it answered 404)"),
        _ => bail!("{path} was answered {status}: {}", String::from_utf8_lossy(&rest)),
    }
    Ok((stream, Reader::new(plan.transport, head.is_chunked, plan.publishers.max(1), &room), rest))
}

/// Waits until all connections are live.
pub async fn wait_until_ready(readers: &Readers, plan: &Plan, tell: impl Fn(usize)) -> anyhow::Result<()> {
    const PATIENCE_SECS: f64 = 60.0;
    let (_, all) = readers.ready();
    let deadline = Instant::now() + Duration::from_secs_f64(PATIENCE_SECS + all as f64 / plan.connect_rate);
    loop {
        let (ready, _) = readers.ready();
        tell(ready);
        if let Some(failure) = readers.failure() {
            bail!("a connection failed after {ready} of {all} were open: {failure}");
        }
        if ready == all {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {ready} of {all} connections are live after {PATIENCE_SECS} s");
        sleep(Duration::from_millis(20)).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
