//! Clients that stop to read in the worst moment.

use mongodb::bson::doc;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::world::{World, cursor};
use crate::harness::eventually;

const FILLED: &str = "corriente_replays_total";

/// Opens a WebSocket, sends far more than it will ever read the answers to, and stops. It is open until it is dropped.
async fn talk_without_reading(url: &str, query: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let address = url.trim_start_matches("http://");
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let handshake = format!(
        "GET /ws?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let stream = stream.into_std().unwrap();
    let mut writing = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    tokio::spawn(async move {
        // Each is answered with an error. The server stops to read when it can not write.
        let frame = b"\x81\x82\0\0\0\0{}";
        let _ = writing.write_all(&[handshake.as_bytes(), &frame.repeat(60_000)].concat()).await;
    });
    TcpStream::from_std(stream).unwrap()
}

#[tokio::test]
async fn who_asks_for_the_past_and_stops_to_read_holds_up_nobody_else() {
    let world = World::shared_with(1, &["--log-entries-max", "3", "--replays-max", "1"]).await;
    let mut follower = world.follow(0, "room=a").await;
    world.say("seen").await;
    let left_at = cursor(&follower.expect("created").await);
    for n in 0..10 {
        world.say(&format!("missed {n}")).await;
    }
    // By the time that MongoDB answers, the client has long been stuck.
    let slow = doc! { "blockConnection": true, "blockTimeMS": 4_000 };
    let turn = world.fail(&["aggregate"], 1, slow).await;
    let stuck = talk_without_reading(&world.urls[0], &format!("room=a&after={left_at}")).await;
    eventually("its replay is made", async || (world.metric(FILLED).await == 1).then_some(())).await;
    world.heal().await;
    drop(turn);
    // One that begins earlier, and so can not be shared, has its turn.
    let seconds = u32::from_str_radix(&left_at[9..17], 16).unwrap() - 120;
    let earlier = format!("{}-{seconds:08x}00000001-00000000", &left_at[..8]);
    let mut back = world.join(0, &format!("room=a&after={earlier}")).await;
    assert_eq!(back.expect_contents(11).await[0], "seen");
    assert_eq!(world.metric(FILLED).await, 2);
    drop(stuck);
    world.stop().await;
}
