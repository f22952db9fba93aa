//! HTTP/2, where one connection carries many streams and a client says how much of each it will take: event streams that
//! nobody reads.

use std::time::Duration;

use h2::{
    RecvStream,
    client::{self, SendRequest},
};
use mongodb::bson::doc;
use poem::http::Request;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    faults::World,
    harness::{Follower, PATIENCE_SECS, TestServer, eventually},
};

/// One connection. It is driven by a task of its own, so that pings are answered and windows kept.
struct Connection {
    requests: SendRequest<bytes::Bytes>,
    driving: JoinHandle<()>,
    url: String,
}

impl Connection {
    async fn to(url: &str) -> Self {
        let socket = TcpStream::connect(url.trim_start_matches("http://")).await.expect("the server listens");
        let (requests, connection) = client::handshake(socket).await.expect("HTTP/2 without TLS");
        let driving = tokio::spawn(async move {
            // However it ends, its streams tell.
            let _ = connection.await;
        });
        Self { requests, driving, url: url.to_owned() }
    }

    /// Opens an event stream, and reads nothing of it but its head.
    async fn follow(&mut self, query: &str) -> RecvStream {
        let opening = async {
            let request = Request::get(format!("{}/api/events?{query}", self.url)).body(()).expect("a request");
            let mut ready = self.requests.clone().ready().await.expect("a stream is free");
            let (response, _) = ready.send_request(request, true).expect("it is sent");
            let response = response.await.expect("an answer");
            assert_eq!(response.status(), 200);
            response.into_body()
        };
        timeout(Duration::from_secs(PATIENCE_SECS), opening).await.expect("a head within the deadline")
    }
}

fn contents(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n} {}", "x".repeat(3_900))).collect()
}

#[tokio::test]
async fn streams_that_are_never_read_cost_little_memory_however_much_there_is_to_tell() {
    const STREAMS: usize = 80;
    const MESSAGES: usize = 5_000;
    let mut world = World::shared_with(0, &["--log-bytes-max", "4194304"]).await;
    let program = world.start_program().await;
    let mut connection = Connection::to(&program.url).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(connection.follow("room=a").await);
    }
    let mut quick = Follower::join(&program.url, "room=a").await;
    quick.expect("ready").await;
    let before = program.resident_kib();
    for part in contents(MESSAGES).chunks(250) {
        let documents = part.iter().map(|content| doc! { "content": content, "sender": "Ana", "room": "a" });
        world.messages().insert_many(documents).await.unwrap();
        assert_eq!(quick.expect_contents(250).await, part);
    }
    // 20 MB for each of the streams would be 1.6 GB, and a megabyte for each too much as well.
    let grown = program.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {STREAMS} streams that are not read");
    assert_eq!(world.metric("corriente_connections").await, STREAMS as u64 + 1, "they are kept, as their client lives");
    drop((streams, connection.requests));
    connection.driving.abort();
    eventually("they are let go with their connection", async || {
        (world.metric("corriente_connections").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_of_which_no_byte_moves_is_closed_with_all_of_its_streams() {
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut connection = Connection::to(&server.url).await;
    let _one = connection.follow("room=general").await;
    let _other = connection.follow("all=true").await;
    // From here on nobody is at its other end.
    connection.driving.abort();
    for content in contents(200) {
        server.say("general", &content).await;
    }
    eventually("it is let go", async || {
        let open = server.metric("corriente_connections{transport=\"sse\"}").await;
        sleep(Duration::from_millis(50)).await;
        (open == 0).then_some(())
    })
    .await;
    server.stop().await;
}
