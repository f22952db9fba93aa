//! What happens elsewhere shows beside the chat: in other rooms, in the inbox, in rooms that are new.

use mongodb::bson::{DateTime, doc};
use serde_json::json;

use crate::{
    chromium::{Person, Window, with_chromium},
    harness::TestServer,
};

/// The list of places as shown: each name with its count, if it has one.
async fn places(person: &Person) -> Vec<String> {
    let script = "return [...document.querySelectorAll('.place')].filter(place => place.offsetParent).map(place =>
        [...place.querySelectorAll('span')].filter(part => !part.hidden).map(part => part.textContent).join(' '))";
    person.ask(script).await
}

#[tokio::test]
async fn what_is_unread_elsewhere_is_counted_until_it_is_read() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        server.say("dev", "old").await;
        server.say("general", "old").await;
        chromium
            .window(Window::default(), async |ana| {
                let room = |name: &str| format!("{}/rooms/{name}", server.url);
                ana.open_live(&room("general")).await;
                ana.fill("sender", "Ana").await;
                ana.wait("nothing is unread", async || places(&ana).await == ["Direct messages", "general", "dev"])
                    .await;
                // A direct message shows on every page of the one it is for.
                let direct = json!({ "sender": "Luis", "recipient": "Ana", "content": "psst" });
                assert_eq!(server.post(direct).await.0, 201);
                let to_room = json!({ "sender": "Luis", "room": "dev", "content": "¿@ana?" });
                assert_eq!(server.post(to_room.clone()).await.0, 201);
                assert_eq!(server.post(to_room).await.0, 201);
                let news = ["Direct messages 1", "dev 2", "general"];
                ana.wait("both are counted", async || places(&ana).await == news).await;
                assert!(ana.driver.title().await.unwrap().starts_with("(1) general"));
                // A room that nobody could follow shows when the list is asked for again, as on coming back to the tab.
                let date = DateTime::now();
                let first = doc! { "content": "first", "sender": "robot", "room": "brand new", "date": date };
                server.messages().insert_one(first).await.unwrap();
                ana.wait("the new room is there", async || {
                    let script = "document.dispatchEvent(new Event('visibilitychange'))";
                    ana.driver.execute(script, Vec::new()).await.unwrap();
                    places(&ana).await.contains(&"brand new 1".into())
                })
                .await;
                ana.picture("unread").await;
                // Counts outlive the page, and end by reading.
                ana.open_live(&room("dev")).await;
                ana.wait("dev is read", async || places(&ana).await.contains(&"dev".into())).await;
                ana.wait("the rest is not", async || {
                    let places = places(&ana).await;
                    ["Direct messages 1", "brand new 1"].iter().all(|name| places.contains(&(*name).into()))
                })
                .await;
                assert!(!ana.text_of(".unread-from").await.is_empty());
                assert_eq!(ana.ask::<u32>("return document.querySelectorAll('.mentioned').length").await, 2);
                ana.click("#own-inbox a").await;
                ana.wait("the inbox opens", async || ana.connection().await == "Live").await;
                ana.wait_for_messages(&["psst"]).await;
                // It answers whom it heard from last.
                let to = ana.field("recipient").await.prop("value").await.unwrap();
                assert_eq!(to.as_deref(), Some("Luis"));
                ana.open_live(&room("general")).await;
                ana.wait("the inbox is read", async || places(&ana).await.contains(&"Direct messages".into())).await;
                assert!(ana.driver.title().await.unwrap().starts_with("general"));
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_said_after_a_direct_message_is_for_the_room_again() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("recipient", "Luis").await;
                ana.say("Ana", "only you").await;
                ana.wait("it is said where it went", async || ana.text_of("#note").await.contains("Sent to Luis"))
                    .await;
                ana.say("Ana", "all of you").await;
                ana.wait_for_messages(&["all of you"]).await;
                let direct = server.messages().count_documents(doc! { "recipient": "Luis" }).await.unwrap();
                assert_eq!(direct, 1);
            })
            .await;
        server.stop().await;
    })
    .await;
}
