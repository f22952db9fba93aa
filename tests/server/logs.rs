//! Log lines: one for each failure, with the request that failed, and some for a storm of them.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use reqwest::{Client, header::HeaderMap};
use serde_json::Value;

use crate::{
    binary::{Program, command},
    faults::World,
    harness::{Follower, FreshDatabase, TestServer},
};

const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The program over this world's database.
fn program(world: &World, settings: &[(&str, &str)]) -> Program {
    let mut command = command();
    command.env("MONGODB_URI", world.uri()).env("DATABASE", world.database.name()).envs(settings.iter().copied());
    Program::start(command)
}

/// Asks for messages under a name. Returns the status and the name that the answer has.
async fn ask(http: &Client, url: &str, id: &str) -> (u16, String) {
    let answer = http.get(format!("{url}/api/messages")).header("x-request-id", id).send().await.unwrap();
    (answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_outage_is_some_lines_and_a_number_however_many_requests_fail() {
    const REQUESTS: usize = 300;
    let world = World::shared_by(0).await;
    let mut program = program(&world, &[("LOG_FORMAT", "json")]);
    let (_, url) = program.ready().await;
    let http = Client::new();
    let turn = world.fail(&["find"], 100_000, doc! { "errorCode": 13 }).await;
    for n in 0..REQUESTS {
        assert_eq!(ask(&http, &url, &format!("probe-{n}")).await, (503, format!("probe-{n}")));
    }
    world.heal().await;
    drop(turn);
    assert_eq!(ask(&http, &url, "after").await.0, 200);
    program.signal("TERM").await;
    let ended = program.ended(STOP_WITHIN).await;
    let lines: Vec<Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let with = |words: &str| {
        let words = words.to_owned();
        lines.iter().filter(move |line| line["message"].as_str().is_some_and(|message| message.contains(&words)))
    };
    let shown: Vec<&Value> = with("a read failed").filter(|line| line["left_out"].is_null()).collect();
    let left_out: u64 =
        with("more lines like this one: a read failed").filter_map(|line| line["left_out"].as_u64()).sum();
    assert_eq!(shown.len() + left_out as usize, REQUESTS, "{}", ended.stderr);
    // Five in ten seconds.
    assert!(shown.len() <= 20, "{} lines", shown.len());
    assert_eq!(shown[0]["level"], "WARN");
    assert_eq!(shown[0]["span"]["id"], "probe-0", "{}", shown[0]);
    assert_eq!(shown[0]["span"]["path"], "/api/messages", "{}", shown[0]);
    assert!(!ended.stderr.contains("after"), "what succeeds is no line: {}", ended.stderr);
    world.stop().await;
}

#[tokio::test]
async fn an_edit_that_breaks_the_contract_is_counted_and_named_like_a_document_that_does() {
    for with_images in ["true", "false"] {
        let database = FreshDatabase::with_collection().await;
        let mut command = command();
        command.env("MONGODB_URI", database.uri()).env("DATABASE", database.name()).env("PRE_IMAGES", with_images);
        let mut program = Program::start(command);
        let (_, url) = program.ready().await;
        let mut follower = Follower::join(&url, "all=true").await;
        follower.expect("ready").await;
        let messages = database.collection::<Document>("messages");
        let date = mongodb::bson::DateTime::now();
        messages.insert_one(doc! { "_id": "pedido\n17", "sender": "Ana", "content": "x", "date": date }).await.unwrap();
        follower.expect("created").await;
        messages.update_one(doc! {}, doc! { "$set": { "sender": " mal " } }).await.unwrap();
        follower.expect("deleted").await;
        let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        let counted = "corriente_invalid_documents_total{reason=\"sender\"} 1";
        assert!(metrics.lines().any(|line| line == counted), "{metrics}");
        program.signal("TERM").await;
        let ended = program.ended(STOP_WITHIN).await;
        let line = r#"skipped a document whose sender breaks the data contract: _id "pedido\n17", its sender is not in normal form"#;
        assert!(ended.stderr.contains(line), "images: {with_images}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_collection_of_other_documents_is_named_when_the_server_starts_and_one_of_messages_is_not() {
    let good = doc! { "content": "hola", "sender": "Ana" };
    let other = doc! { "_id": 7, "text": "hola", "user": "ana" };
    let huge = doc! { "_id": "x".repeat(1 << 20), "content": "hola", "sender": "Ana", "date": DateTime::now() };
    let mut long = huge.clone();
    long.insert("_id", "x".repeat(257));
    for (documents, expected) in [
        (vec![], None),
        (vec![&good], None),
        (vec![&good, &other], Some("first: _id 7, its content is missing")),
        (vec![&good, &long], Some("xxx\"..., its _id has more than 256 bytes")),
        (vec![&good, &huge], Some("its _id can not be read, or has far more than 256 bytes")),
    ] {
        let database = FreshDatabase::with_collection().await;
        if !documents.is_empty() {
            database.collection::<Document>("messages").insert_many(documents).await.unwrap();
        }
        let mut command = command();
        command.env("MONGODB_URI", database.uri()).env("DATABASE", database.name());
        let mut program = Program::start(command);
        program.ready().await;
        program.signal("TERM").await;
        let ended = program.ended(STOP_WITHIN).await;
        let told = ended.stderr.lines().find(|line| line.contains("are no messages"));
        match (told, expected) {
            (None, None) => {}
            (Some(line), Some(expected)) => {
                let namespace = format!("{}.messages", database.name());
                let counted = "1 of the newest 2 documents in ";
                for part in [expected, counted, &namespace, "WARN", "docs/data-contract.md"] {
                    assert!(line.contains(part), "{part} is not in {line}");
                }
            }
            (told, expected) => panic!("{told:?} instead of {expected:?}: {}", ended.stderr),
        }
    }
}

#[tokio::test]
async fn with_debug_every_request_is_a_line_and_what_people_search_for_is_in_none() {
    let world = World::shared_by(0).await;
    let mut program = program(&world, &[("RUST_LOG", "corriente=debug")]);
    let (_, url) = program.ready().await;
    let http = Client::new();
    let answer = http.get(format!("{url}/api/messages?q=sorpresa")).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(http.get(format!("{url}/nowhere")).send().await.unwrap().status(), 404);
    program.signal("TERM").await;
    let ended = program.ended(STOP_WITHIN).await;
    let line = ended.stderr.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("{}", ended.stderr));
    for words in ["request{", "method=\"GET\"", "path=\"/api/messages\"", "answered", "status=200", "millis="] {
        assert!(line.contains(words), "{words} in {line}");
    }
    assert!(ended.stderr.contains("path=\"/nowhere\"") && !ended.stderr.contains("sorpresa"), "{}", ended.stderr);
    world.stop().await;
}

#[tokio::test]
async fn directives_of_the_log_that_are_none_are_an_error() {
    let mut wrong = command();
    wrong.env("RUST_LOG", "corriente=loud");
    let ended = Program::start(wrong).ended(STOP_WITHIN).await;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("corriente=loud") && ended.stderr.contains("RUST_LOG"), "{}", ended.stderr);
}

#[tokio::test]
async fn every_answer_has_an_id_its_own_or_that_of_the_request() {
    let server = TestServer::start().await;
    let id_of = |headers: &HeaderMap| headers["x-request-id"].to_str().unwrap().to_owned();
    let mut made = Vec::new();
    for path in ["/", "/rooms/general", "/nowhere", "/api/messages?limit=0", "/metrics", "/ws"] {
        let answer = server.fetch(path).await;
        made.push(id_of(&answer.headers));
        let request = server.request(reqwest::Method::GET, path).header("x-request-id", "trace-7.B_2");
        assert_eq!(id_of(request.send().await.unwrap().headers()), "trace-7.B_2", "{path}");
    }
    assert!(made.iter().all(|id| id.len() == 16), "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 6, "each has one of its own");
    // What could forge a line of the log is replaced.
    for forged in ["a b", "x\"y", &"x".repeat(65)] {
        let request = server.request(reqwest::Method::GET, "/livez").header("x-request-id", forged);
        let id = id_of(request.send().await.unwrap().headers());
        assert!(id != forged && id.len() == 16, "{id}");
    }
    server.stop().await;
}
