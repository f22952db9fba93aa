//! Clients of which nothing is heard: gone without a goodbye, or merely idle.

use std::time::Duration;

use futures::StreamExt;
use mongodb::bson::doc;
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::world::{World, cursor};
use crate::harness::{Follower, eventually};

/// How long a client that vanished may be kept, in seconds: this is promised.
const SILENCE_SECS_MAX: u64 = 60;
/// What a busy machine may take on top of it to notice, and what the goodbye may take, in seconds.
const SLACK_SECS: u64 = 12;
/// Where the idle client's position comes with the keep-alive, in seconds, and some more.
const POSITION_SECS_MAX: u64 = 45;

/// A way to a server that can stop to carry anything in either direction, without anybody being told: what a client
/// looks like whose machine lost its power.
struct Line {
    url: String,
    vanish: CancellationToken,
    // Both ends of all connections stay open until it is dropped.
    _connections: JoinSet<()>,
}

impl Line {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = server.trim_start_matches("http://").to_owned();
        let vanish = CancellationToken::new();
        let vanished = vanish.clone();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server).await.expect("the server accepts");
                let vanished = vanished.clone();
                carried.spawn(async move {
                    if vanished.run_until_cancelled(copy_bidirectional(&mut client, &mut server)).await.is_none() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { url, vanish, _connections: connections }
    }
}

/// Reads until `position` comes, and answers pings on the way.
async fn next_position(follower: &mut Follower) -> String {
    let next_text = async {
        loop {
            match follower.socket.next().await {
                Some(Ok(message)) if message.is_text() => break message.into_text().expect("text").to_string(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let frame = timeout(Duration::from_secs(POSITION_SECS_MAX), next_text).await.expect("a position");
    let frame: Value = serde_json::from_str(&frame).expect("a frame of JSON");
    assert_eq!(frame["type"], "position", "{frame} is not for an idle client");
    cursor(&frame)
}

// One test, because each of its parts takes as long as the server's patience.
#[tokio::test]
async fn who_vanished_is_let_go_within_a_minute_and_who_is_idle_stays_and_is_told_its_position() {
    let mut world = World::shared_by(0).await;
    let program = world.start_program().await;
    let mut idle = world.join(0, "room=quiet").await;
    let ready = cursor(&idle.expect("ready").await);
    let descriptors_before = program.descriptors();

    let line = Line::to(&program.url).await;
    let mut vanished = Vec::new();
    for query in ["room=a", "room=a", "room=b", "all=true", ""] {
        let mut follower = Follower::join(&line.url, query).await;
        follower.expect("ready").await;
        vanished.push(follower);
    }
    assert_eq!(world.metric("corriente_connections").await, 6);
    line.vanish.cancel();
    let vanished_at = Instant::now();

    let everybody_else_goes = async {
        let mut seconds = 0;
        while world.metric("corriente_connections").await > 1 {
            // To some of them there is something to tell meanwhile, which the kernel takes.
            world.say(&format!("second {seconds}")).await;
            seconds += 1;
            sleep(Duration::from_secs(1)).await;
            let silence = vanished_at.elapsed();
            assert!(silence < Duration::from_secs(SILENCE_SECS_MAX + SLACK_SECS), "still kept after {silence:?}");
        }
    };
    let idle_stays = async {
        let mut position = ready.clone();
        for _ in 0..2 {
            let next = next_position(&mut idle).await;
            assert!(next[9..25] > position[9..25], "{next} after {position}");
            position = next;
        }
        position
    };
    let ((), position) = tokio::join!(everybody_else_goes, idle_stays);
    assert_eq!(world.metric("corriente_connections").await, 1, "the idle one is kept");
    eventually("the descriptors return", async || {
        // Those of our own requests come and go.
        (program.descriptors() <= descriptors_before + 3).then_some(())
    })
    .await;
    drop(vanished);

    // The place that it was told is one to come back with.
    drop(idle);
    let document = doc! { "content": "at last", "sender": "Ana", "room": "quiet" };
    world.messages().insert_one(document).await.unwrap();
    let mut back = world.join(0, &format!("room=quiet&after={position}")).await;
    assert_eq!(back.expect_contents(1).await, ["at last"]);
}
