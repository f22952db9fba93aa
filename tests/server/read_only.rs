//! A server that writes nothing.

use mongodb::bson::doc;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    binary::{Program, command},
    harness::{Answer, Follower, TestServer, eventually},
    mongod::Mongod,
};

#[tokio::test]
async fn a_user_of_mongodb_who_may_only_read_is_enough_and_nothing_is_written() {
    let mongod = Mongod::with_users().await;
    let corriente = mongod.root().await.client().database("corriente");
    let messages = corriente.collection("messages");
    messages.insert_one(doc! { "content": "before", "sender": "Ana" }).await.unwrap();

    let mut command = command();
    command.env("MONGODB_URI", mongod.uri_of("reader")).env("READ_ONLY", "true");
    let mut program = Program::start(command);
    let (_, url) = program.ready().await;
    let http = reqwest::Client::new();
    let page = Answer::to(http.get(format!("{url}/api/messages?room=general"))).await;
    assert_eq!(page.json()["messages"][0]["content"], "before");
    let cursor = page.json()["cursor"].as_str().unwrap().to_owned();
    let mut follower = Follower::join(&url, &format!("room=general&after={cursor}")).await;
    messages.insert_one(doc! { "content": "live", "sender": "Ana" }).await.unwrap();
    messages.update_one(doc! { "content": "live" }, doc! { "$set": { "content": "edited" } }).await.unwrap();
    messages.delete_one(doc! { "content": "edited" }).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        let kind = follower.next().await.expect("the socket stays open")["type"].as_str().unwrap().to_owned();
        if !["ready", "position"].contains(&kind.as_str()) {
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, ["created", "updated", "deleted"]);

    // It counts who is here, and tells no other server.
    let count = Answer::to(http.get(format!("{url}/api/presence?room=general"))).await;
    assert_eq!(count.json()["rooms"][0]["here"], 1);
    // Longer than a server takes to write its counts.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(corriente.list_collection_names().await.unwrap(), ["messages"]);
    assert_eq!(messages.list_index_names().await.unwrap(), ["_id_"], "no index was built");
    program.signal("TERM").await;
    let ended = program.ended(std::time::Duration::from_secs(10)).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("5 of the indexes of corriente.messages are missing"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("not authorized"), "{}", ended.stderr);
}

#[tokio::test]
async fn it_refuses_messages_over_every_transport_and_says_why() {
    let server = TestServer::start_with(&["--read-only"]).await;
    let refused = server.send(json!({ "sender": "Ana", "content": "hola" })).await;
    let problem = refused.expect_problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("reading only"), "{problem}");

    let mut follower = server.follow("room=general").await;
    follower
        .send(json!({ "type": "send", "id": "6745b2c3d4e5f60718293a4b", "sender": "Ana", "content": "hola" }))
        .await;
    let error = follower.expect("error").await;
    assert_eq!((&error["problem"]["status"], &error["id"]), (&json!(403), &json!("6745b2c3d4e5f60718293a4b")));

    let form = [("content", "hola"), ("sender", "Ana")];
    for place in ["/rooms/general", "/inbox/Ana"] {
        let answer = Answer::to(server.request(Method::POST, place).form(&form)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.text.contains("for reading only"), "{}", answer.text);
    }
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 0);
    assert_eq!(server.database.list_collection_names().await.unwrap(), [""; 0], "not even the collection is made");

    // And what others write still comes, to a collection that was made after it started.
    server.messages().insert_one(doc! { "content": "from elsewhere", "sender": "Ana" }).await.unwrap();
    eventually("it is in the history", async || {
        let (_, page) = server.get("/api/messages").await;
        (page["messages"][0]["content"] == "from elsewhere").then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn its_pages_have_no_form_and_say_so_in_both_languages() {
    let server = TestServer::start_with(&["--read-only"]).await;
    server.messages().insert_one(doc! { "content": "hola", "sender": "Ana" }).await.unwrap();
    for (language, words) in [("en", "This chat is for reading only"), ("es", "Este chat es solo para leer")] {
        for path in ["/rooms/general", "/rooms/empty", "/inbox/Ana", "/rooms/general?refresh=on"] {
            let page = Answer::to(server.request(Method::GET, path).header("Accept-Language", language)).await;
            assert!(page.text.contains(words), "{path}: {}", page.text);
            assert!(
                !page.text.contains("method=\"post\"") && !page.text.contains("<textarea"),
                "{path}: {}",
                page.text
            );
            assert!(!page.text.contains("#content"), "{path} leads to the form: {}", page.text);
        }
    }
    server.stop().await;
}
