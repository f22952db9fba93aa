//! What happened after a cursor, as one answer.

use std::time::{Duration, Instant};

use mongodb::bson::doc;
use serde_json::{Value, json};

use crate::harness::{TestServer, eventually};

/// Asks once.
async fn ask(server: &TestServer, query: &str) -> (Vec<Value>, String) {
    let answer = server.fetch(&format!("/api/changes?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    (body["changes"].as_array().unwrap().clone(), body["cursor"].as_str().unwrap().to_owned())
}

fn contents(changes: &[Value]) -> Vec<&str> {
    changes.iter().map(|change| change["message"]["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_script_that_asks_again_and_again_sees_every_change_once() {
    let server = TestServer::start().await;
    server.say("general", "before").await;
    let (changes, mut cursor) = ask(&server, "room=general").await;
    assert_eq!(changes, [] as [Value; 0], "without a cursor it only says where the stream is");
    // What was acknowledged a moment ago may be still on its way.
    let from_now = server.say("general", "now").await;
    let mut seen = Vec::new();
    for n in 0..50 {
        server.say("general", &n.to_string()).await;
        server.say("elsewhere", "not mine").await;
        if n % 7 == 0 {
            let (changes, next) = ask(&server, &format!("room=general&after={cursor}")).await;
            (seen, cursor) = ([seen, changes].concat(), next);
        }
    }
    server.messages().update_one(doc! { "content": "49" }, doc! { "$set": { "content": "edited" } }).await.unwrap();
    server.messages().delete_one(doc! { "content": "edited" }).await.unwrap();
    eventually("the last change", async || {
        let (changes, next) = ask(&server, &format!("room=general&after={cursor}&wait=1")).await;
        seen.extend(changes);
        cursor = next;
        (seen.last()?["type"] == "deleted").then_some(())
    })
    .await;
    let at = seen.iter().position(|change| change["message"]["id"] == from_now["id"]).expect("the first one");
    let (created, rest) = seen[at + 1..].split_at(50);
    assert_eq!(contents(created), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(created.iter().all(|change| change["type"] == "created"));
    assert_eq!(rest.iter().map(|change| change["type"].as_str().unwrap()).collect::<Vec<_>>(), ["updated", "deleted"]);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_is_answered_by_the_next_change_or_when_its_time_is_up() {
    let server = TestServer::start().await;
    let (_, cursor) = ask(&server, "all=true").await;
    let began = Instant::now();
    let (changes, same) = ask(&server, &format!("all=true&after={cursor}&wait=1")).await;
    assert_eq!(changes, [] as [Value; 0]);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let (query, began) = (format!("all=true&after={same}&wait=20"), Instant::now());
    let waiting = ask(&server, &query);
    let writing = async {
        let is_counted =
            async || (server.metric("corriente_connections{transport=\"long-poll\"}").await == 1).then_some(());
        eventually("somebody waits", is_counted).await;
        server.say("dev", "hola").await
    };
    let ((changes, _), _) = tokio::join!(waiting, writing);
    assert_eq!(contents(&changes), ["hola"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    server.fetch("/api/changes?all=true&wait=31").await.expect_problem(422, "invalid-field");
    server.fetch("/api/changes?all=true&wait=-1").await.expect_problem(422, "invalid-field");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_when_the_server_stops_is_answered_at_once() {
    let server = TestServer::start().await;
    let (_, cursor) = ask(&server, "all=true").await;
    let url = format!("{}/api/changes?all=true&wait=30&after={cursor}", server.url);
    let waiting = tokio::spawn(async move { reqwest::get(url).await.unwrap().json::<Value>().await.unwrap() });
    let is_counted =
        async || (server.metric("corriente_connections{transport=\"long-poll\"}").await == 1).then_some(());
    eventually("somebody waits", is_counted).await;
    let began = Instant::now();
    server.stop().await;
    assert_eq!(waiting.await.unwrap()["changes"], json!([]));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_can_not_be_told_is_a_reset_among_the_changes() {
    let server = TestServer::start().await;
    for garbage in ["garbage", "%00", &"0".repeat(10_000)] {
        let (changes, cursor) = ask(&server, &format!("room=general&after={garbage}")).await;
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!((&changes[0]["type"], &changes[0]["cursor"]), (&json!("reset"), &json!(cursor)));
        let (changes, _) = ask(&server, &format!("room=general&after={cursor}")).await;
        assert_eq!(changes, [] as [Value; 0], "it goes on behind the reset");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_answer_is_bounded_and_the_next_goes_on_behind_it_also_out_of_the_oplog() {
    const COUNT: usize = 12_000;
    let server = TestServer::start().await;
    let forgetful = TestServer::start_on(server.database.name(), &["--log-entries-max", "100"]).await;
    let (_, began) = ask(&server, "room=general").await;
    let documents = (0..COUNT).map(|n| doc! { "content": n.to_string(), "sender": "Ana", "room": "general" });
    server.messages().insert_many(documents).await.unwrap();
    for server in [&server, &forgetful] {
        let (mut seen, mut cursor, mut sizes) = (Vec::new(), began.clone(), Vec::new());
        eventually("all of them", async || {
            let (changes, next) = ask(server, &format!("room=general&after={cursor}")).await;
            seen.extend(contents(&changes).into_iter().map(str::to_owned));
            sizes.push(changes.len());
            cursor = next;
            (seen.len() >= COUNT).then_some(())
        })
        .await;
        assert_eq!(seen, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(sizes.iter().all(|size| *size <= 10_000), "{sizes:?}");
    }
    // From the start again, when there is nothing more to wait for.
    let (changes, _) = ask(&server, &format!("room=general&after={began}")).await;
    assert_eq!(changes.len(), 10_000);
    forgetful.stop().await;
    server.stop().await;
}
