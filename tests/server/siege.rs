//! The server under attack, by tools that others wrote for it and by hand: whoever behaves is served meanwhile.
//!
//! Run by itself, with `--nocapture`, it tells how long the healthy client waited; `docs/limits.md` has such a run.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    faults::{World, program::Program},
    harness::{Follower, PATIENCE_SECS, eventually},
    programs::Tool,
};

/// How long each attack goes on, in seconds.
const ATTACK_SECS: &str = "6";
const ATTACK_SECS_MAX: u64 = 60;
/// How many connections it has.
const CONNECTIONS: &str = "1000";

/// The healthy client has an address of its own, as it has in life. All of 127.0.0.0/8 is this machine, on Linux.
const HEALTHY_ADDRESS: [u8; 4] = [127, 0, 0, 9];

/// Somebody who chats while others attack.
struct Healthy {
    url: String,
    http: reqwest::Client,
    follower: Follower,
    said: usize,
    delays: Vec<Duration>,
}

impl Healthy {
    async fn at(program: &Program) -> Self {
        let http = reqwest::Client::builder()
            .local_address(std::net::IpAddr::from(HEALTHY_ADDRESS))
            // A connection of its own for each, so that the door is tried, too.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(PATIENCE_SECS))
            .build()
            .expect("an HTTP client");
        let mut follower = Follower::join(&program.url, "room=healthy").await;
        follower.expect("ready").await;
        Self { url: program.url.clone(), http, follower, said: 0, delays: Vec::new() }
    }

    /// Says something, reads the history, and hears what it has said.
    async fn chat(&mut self) {
        let began = Instant::now();
        self.said += 1;
        let (n, content) = (self.said, self.said.to_string());
        let message = json!({ "room": "healthy", "sender": "Ana", "content": content });
        let sent = self.http.post(format!("{}/api/messages", self.url)).json(&message).send().await;
        assert_eq!(sent.expect("an answer").status(), 201, "message {n}");
        self.delays.push(began.elapsed());
        // The last one of the attack before may not have been heard any more.
        while self.follower.expect("created").await["message"]["content"] != content {}
        let began = Instant::now();
        let read = self.http.get(format!("{}/api/messages?room=healthy&limit=5", self.url)).send().await;
        assert_eq!(read.expect("an answer").status(), 200, "page {n}");
        self.delays.push(began.elapsed());
    }

    /// Chats as long as the attack goes on, and tells how long it waited.
    async fn chat_during<T>(&mut self, what: &str, attack: impl Future<Output = T>) -> T {
        self.delays.clear();
        let mut attack = std::pin::pin!(attack);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut attack => break outcome,
                () = async { self.chat().await; sleep(Duration::from_millis(10)).await; } => {}
            }
        };
        assert!(!self.delays.is_empty(), "{what}: nothing was said meanwhile");
        self.delays.sort_unstable();
        let at = |share: usize| self.delays[(self.delays.len() - 1) * share / 100];
        println!("{what}: {} answers, p50 {:?}, p99 {:?}", self.delays.len(), at(50), at(99));
        outcome
    }
}

#[tokio::test]
async fn slow_headers_slow_bodies_and_slow_readers_keep_nobody_else_waiting() {
    let Some(slow) = Tool::of_system("slowhttptest", "slowhttptest").await else {
        return;
    };
    let world = World::shared_by(0).await;
    let program = Program::start_with(&world, &["--header-secs", "3", "--body-secs", "3", "--silence-secs", "5"]).await;
    let mut healthy = Healthy::at(&program).await;
    let folder = tempfile::tempdir().unwrap();
    let (home, messages) = (format!("{}/", program.url), format!("{}/api/messages", program.url));
    let common = ["-c", CONNECTIONS, "-r", "500", "-l", ATTACK_SECS, "-p", "5"];
    let modes: [(&str, &[&str]); 3] = [
        ("slow headers", &["-H", "-i", "1", "-u", &home]),
        ("slow bodies", &["-B", "-i", "1", "-s", "8192", "-t", "POST", "-u", &messages]),
        ("slow readers", &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "3", "-u", &home]),
    ];
    for (what, mode) in modes {
        let args = [mode, &common].concat();
        let attack = slow.run(folder.path(), &args, ATTACK_SECS_MAX);
        let report = healthy.chat_during(what, attack).await;
        report.unwrap_or_else(|why| panic!("{what}: slowhttptest {why}"));
    }
    eventually("the connections of the attackers end", async || (program.descriptors() < 200).then_some(())).await;
}

#[tokio::test]
async fn a_flood_of_requests_over_http_2_keeps_nobody_else_waiting() {
    let Some(flood) = Tool::of_system("h2load", "nghttp2-client").await else {
        return;
    };
    let world = World::shared_by(0).await;
    // With the limits as they are by default.
    let program = Program::start_limited(&world, &[]).await;
    let mut healthy = Healthy::at(&program).await;
    let url = format!("{}/api/messages?room=healthy", program.url);
    let args = ["-c", "50", "-m", "20", "-t", "1", "-D", ATTACK_SECS, &url];
    let attack = flood.run(Path::new("/"), &args, ATTACK_SECS_MAX);
    let report = healthy.chat_during("h2load", attack).await.unwrap_or_else(|why| panic!("h2load {why}"));
    assert!(report.contains("finished in"), "{report}");
}

