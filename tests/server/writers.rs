//! Every writer is equal: what programs of others write with their own drivers comes to every client as what we write.

use serde_json::{Value, json};

use crate::{
    harness::{Follower, FreshDatabase, TestServer},
    programs::Language,
};

#[tokio::test]
async fn what_pymongo_writes_is_told_to_every_follower_as_what_it_is() {
    let Some(python) = Language::python().await else {
        return;
    };
    let server = TestServer::start().await;
    let mut followers = Followers::of(&server).await;
    let printed = python.run("writer.py", &[server.mongo.uri(), server.database.name()]).await;
    let ids: Value = serde_json::from_str(&printed).expect("ids");
    let id = |name: &str| ids[name].as_str().expect("an id").to_owned();
    // The text form of an `_id` that is the string "five".
    let five = "-s66697665";
    server.say("end", "end").await;

    let one = followers.all.next_event().await;
    assert_eq!(one["message"]["date"], "2026-03-01T12:00:00.123Z");
    assert_eq!(one["topics"], json!([{ "room": "general" }]));
    let all = followers.all.events_until_end().await;
    assert_eq!(
        all,
        [
            created(&id("two"), "two"),
            created(&id("three"), "three"),
            created(&id("four"), "four"),
            updated(&id("one"), "one, edited"),
            updated(&id("two"), "two, replaced"),
            updated(&id("four"), "four"),
            updated(&id("three"), "three"),
            deleted(&id("one")),
            created(five, "five"),
            updated(five, "five, edited"),
            deleted(five),
        ]
        .into_iter()
        .chain(six(&all))
        .collect::<Vec<_>>()
    );
    let general = followers.general.events_until_end().await;
    assert_eq!(
        general,
        [
            created(&id("one"), "one"),
            created(&id("four"), "four"),
            updated(&id("one"), "one, edited"),
            deleted(&id("four")),
            created(&id("three"), "three"),
            deleted(&id("one")),
            created(five, "five"),
            updated(five, "five, edited"),
            deleted(five),
        ]
        .into_iter()
        .chain(six(&all))
        .collect::<Vec<_>>()
    );
    assert_eq!(followers.luis.events_until_end().await, [created(&id("three"), "three"), deleted(&id("three"))]);
    server.stop().await;
}

/// The three messages of the transaction, whose ids the program does not print.
fn six(events: &[String]) -> Vec<String> {
    let last = &events[events.len() - 3..];
    for (n, event) in last.iter().enumerate() {
        assert!(event.starts_with("created ") && event.ends_with(&format!(" six {n}")), "{events:#?}");
    }
    last.to_vec()
}

#[tokio::test]
async fn what_mongoose_writes_is_told_to_every_follower_as_what_it_is() {
    let server = TestServer::start().await;
    mongoose_story(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_collection_that_mongoose_made_before_us_works_as_well() {
    let Some(node) = Language::node().await else {
        return;
    };
    // Without our server the program makes the collection, as it is used to.
    let database = FreshDatabase::new().await;
    node.run("writer.cjs", &[database.uri(), database.name()]).await;
    let server = TestServer::start_on(database.name(), &["--pre-images"]).await;
    mongoose_story(&server).await;
    server.stop().await;
}

async fn mongoose_story(server: &TestServer) {
    let Some(node) = Language::node().await else {
        return;
    };
    let mut followers = Followers::of(server).await;
    let printed = node.run("writer.cjs", &[server.mongo.uri(), server.database.name()]).await;
    let wrote: Value = serde_json::from_str(&printed).expect("ids and dates");
    let id = |name: &str| wrote[name]["id"].as_str().expect("an id").to_owned();
    server.say("end", "end").await;

    let one = followers.all.next_event().await;
    let expected = json!({
        "id": id("one"), "content": "one", "sender": "Ana", "room": "general", "date": wrote["one"]["date"],
    });
    assert_eq!((&one["type"], &one["message"]), (&json!("created"), &expected));
    assert_eq!(
        followers.all.events_until_end().await,
        [
            created(&id("two"), "two"),
            created(&id("three"), "three"),
            updated(&id("one"), "one, saved"),
            updated(&id("three"), "three, edited"),
            updated(&id("two"), "two, replaced"),
            updated(&id("two"), "two, replaced"),
            updated(&id("three"), "three, edited"),
            deleted(&id("one")),
            deleted(&id("two")),
            deleted(&id("three")),
        ]
    );
    assert_eq!(
        followers.general.events_until_end().await,
        [
            created(&id("one"), "one"),
            created(&id("three"), "three"),
            updated(&id("one"), "one, saved"),
            updated(&id("three"), "three, edited"),
            created(&id("two"), "two, replaced"),
            deleted(&id("three")),
            deleted(&id("one")),
            deleted(&id("two")),
        ]
    );
    assert_eq!(
        followers.luis.events_until_end().await,
        [
            created(&id("two"), "two"),
            updated(&id("two"), "two, replaced"),
            deleted(&id("two")),
            created(&id("three"), "three, edited"),
            deleted(&id("three")),
        ]
    );
}

/// Three views of what one program writes.
struct Followers {
    all: Follower,
    general: Follower,
    luis: Follower,
}

impl Followers {
    async fn of(server: &TestServer) -> Self {
        Self {
            all: server.follow("all=true").await,
            general: server.follow("room=general&room=end").await,
            luis: server.follow("inbox=Luis&room=end").await,
        }
    }
}

impl Follower {
    async fn next_event(&mut self) -> Value {
        loop {
            let frame = self.next().await.expect("the socket stays open");
            if frame["type"] != "position" {
                return frame;
            }
        }
    }

    /// What came before the message in the room `end`, one line each.
    async fn events_until_end(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let frame = self.next_event().await;
            if frame["message"]["room"] == "end" {
                return events;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (id, message) = (text(&frame["id"]), &frame["message"]);
            events.push(match frame["type"].as_str() {
                Some("created") => created(&text(&message["id"]), &text(&message["content"])),
                Some("updated") => updated(&text(&message["id"]), &text(&message["content"])),
                Some("deleted") => deleted(&id),
                _ => frame.to_string(),
            });
        }
    }
}

fn created(id: &str, content: &str) -> String {
    format!("created {id} {content}")
}

fn updated(id: &str, content: &str) -> String {
    format!("updated {id} {content}")
}

fn deleted(id: &str) -> String {
    format!("deleted {id}")
}
