//! Health: a process that lives, a server that is of use, and why it is not.

use mongodb::bson::doc;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    faults::World,
    harness::{TestServer, eventually},
};

/// What `/readyz` says, once its status is this.
async fn readiness(world: &World, status: u16) -> Value {
    eventually(&format!("/readyz answers {status}"), async || {
        let (found, text) = world.get(0, "/readyz").await;
        (found == status).then(|| serde_json::from_str(&text).expect("JSON"))
    })
    .await
}

fn reason(body: &Value) -> &str {
    assert_eq!(body["ready"], false, "{body}");
    assert_eq!(body["reasons"].as_array().map(Vec::len), Some(1), "{body}");
    body["reasons"][0].as_str().unwrap()
}

#[tokio::test]
async fn a_server_that_is_of_use_says_so_with_its_place_in_the_stream() {
    let server = TestServer::start().await;
    let alive = server.fetch("/livez").await;
    assert_eq!((alive.status.as_u16(), alive.text.as_str()), (200, "alive\n"));
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["ready"], &body["reasons"]), (&true.into(), &Value::Array(vec![])), "{body}");
    assert_eq!(body["stream"], "live", "{body}");
    assert_eq!(body["mongodb"], "answers", "{body}");
    assert_eq!(body["draining"], false, "{body}");
    let position = body["position"].as_str().unwrap();
    assert_eq!(server.fetch(&format!("/api/messages?since={position}")).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_away_is_a_reason_and_mongodb_still_answers() {
    let world = World::shared().await;
    let turn = world.fail(&["getMore", "aggregate"], 10_000, doc! { "errorCode": 91 }).await;
    let body = readiness(&world, 503).await;
    assert!(reason(&body).contains("change stream is being opened again"), "{body}");
    assert_eq!((&body["stream"], &body["mongodb"]), (&"catching up".into(), &"answers".into()), "{body}");
    assert_eq!(world.get(0, "/livez").await.0, 200, "the process is well");
    world.heal().await;
    drop(turn);
    readiness(&world, 200).await;
    world.stop().await;
}

#[tokio::test]
async fn a_mongodb_that_does_not_answer_is_a_reason_while_the_stream_is_open() {
    let world = World::shared().await;
    let turn = world.fail(&["ping"], 10_000, doc! { "errorCode": 13 }).await;
    let body = readiness(&world, 503).await;
    assert!(reason(&body).starts_with("MongoDB does not answer: "), "{body}");
    assert_eq!((&body["stream"], &body["mongodb"]), (&"live".into(), &"does not answer".into()), "{body}");
    world.heal().await;
    // One that is slow is as good as none.
    drop(turn);
    let turn = world.fail(&["ping"], 10_000, doc! { "blockConnection": true, "blockTimeMS": 3_000 }).await;
    let body = eventually("a slow answer", async || {
        let (_, text) = world.get(0, "/readyz").await;
        text.contains("no answer within").then(|| serde_json::from_str::<Value>(&text).expect("JSON"))
    })
    .await;
    reason(&body);
    world.heal().await;
    drop(turn);
    readiness(&world, 200).await;
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_is_about_to_stop_says_that_it_drains() {
    let server = TestServer::start().await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    // A request that has begun is still answered.
    let mut asking = TcpStream::connect(&address).await.unwrap();
    asking.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // It has reached the server for sure when another one was answered after it.
    assert_eq!(server.get("/livez").await.0, 200);
    let stopping = tokio::spawn(server.stop());
    eventually("nobody is let in any more", async || TcpStream::connect(&address).await.is_err().then_some(())).await;
    asking.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("\"draining\":true") && answer.contains("draining: the server is about to stop"),
        "{answer}"
    );
    stopping.await.unwrap();
}
