//! All bounds reached at once: the process stays below what its settings imply, and whoever behaves is served meanwhile and
//! after it.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use corriente::config::Config;
use futures::{SinkExt, future::join_all};
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, tungstenite::Message};

use crate::{
    faults::{World, program::Program},
    harness::{Follower, eventually},
};

const CONNECTIONS_MAX: usize = 500;
const FLAGS: [&str; 20] = [
    "--connections-max",
    "500",
    "--log-bytes-max",
    "8388608",
    "--replays-max",
    "1",
    "--replay-bytes-max",
    "12582912",
    // Two of what is written here.
    "--replays-kept-bytes-max",
    "41943040",
    "--inserts-waiting-bytes-max",
    "1048576",
    "--bodies-bytes-max",
    "2097152",
    "--answers-bytes-max",
    "4194304",
    // Whatever is held here is held to the end of the test.
    "--header-secs",
    "300",
    "--body-secs",
    "300",
];
/// No address may take more than an eighth of what is for bodies and answers.
const ADDRESSES: std::ops::Range<u8> = 20..30;
const ROOM: &str = "crowd";
const DOCUMENTS: usize = 2_500;
/// How many ask for a replay that they share with nobody, and how far apart they are, in seconds: those nearer than a
/// minute share one.
const REPLAYS: u32 = 40;
const REPLAYS_APART_SECS: u32 = 120;

/// Connections from any address of this machine, all of which are in 127.0.0.0/8.
struct Crowd {
    address: String,
    /// Who asks how it is, over one connection, which is there before the door is full.
    http: reqwest::Client,
}

impl Crowd {
    fn at(url: &str) -> Self {
        let http = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 31])).build().unwrap();
        Self { address: url.trim_start_matches("http://").to_owned(), http }
    }

    async fn connect(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        // The kernel is to take little for those who do not read.
        socket.set_recv_buffer_size(2_048).unwrap();
        socket.connect(self.address.parse().unwrap()).await.unwrap()
    }

    /// Sends these bytes, as far as the server takes them.
    async fn send(&self, last: u8, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect(last).await;
        let _ = timeout(Duration::from_millis(300), stream.write_all(bytes)).await;
        stream
    }

    async fn websocket(&self, last: u8, path: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let stream = MaybeTlsStream::Plain(self.connect(last).await);
        client_async(format!("ws://{}{path}", self.address), stream).await.expect("the handshake succeeds").0
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    }
}

