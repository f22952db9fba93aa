//! What happens elsewhere shows beside the chat: in other rooms, in the inbox, in rooms that are new.

use mongodb::bson::{DateTime, doc};
use serde_json::json;
use thirtyfour::prelude::*;

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

#[tokio::test]
async fn a_page_follows_no_more_than_the_server_lets_it_and_the_newest_rooms() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--topics-max", "4"]).await;
        for (n, room) in ["oldest", "older", "old", "new", "newest"].into_iter().enumerate() {
            let date = DateTime::from_millis(1_700_000_000_000 + 1_000 * n as i64);
            let first = doc! { "content": "first", "sender": "robot", "room": room, "date": date };
            server.messages().insert_one(first).await.unwrap();
        }
        chromium
            .window(Window::default(), async |ana| {
                let room = format!("{}/rooms/oldest", server.url);
                ana.open_live(&room).await;
                ana.fill("sender", "Ana").await;
                // Now with her inbox from the beginning.
                ana.open_live(&room).await;
                let direct = json!({ "sender": "Luis", "recipient": "Ana", "content": "psst" });
                assert_eq!(server.post(direct).await.0, 201);
                for room in ["new", "newest", "oldest"] {
                    let live = json!({ "sender": "Luis", "room": room, "content": "live" });
                    assert_eq!(server.post(live).await.0, 201);
                }
                ana.wait_for_messages(&["first", "live"]).await;
                ana.wait("the newest are followed", async || {
                    let places = places(&ana).await;
                    ["Direct messages 1", "newest 1", "new 1"].iter().all(|name| places.contains(&(*name).into()))
                })
                .await;
                // The others are listed, and none of them was refused.
                assert_eq!(places(&ana).await.len(), 7);
                assert_eq!(ana.text_of("#note").await, "");
            })
            .await;
        server.stop().await;
    })
    .await;
}

/// How many are here, as the page says when it asks again.
async fn here(person: &Person) -> String {
    let ask_again = "document.dispatchEvent(new Event('visibilitychange'))";
    person.driver.execute(ask_again, Vec::new()).await.unwrap();
    person.text_of("#here").await
}

