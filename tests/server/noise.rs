//! Noise over the sockets of a running server: packets that are nearly right, and such that are not at all. Whoever sends
//! them may lose the connection, and nobody else notices. `NOISE_PACKETS` says how many (1,000), for long runs.

use futures::SinkExt;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{harness::TestServer, socket_io::Client};

/// Packets of Engine.IO and Socket.IO, and frames of our own protocol.
const SEEDS: [&str; 14] = [
    r#"42["subscribe",{"room":"dev"}]"#,
    r#"421["message",{"content":"x","sender":"Ana","room":"noise"}]"#,
    r#"42["unsubscribe",{"all":true}]"#,
    r#"40{"after":"00000001-0000000200000003-00000000"}"#,
    r#"451-["message",{"_placeholder":true,"num":0}]"#,
    r#"40/custom,{}"#,
    "41",
    "43999[{}]",
    "3",
    "2probe",
    r#"{"type":"send","content":"x","sender":"Ana","room":"noise"}"#,
    r#"{"type":"subscribe","room":"dev"}"#,
    r#"{"type":"unsubscribe","inbox":"Ana"}"#,
    "",
];
/// What is put where something else stood.
const SCRAPS: [&str; 12] = ["{", "}", "[", "\"", "\\u0000", "null", "-1", "1e999", "ñ", "\u{0}", "42", "{\"a\":"];

fn packets() -> usize {
    std::env::var("NOISE_PACKETS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

/// A seed with a few faults.
fn noise(rng: &mut StdRng) -> Message {
    let mut text: Vec<char> = SEEDS.choose(rng).expect("a seed").chars().collect();
    for _ in 0..rng.random_range(0..5) {
        let at = rng.random_range(0..=text.len());
        match rng.random_range(0..3) {
            0 => drop(text.splice(at..at, SCRAPS.choose(rng).expect("a scrap").chars())),
            1 => drop(text.splice(at..(at + 4).min(text.len()), [])),
            _ => drop(text.splice(at..(at + 1).min(text.len()), [char::from(rng.random::<u8>())])),
        }
    }
    let text: String = text.into_iter().collect();
    if rng.random_ratio(1, 10) { Message::binary(text.into_bytes()) } else { Message::text(text) }
}

#[tokio::test]
async fn noise_over_sockets_costs_its_sender_the_connection_at_most() {
    let server = TestServer::start().await;
    let seed = rand::random();
    eprintln!("the seed is {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut follower = server.follow("room=general").await;
    let (mut over_socket_io, mut over_websocket) = (None, None);
    for _ in 0..packets() {
        let client = match over_socket_io.take() {
            Some(client) => client,
            None => Client::connect(&server, json!({})).await,
        };
        over_socket_io = client.make(noise(&mut rng)).await;
        let mut socket = match over_websocket.take() {
            Some(socket) => socket,
            None => server.join("room=noise").await.socket,
        };
        over_websocket = socket.send(noise(&mut rng)).await.ok().map(|()| socket);
    }
    // Those who were here before, and those who come now, are served.
    server.say("general", "still here").await;
    follower.expect_next_content("still here").await;
    let mut client = Client::connect(&server, json!({})).await;
    let (answer, _) = client.ask("message", json!({ "content": "too", "sender": "Ana" })).await;
    assert_eq!(answer["message"]["content"], "too", "{answer}");
    follower.expect_next_content("too").await;
    server.stop().await;
}