#[tokio::test]
async fn ten_thousand_idle_connections_find_the_cap_and_are_let_go() {
    const IDLE: usize = 10_000;
    // Both ends are of one machine, but not of one process.
    assert!(rlimit::increase_nofile_limit(u64::MAX).expect("a limit") > IDLE as u64 + 1_000, "too few open files");
    let world = World::shared_by(0).await;
    let flags = ["--connections-max", "5000", "--connections-per-address-max", "4000", "--header-secs", "10"];
    let program = Program::start_with(&world, &flags).await;
    let mut healthy = Healthy::at(&program).await;
    let address = program.url.trim_start_matches("http://").to_owned();
    let attack = async {
        let mut held = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            // Beyond the cap they are told so and closed, which this end does not read.
            held.push(TcpStream::connect(&address).await.expect("a connection"));
        }
        sleep(Duration::from_secs(1)).await;
        held
    };
    let held = healthy.chat_during("idle connections", attack).await;
    // Those for which there was no room have been told so, and the others are closed when they have said nothing for too
    // long.
    let mut answer = [0; 64];
    let is_refused = |socket: &TcpStream, answer: &mut [u8]| {
        socket.try_read(answer).is_ok_and(|count| answer[..count].starts_with(b"HTTP/1.1 503"))
    };
    let refused = held.iter().filter(|socket| is_refused(socket, &mut answer)).count();
    assert!(refused > 1_000, "{refused} of {IDLE} were refused");
    eventually("the places of the idle", async || (program.descriptors() < 200).then_some(())).await;
    drop(held);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_without_end_are_ended() {
    let world = World::shared_by(0).await;
    let program = Program::start_with(&world, &[]).await;
    let mut healthy = Healthy::at(&program).await;
    let address = program.url.trim_start_matches("http://").to_owned();
    let attack = async || {
        let mut socket = TcpStream::connect(&address).await.expect("a connection");
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = (payload.len() as u32).to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
        };
        // The preface and empty SETTINGS.
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
        socket.write_all(&preface).await.expect("the preface");
        let (mut answers, mut socket) = socket.into_split();
        // GET http://x/rooms/general, in HPACK: three fields of the static table by their numbers, two with a text.
        let headers = [&[0x82, 0x86, 0x41, 1][..], b"x", &[0x44, 14], b"/rooms/general"].concat();
        let mut is_ended = false;
        'flood: for batch in 0..2_000_u32 {
            let mut bytes = Vec::new();
            for n in 0..100 {
                let stream = (batch * 100 + n) * 2 + 1;
                // HEADERS that end headers and stream, then RST_STREAM with CANCEL.
                bytes.extend(frame(1, 0x5, stream, &headers));
                bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
            }
            let mut heard = [0; 64 * 1024];
            let mut left = &bytes[..];
            while !left.is_empty() {
                tokio::select! {
                    written = socket.write(left) => match written {
                        Ok(count) => left = &left[count..],
                        Err(_) => { is_ended = true; break 'flood; }
                    },
                    read = answers.read(&mut heard) => if matches!(read, Ok(0) | Err(_)) { is_ended = true; break 'flood; },
                }
            }
        }
        is_ended
    };
    let attacks = async {
        // One after the other: each is ended within a moment.
        for _ in 0..100 {
            let is_ended = timeout(Duration::from_secs(PATIENCE_SECS), attack()).await.expect("an end in time");
            assert!(is_ended, "200,000 streams were opened and reset over one connection");
        }
    };
    healthy.chat_during("rapid reset", attacks).await;
}

#[tokio::test]
async fn without_descriptors_for_new_connections_it_waits_and_goes_on_by_itself() {
    let world = World::shared_by(0).await;
    let program = Program::start_with(&world, &[]).await;
    let mut healthy = Follower::join(&program.url, "room=healthy").await;
    healthy.expect("ready").await;
    let send = json!({ "type": "send", "room": "healthy", "sender": "Ana", "content": "before" });
    let mut say = async || {
        healthy.send(send.clone()).await;
        while healthy.next().await.expect("it stays connected")["type"] != "created" {}
    };
    say().await;

    // Fewer than it has open already.
    program.limit_descriptors(10).await;
    let address = program.url.trim_start_matches("http://").to_owned();
    let mut waiting = TcpStream::connect(&address).await.expect("the system takes it");
    waiting.write_all(format!("GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.expect("a request");
    let (began, used) = (Instant::now(), program.processor_time());
    let answer = timeout(Duration::from_secs(3), waiting.read_u8()).await;
    assert!(answer.is_err(), "it was accepted: {answer:?}");
    let spent = program.processor_time() - used;
    assert!(spent < began.elapsed() / 2, "{spent:?} of processor time within {:?}: it spins", began.elapsed());
    // Those who are there are served.
    say().await;

    program.limit_descriptors(4_000).await;
    let mut answer = [0; 15];
    timeout(Duration::from_secs(PATIENCE_SECS), waiting.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}