#[tokio::test]
async fn who_is_here_is_who_looks_at_the_room_and_not_who_left_it_or_only_follows_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        server.say("dev", "old").await;
        server.say("general", "old").await;
        let room = |name: &str| format!("{}/rooms/{name}", server.url);
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&room("general")).await;
                ana.wait("she is alone", async || here(&ana).await == "1 here").await;
                chromium
                    .window(Window { spanish: true, ..Window::default() }, async |luis| {
                        luis.open(&room("general")).await;
                        ana.wait("they are two", async || here(&ana).await == "2 here").await;
                        luis.wait("he sees it too", async || here(&luis).await == "2 aquí").await;
                        // The page that he leaves stays in his browser, for the way back; and that of dev follows general.
                        luis.open(&room("dev")).await;
                        luis.wait("he is alone in dev", async || here(&luis).await == "1 aquí").await;
                        ana.wait("she is alone again", async || here(&ana).await == "1 here").await;
                        server.say("general", "while he was in dev").await;
                        luis.driver.back().await.unwrap();
                        luis.wait("he is back", async || luis.connection().await == "En directo").await;
                        luis.wait_for_messages(&["old", "while he was in dev"]).await;
                        ana.wait("they are two again", async || here(&ana).await == "2 here").await;
                    })
                    .await;
                ana.wait("he has closed his browser", async || here(&ana).await == "1 here").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_asked_for_it_is_notified_of_what_is_meant_for_them_while_they_look_elsewhere() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        server.say("dev", "old").await;
        chromium
            .window(Window::default(), async |ana| {
                let allow = json!({ "origin": server.url, "permissions": ["notifications"] });
                ana.tell_chrome("Browser.grantPermissions", allow).await;
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("sender", "Ana").await;
                // Real ones, of which a list is kept that another tab can read.
                let keep = "window.shown = []; window.Notification = class extends Notification {
                    constructor(title, options) {
                        super(title, options);
                        window.shown.push(this);
                        localStorage.notified = JSON.stringify(window.shown.map(({ title, body }) => [title, body]));
                    } }";
                ana.driver.execute(keep, Vec::new()).await.unwrap();
                let send = async |message: serde_json::Value| assert_eq!(server.post(message).await.0, 201);
                let mention = |content: &str| json!({ "sender": "Luis", "room": "dev", "content": content });
                let notified = "return JSON.parse(localStorage.notified ?? '[]')";
                let room = ana.driver.window().await.unwrap();
                let elsewhere = ana.driver.new_tab().await.unwrap();
                let look_elsewhere = async || {
                    ana.driver.switch_to_window(elsewhere.clone()).await.unwrap();
                    ana.open(&format!("{}/nowhere", server.url)).await;
                };
                // Nobody has asked for any.
                look_elsewhere().await;
                send(mention("@Ana, unasked")).await;
                ana.driver.switch_to_window(room.clone()).await.unwrap();
                ana.wait("it is counted", async || places(&ana).await.contains(&"dev 1".into())).await;
                ana.click("#notify").await;
                ana.wait("they are on", async || ana.text_of("#notify").await == "Notifications are on").await;
                // Whoever looks needs none.
                send(mention("@Ana, you look")).await;
                ana.wait("it is counted", async || places(&ana).await.contains(&"dev 2".into())).await;
                assert_eq!(ana.ask::<Vec<[String; 2]>>(notified).await, Vec::<[String; 2]>::new());
                look_elsewhere().await;
                send(mention("for nobody")).await;
                send(mention("@Ana, you are away")).await;
                send(json!({ "sender": "Luis", "recipient": "Ana", "content": "psst" })).await;
                let expected = [["Luis mentioned you in dev", "@Ana, you are away"], ["Luis wrote to you", "psst"]]
                    .map(|pair| pair.map(String::from));
                ana.wait("both are shown", async || ana.ask::<Vec<[String; 2]>>(notified).await == expected).await;
                // It leads to what it tells of.
                ana.driver.switch_to_window(room).await.unwrap();
                ana.driver.execute("window.shown.at(-1).onclick()", Vec::new()).await.unwrap();
                ana.wait("the inbox opens", async || ana.messages().await == ["psst"]).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_inbox_of_a_name_that_is_known_is_followed_from_the_beginning() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                let room = format!("{}/rooms/general", server.url);
                ana.open_live(&room).await;
                ana.say("Ana", "hello").await;
                ana.wait_for_messages(&["hello"]).await;
                ana.open_live(&room).await;
                // Nothing may be asked for: only the connection can tell.
                let deaf = "window.fetch = () => Promise.reject(new Error('not now'))";
                ana.driver.execute(deaf, Vec::new()).await.unwrap();
                let direct = json!({ "sender": "Luis", "recipient": "Ana", "content": "psst" });
                assert_eq!(server.post(direct).await.0, 201);
                ana.wait("it is counted", async || places(&ana).await.contains(&"Direct messages 1".into())).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_writes_from_an_inbox_and_has_no_other_name_is_known_by_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        for without_javascript in [false, true] {
            let window = Window { without_javascript, ..Window::default() };
            chromium
                .window(window, async |ana| {
                    let name = async || ana.field("sender").await.prop("value").await.unwrap().unwrap_or_default();
                    let inbox = |user: &str| format!("{}/inbox/{user}?to=Luis", server.url);
                    let room = format!("{}/rooms/general", server.url);
                    // To look makes nobody its owner.
                    ana.open(&inbox("Ana")).await;
                    ana.open(&room).await;
                    assert_eq!(name().await, "");
                    for (user, known) in [("Ana", "Ana"), ("Nora", "Ana")] {
                        ana.open(&inbox(user)).await;
                        assert_eq!(name().await, user);
                        ana.fill("content", "hola").await;
                        ana.click("#send").await;
                        ana.wait("it is there", async || ana.text_of("[role=log]").await.contains("hola")).await;
                        ana.open(&room).await;
                        assert_eq!(name().await, known, "after {user}, without JavaScript: {without_javascript}");
                    }
                    server.messages().delete_many(doc! {}).await.unwrap();
                })
                .await;
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_room_or_a_person_is_opened_by_name() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                assert_eq!(ana.text_of("label[for=open-inbox]").await, "Your name, to see your direct messages");
                ana.driver.find(By::Id("open-room")).await.unwrap().send_keys("la nueva" + Key::Enter).await.unwrap();
                ana.wait("it is made", async || ana.text_of("h1").await == "la nueva").await;
                ana.wait("it is live", async || ana.connection().await == "Live").await;
                ana.say("Ana", "first").await;
                ana.wait_for_messages(&["first"]).await;
                assert!(places(&ana).await.contains(&"la nueva".into()), "{:?}", places(&ana).await);
                // Her name is known by now: only the other one's is asked for.
                assert_eq!(ana.text_of("label[for=open-inbox]").await, "");
                ana.driver.find(By::Id("open-to")).await.unwrap().send_keys("Luis" + Key::Enter).await.unwrap();
                ana.wait("it is her inbox", async || ana.text_of("h1").await == "Inbox of Ana").await;
                ana.wait("it is live", async || ana.connection().await == "Live").await;
                assert!(ana.text_of(".notice").await.contains("a direct message is not secret"));
                assert_eq!(ana.field("recipient").await.prop("value").await.unwrap().as_deref(), Some("Luis"));
                ana.field("content").await.send_keys("psst" + Key::Enter).await.unwrap();
                ana.wait_for_messages(&["psst"]).await;
                let direct = doc! { "sender": "Ana", "recipient": "Luis", "content": "psst" };
                assert_eq!(server.messages().count_documents(direct).await.unwrap(), 1);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_comes_before_a_message_of_a_time_to_come_is_new_all_the_same() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let now = DateTime::now().timestamp_millis();
        let old =
            (0..60).map(|n| doc! { "content": n.to_string(), "sender": "Luis", "date": DateTime::from_millis(now) });
        server.messages().insert_many(old).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                // As of a program that takes its local time for UTC.
                let date = DateTime::from_millis(now + 2 * 60 * 60 * 1_000);
                let imported = doc! { "content": "imported", "sender": "robot", "date": date };
                server.messages().insert_one(imported).await.unwrap();
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                let first_new = "return document.querySelector('.unread-from .text')?.innerText ?? ''";
                ana.wait("it is new", async || ana.ask::<String>(first_new).await == "imported").await;
                let last_two = async || {
                    let messages = ana.messages().await;
                    messages[messages.len().saturating_sub(2)..].join(", ")
                };
                server.say("general", "now").await;
                ana.wait("it stands where its date says", async || last_two().await == "now, imported").await;
                ana.wait("the line is above it", async || ana.ask::<String>(first_new).await == "now").await;
                ana.driver.execute("document.getElementById('scroller').focus()", Vec::new()).await.unwrap();
                ana.press(Key::Home + "").await;
                ana.wait("she is away from the end", async || ana.text_of("#jump").await == "Newest").await;
                server.say("general", "later").await;
                ana.wait("it is counted", async || ana.text_of("#jump").await.contains("1 new message")).await;
                assert_eq!(ana.ask::<String>(first_new).await, "later");
                assert!(ana.driver.title().await.unwrap().starts_with("(1) general"));
            })
            .await;
        server.stop().await;
    })
    .await;
}
