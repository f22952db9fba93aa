//! What adding servers does: processor time per delivery and per event with one, two and three servers over one MongoDB, and
//! how many events one server takes in. `docs/scaling.md` has what it printed.
//!
//!     cargo build --release && cargo run --release --example servers
//!
//! Readers are spread evenly over the servers and follow one room; a driver writes past the servers, so that all that a
//! server does is to read the stream and to deliver.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::StreamExt;
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{interval, sleep, timeout},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// The unit of times in `/proc`.
const TICK_SECS: f64 = 0.01;
/// How long anything may take that must happen, in seconds.
const PATIENCE_SECS: u64 = 60;
/// Documents of one insert of the burst.
const BATCH: u64 = 500;

#[derive(Parser)]
struct Flags {
    /// The server's program
    #[arg(long, default_value = "target/release/corriente")]
    server: PathBuf,
    /// Readers, of all servers together
    #[arg(long, default_value_t = 600)]
    readers: usize,
    /// Messages a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Messages of the burst
    #[arg(long, default_value_t = 200_000)]
    burst: u64,
}

/// A server's process. Dropping it kills it.
struct Server {
    url: String,
    child: Child,
}

impl Server {
    async fn start(flags: &Flags, uri: &str, database: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(&flags.server);
        command.args(["--port", "0", "--mongodb-uri", uri, "--database", database]).env("RUST_LOG", "warn");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return Ok(url.to_owned());
                }
            }
            anyhow::bail!("the server ended")
        };
        let url = timeout(Duration::from_secs(PATIENCE_SECS), listening).await??;
        Ok(Self { url, child })
    }

    fn cpu_secs(&self) -> anyhow::Result<f64> {
        cpu_secs(self.child.id().context("it runs")?)
    }

    /// How many events it has received.
    async fn events(&self) -> anyhow::Result<u64> {
        let text = reqwest::get(format!("{}/metrics", self.url)).await?.text().await?;
        let of_events = text.lines().filter(|line| line.starts_with("corriente_events_total{"));
        Ok(of_events.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }
}

/// What a process has used of the processors so far.
fn cpu_secs(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("a name")?.1.split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks * TICK_SECS)
}

/// Of the set's members: they are found by where their files lie.
fn database_cpu_secs() -> f64 {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
        parent.as_deref() == Some(&own) && stat.contains("(mongod")
    };
    pids.filter(is_ours).filter_map(|pid| cpu_secs(pid).ok()).sum()
}

fn message(n: u64) -> Document {
    doc! { "content": format!("{n:040}"), "sender": "bench", "room": "bench", "date": mongodb::bson::DateTime::now() }
}

/// Opens a reader, which counts what it is told for as long as it is connected.
async fn read(url: &str, told: Arc<AtomicU64>) -> anyhow::Result<()> {
    let url = format!("{}/ws?room=bench", url.replacen("http", "ws", 1));
    let (mut socket, _) = connect_async(url).await?;
    // The first is `ready`.
    socket.next().await.context("it is closed")??;
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(_) = message {
                told.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}

async fn measure(flags: &Flags, uri: &str, count: usize) -> anyhow::Result<()> {
    let database = format!("servers_{count}_{}", flags.readers);
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start(flags, uri, &database).await?);
    }
    let messages: Collection<Document> = Client::with_uri_str(uri).await?.database(&database).collection("messages");
    let told = Arc::new(AtomicU64::new(0));
    for n in 0..flags.readers {
        read(&servers[n % count].url, told.clone()).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let cpu = |servers: &[Server]| servers.iter().map(Server::cpu_secs).sum::<anyhow::Result<f64>>();

    // A steady stream with readers.
    let (servers_before, database_before, told_before) =
        (cpu(&servers)?, database_cpu_secs(), told.load(Ordering::Relaxed));
    let began = Instant::now();
    let mut ticks = interval(Duration::from_secs(1) / flags.rate);
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(flags.seconds) {
        ticks.tick().await;
        messages.insert_one(message(sent)).await?;
        sent += 1;
    }
    sleep(Duration::from_millis(500)).await;
    let deliveries = told.load(Ordering::Relaxed) - told_before;
    let seconds = began.elapsed().as_secs_f64();
    let (ours, theirs) = (cpu(&servers)? - servers_before, database_cpu_secs() - database_before);
    ensure!(deliveries == sent * flags.readers as u64, "{deliveries} deliveries of {sent} messages");
    println!(
        "| {count} | {} | {} | {deliveries} | {:.2} | {:.2} | {:.3} | {:.3} |",
        flags.readers,
        sent,
        ours * 1e6 / deliveries as f64,
        ours * 1e6 / (sent as f64 * count as f64),
        ours / seconds,
        theirs / seconds,
    );
    Ok(())
}

/// As many messages as MongoDB takes, with nobody who reads: what a server takes in, and what that costs.
async fn burst(flags: &Flags, uri: &str, count: usize) -> anyhow::Result<()> {
    let database = format!("burst_{count}");
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start(flags, uri, &database).await?);
    }
    let messages: Collection<Document> = Client::with_uri_str(uri).await?.database(&database).collection("messages");
    let before: f64 = servers.iter().map(Server::cpu_secs).sum::<anyhow::Result<f64>>()?;
    let began = Instant::now();
    let batches = flags.burst / BATCH;
    let inserts = (0..batches).map(|batch| {
        let messages = messages.clone();
        async move { messages.insert_many((0..BATCH).map(|n| message(batch * BATCH + n))).ordered(false).await }
    });
    let inserted: Vec<_> = futures::stream::iter(inserts).buffer_unordered(3).collect().await;
    for outcome in inserted {
        outcome?;
    }
    let written = began.elapsed().as_secs_f64();
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECS);
    for server in &servers {
        while server.events().await? < batches * BATCH {
            ensure!(Instant::now() < deadline, "a server did not take in everything");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let events = (batches * BATCH) as f64;
    let ours = servers.iter().map(Server::cpu_secs).sum::<anyhow::Result<f64>>()? - before;
    println!(
        "| {count} | {events} | {:.0} | {:.0} | {:.2} |",
        events / written,
        events / seconds,
        ours * 1e6 / (events * count as f64),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let set = ReplicaSet::start(Options::default(), |sentence| eprintln!("{sentence}")).await?;
    println!(
        "| servers | readers | messages | deliveries | server CPU per delivery, us | per message and server, us | cores of all servers | cores of MongoDB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for count in 1..=3 {
        measure(&flags, set.uri(), count).await?;
    }
    let quiet = Flags { readers: 3, ..Flags::parse() };
    for count in 1..=3 {
        measure(&quiet, set.uri(), count).await?;
    }
    println!("\n| servers | messages | written a second | taken in a second, by each | server CPU per event, us |");
    println!("|---|---|---|---|---|");
    for count in 1..=3 {
        burst(&flags, set.uri(), count).await?;
    }
    set.stop().await?;
    Ok(())
}
