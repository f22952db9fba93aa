//! Programs that others wrote, over Socket.IO: their clients, and a chat that comes from one of their servers.

use mongodb::bson::doc;
use serde_json::{Value, json};

use super::{insert, numbers};
use crate::{
    harness::{FreshDatabase, TestServer},
    programs::Language,
    relay::Relay,
};

/// Lets a program follow `general` over a network that breaks, while somebody writes: nothing is lost or repeated.
async fn program_over_a_bad_line(program: &str, language: &Language, transports: Option<&str>) {
    const CUTS: usize = 2;
    let server = TestServer::start().await;
    let (_, page) = server.get("/api/messages?room=general").await;
    // With polling, a connection carries one answer only.
    let after_bytes = if transports == Some("polling") { 2_000 } else { 20_000 };
    let relay = Relay::to(&server.url, CUTS, after_bytes).await;
    let contents = numbers(0..400);
    let writing = async {
        for part in contents.chunks(20) {
            insert(&server, "general", part).await;
        }
        server.say("general", "end").await;
    };
    let cursor = page["cursor"].as_str().unwrap();
    let args: Vec<&str> = [Some(relay.url.as_str()), transports, Some(cursor)].into_iter().flatten().collect();
    let (printed, ()) = tokio::join!(language.run(program, &args), writing);
    let seen: Vec<String> = serde_json::from_str(&printed).expect("a list");
    assert_eq!(seen, contents);
    assert_eq!(relay.cut(), CUTS, "{transports:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_official_client_goes_on_where_its_connection_broke_over_each_transport() {
    if let Some(node) = Language::node().await {
        for transports in ["websocket", "polling", "polling,websocket"] {
            program_over_a_bad_line("chat.cjs", &node, Some(transports)).await;
        }
    }
}

#[tokio::test]
async fn python_socketio_goes_on_where_its_connection_broke() {
    if let Some(python) = Language::python().await {
        program_over_a_bad_line("chat.py", &python, None).await;
    }
}

#[tokio::test]
async fn the_page_about_migrating_is_code_that_runs() {
    let Some(node) = Language::node().await else {
        return;
    };
    // A collection that Mongoose made, with a message in it.
    let fresh = FreshDatabase::with_collection().await;
    let old = doc! { "content": "before", "sender": "Nora", "date": mongodb::bson::DateTime::now(), "__v": 0 };
    fresh.collection("messages").insert_one(old).await.unwrap();
    let server = TestServer::start_on(fresh.name(), &["--pre-images"]).await;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migrating-from-socket-io.md");
    let printed = node.run("migrated.cjs", &[page, &server.url, fresh.uri(), fresh.name()]).await;
    let story: Value = serde_json::from_str(&printed).expect("a story");
    let mut seen: Vec<&str> = story["seen"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    // The complaint comes before the first message or after it.
    let complaint = seen.iter().position(|line| line.starts_with("! content")).expect("a complaint");
    seen.remove(complaint);
    let written = ["from the old server", "from the old server, edited", "soon gone", "- soon gone"];
    assert_eq!(seen, ["before", "from the page"].into_iter().chain(written).collect::<Vec<_>>());
    assert_eq!(story["shown"], json!(["before", "from the page", "from the old server, edited"]));
    server.stop().await;
}