/// Somebody who chats over one connection, and hears every word of it once and in order. Returns how many words these were,
/// when it is told to stop.
async fn chat(crowd: Arc<Crowd>, said: Arc<AtomicUsize>, mut stop: oneshot::Receiver<()>) -> usize {
    let socket = crowd.websocket(9, "/ws?room=healthy").await;
    let mut follower = Follower { socket };
    follower.expect("ready").await;
    let mut count = 0;
    while stop.try_recv().is_err() {
        count += 1;
        let content = count.to_string();
        let message = json!({ "type": "send", "id": ObjectId::new().to_hex(), "room": "healthy", "sender": "Ana", "content": content });
        follower.send(message.clone()).await;
        let (mut is_sent, mut is_heard) = (false, false);
        while !(is_sent && is_heard) {
            let frame = follower.next().await.expect("it stays connected");
            match frame["type"].as_str() {
                Some("created") => {
                    assert_eq!(frame["message"]["content"], content, "every word once, and in order");
                    is_heard = true;
                }
                Some("sent") => is_sent = true,
                // More is written than MongoDB takes: it is to send it again, and does.
                Some("error") if frame["problem"]["status"] == 503 => {
                    sleep(Duration::from_millis(200)).await;
                    follower.send(message.clone()).await;
                }
                Some("position") => {}
                _ => panic!("{frame}"),
            }
        }
        said.store(count, Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
    count
}

#[tokio::test]
async fn with_all_limits_reached_at_once_memory_stays_below_what_the_settings_imply_and_others_are_served() {
    let world = World::shared_by(0).await;
    let program = Program::start_with(&world, &FLAGS).await;
    let implied_kib = Config::parse_from(["corriente"].iter().chain(&FLAGS)).memory_bytes_max() as u64 / 1024;
    let crowd = Arc::new(Crowd::at(&program.url));
    let metric = async |series: &str| {
        let (_, text) = crowd.get("/metrics").await;
        let values = text.lines().filter_map(|line| line.strip_prefix(series)?.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().expect("a number")).sum::<f64>()
    };
    let (said, (stop, stopped)) = (Arc::new(AtomicUsize::new(0)), oneshot::channel());
    let healthy = tokio::spawn(chat(crowd.clone(), said.clone(), stopped));
    eventually("somebody chats", async || (said.load(Ordering::Relaxed) > 0).then_some(())).await;
    let mut held = Vec::new();
    let mut stuck = Vec::new();

    // Readers that join and never read, and one who notes the places in the stream.
    for n in 0..80 {
        let last = ADDRESSES.start + n % 10;
        stuck.push(crowd.websocket(last, &format!("/ws?room={ROOM}")).await);
        let mut socket = crowd.websocket(last, "/socket.io/?EIO=4&transport=websocket").await;
        for packet in ["40", &format!(r#"42["subscribe",{{"room":"{ROOM}"}}]"#)] {
            socket.send(Message::text(packet)).await.unwrap();
        }
        stuck.push(socket);
    }
    let mut follower = Follower::join(&program.url, &format!("room={ROOM}")).await;
    follower.expect("ready").await;
    // Twice what the log holds, but no more at once than that.
    let mut cursors = Vec::new();
    while cursors.len() < DOCUMENTS {
        let content = format!("{} {}", cursors.len(), "x".repeat(3_000));
        let documents = (0..100).map(|_| doc! { "content": &content, "sender": "Ana", "room": ROOM });
        world.messages().insert_many(documents).await.unwrap();
        for _ in 0..100 {
            cursors.push(follower.expect("created").await["cursor"].as_str().expect("a cursor").to_owned());
        }
    }
    assert!(metric("corriente_log_bytes").await > 8_388_608.0 * 0.9, "the log is full");

    // Bodies, and messages, of which the end does not come.
    let head = |length: usize| {
        format!(
            "POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for n in 0..70 {
        let last = ADDRESSES.start + n % 10;
        held.push(crowd.send(last, &[head(65_000).as_bytes(), &[b' '; 64_000]].concat()).await);
        let handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let frame = [&[0x81, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0][..], &[b'x'; 65_000]].concat();
        held.push(crowd.send(last, &[handshake.as_bytes(), &frame].concat()).await);
    }
    // And events whose attachments do not all come.
    for n in 0..20 {
        let mut socket = crowd.websocket(ADDRESSES.start + n % 10, "/socket.io/?EIO=4&transport=websocket").await;
        for packet in ["40", r#"452-["message",{}]"#] {
            socket.send(Message::text(packet)).await.unwrap();
        }
        let _ = socket.send(Message::binary(vec![b'x'; 60_000])).await;
        stuck.push(socket);
    }
    let small = json!({ "sender": "Luis", "content": "語".repeat(2_000) }).to_string();
    let small = format!("{}{small}", head(small.len()));
    eventually("a body that has no room", async || {
        let mut waiting = crowd.send(32, small.as_bytes()).await;
        timeout(Duration::from_secs(1), waiting.read_u8()).await.is_err().then_some(())
    })
    .await;

    // Large answers that nobody takes.
    let page = format!("GET /api/messages?room={ROOM}&limit=200 HTTP/1.1\r\nHost: x\r\n\r\n");
    for n in 0..30 {
        held.push(crowd.send(ADDRESSES.start + n % 10, page.repeat(20).as_bytes()).await);
    }
    eventually("an answer that has no room", async || {
        let (status, _) = crowd.get(&format!("/api/messages?room={ROOM}&limit=200")).await;
        (status == 503).then_some(())
    })
    .await;

    // Who is going to write.
    let (mut writers, mut sockets) = (Vec::new(), Vec::new());
    for n in 0..20 {
        writers.push(crowd.websocket(ADDRESSES.start + n % 10, "/ws").await);
        let mut socket = crowd.websocket(ADDRESSES.start + n % 10, "/socket.io/?EIO=4&transport=websocket").await;
        socket.send(Message::text("40")).await.unwrap();
        sockets.push(socket);
    }

    // Who was away for longer than the log reaches, each since another time, and comes back to read nothing: few replays
    // have room, one is read, and the others wait for their turn in vain.
    let seconds = u32::from_str_radix(&cursors[0][9..17], 16).unwrap();
    let mut back = Vec::new();
    for n in 1..=REPLAYS {
        let cursor = format!("{}-{:08x}00000001-00000000", &cursors[0][..8], seconds - n * REPLAYS_APART_SECS);
        let last = ADDRESSES.start + (n % 10) as u8;
        back.push(crowd.websocket(last, &format!("/ws?room={ROOM}&after={cursor}")).await);
    }
    let (filled, busy) = (r#"corriente_replays_total{outcome="filled"}"#, r#"corriente_replays_total{outcome="busy"}"#);
    eventually("as many replays as have room", async || (metric(filled).await >= 2.0).then_some(())).await;

    // The door itself.
    for n in 0..CONNECTIONS_MAX {
        let mut stream = crowd.connect(ADDRESSES.start + (n % 10) as u8).await;
        let mut answer = [0; 12];
        if timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await.is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 503");
            break;
        }
        held.push(stream);
    }
    let descriptors = program.descriptors();
    assert!(descriptors >= CONNECTIONS_MAX, "the door is not full: {descriptors} descriptors");

    // And MongoDB is slow, and many write much.
    let slow = doc! { "blockConnection": true, "blockTimeMS": 1_500 };
    let turn = world.fail(&["insert"], 20, slow).await;
    let message =
        json!({ "type": "send", "room": "other", "sender": "Ana", "content": "語".repeat(4_000) }).to_string();
    let command = format!("42{}", json!(["message", { "sender": "Ana", "content": "語".repeat(4_000) }]));
    let writing = writers.iter_mut().map(|writer| (writer, &message, 32));
    let writing = writing.chain(sockets.iter_mut().map(|socket| (socket, &command, 64)));
    join_all(writing.map(async |(socket, text, times)| {
        for _ in 0..times {
            if timeout(Duration::from_millis(300), socket.send(Message::text(text))).await.is_err() {
                break;
            }
        }
    }))
    .await;
    let overloaded = r#"corriente_inserts_total{source="websocket",outcome="overloaded"}"#;
    eventually("more waits than there is room for", async || (metric(overloaded).await > 0.0).then_some(())).await;

    let (resident_kib, peak_kib) = (program.resident_kib(), program.resident_peak_kib());
    println!("all limits reached: {resident_kib} KiB resident, {peak_kib} at most, {implied_kib} KiB implied");
    assert!(peak_kib < implied_kib, "{peak_kib} KiB were resident, and the settings imply {implied_kib} at most");
    eventually("a replay that waits for room", async || (metric(busy).await > 0.0).then_some(())).await;
    assert_eq!(metric(filled).await, 2.0, "replays are kept beyond their room");
    let mut refused = Follower { socket: back.pop().expect("the last one") };
    assert_eq!(refused.expect("reset").await["reason"], "too many clients ask for what is long past");

    // Who has behaved was served all the time, and is when it is over.
    world.heal().await;
    drop(turn);
    let until_now = said.load(Ordering::Relaxed);
    assert!(until_now > 20, "{until_now} words were said meanwhile");
    eventually("the chat goes on", async || (said.load(Ordering::Relaxed) > until_now + 10).then_some(())).await;
    stop.send(()).expect("somebody chats");
    let count = healthy.await.expect("somebody who chats fails at nothing");
    println!("{count} words were said and heard meanwhile");
    drop((stuck, held, writers, sockets, back));
}
