//! The page /status: live, in both languages and themes, on a phone, and honest when nobody answers.

use std::time::Duration;

use mongodb::bson::{DateTime, doc};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    axe::axe,
    chromium::{Person, Window, with_chromium},
    harness::{Follower, TestServer},
};

/// Some hundred messages, in several rooms, with people who follow them.
async fn traffic(server: &TestServer, seconds: u64) -> Vec<Follower> {
    let mut followers = Vec::new();
    for n in 0..12 {
        followers.push(server.follow(&format!("room={}", ["general", "dev", "música"][n % 3])).await);
    }
    let unchecked = doc! { "content": "x", "sender": 5 };
    server.messages().insert_one(unchecked).bypass_document_validation(true).await.unwrap();
    for second in 0..seconds {
        let many = 20 + 30 * (second % 5);
        let documents = (0..many).map(|n| {
            let room = ["general", "general", "dev", "música"][n as usize % 4];
            doc! { "content": format!("{second} {n}"), "sender": "robot", "room": room, "date": DateTime::now() }
        });
        server.messages().insert_many(documents).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    followers
}

/// What the plots say to those who do not see them.
async fn plot_labels(person: &Person) -> Vec<String> {
    person.ask("return [...document.querySelectorAll('#plots svg')].map(svg => svg.getAttribute('aria-label'))").await
}

impl Person {
    /// Makes the window as high as the page, so that a picture has all of it.
    async fn look_at_all_of_it(&self, width: u32) {
        let height: u32 = self.ask("return document.documentElement.scrollHeight").await;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tell_chrome("Emulation.setDeviceMetricsOverride", size).await;
    }
}

#[tokio::test]
async fn the_page_shows_what_happens_while_it_happens_and_axe_finds_nothing() {
    let Some(axe) = axe().await else { return };
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let other = TestServer::start_on(server.database.name(), &[]).await;
        let url = format!("{}/status", server.url);
        chromium
            .window(Window { width: 1440, ..Window::default() }, async |ana| {
                ana.open(&url).await;
                ana.wait("it is live", async || ana.text_of("#word").await == "Live").await;
                ana.wait("nobody has written", async || ana.text_of("#rooms").await.contains("Nobody")).await;
                let _followers = traffic(&server, 22).await;
                ana.wait("the rooms are there, the busiest first", async || {
                    let rooms = ana.text_of("#rooms").await;
                    rooms.find("general").is_some_and(|general| rooms.find("música").is_some_and(|at| general < at))
                })
                .await;
                ana.wait("both servers are there", async || {
                    ana.ask::<u32>("return document.querySelectorAll('#servers tr').length").await == 2
                })
                .await;
                ana.wait("the delay is there", async || ana.text_of("#delay").await.contains("99 % under")).await;
                assert!(ana.text_of("#invalid").await.contains("sender"));
                assert_eq!(ana.text_of("#open").await, "12");
                let lines = "return document.querySelectorAll('#plots path.line').length";
                assert!(ana.ask::<u32>(lines).await >= 6, "a line is missing");
                let labels = plot_labels(&ana).await;
                assert!(labels.len() == 4 && labels.iter().all(|label| label.starts_with("Now ")), "{labels:?}");
                ana.look_at_all_of_it(1440).await;
                ana.expect_accessible(axe, "status-1440").await;
                // A link is kept under the fingers of who is about to follow it.
                ana.driver.execute("document.querySelector('#rooms a').focus()", Vec::new()).await.unwrap();
                let polled =
                    "return performance.getEntriesByType('resource').filter(e => e.name.includes('after=')).length";
                let before: u32 = ana.ask(polled).await;
                ana.wait("it has asked again", async || ana.ask::<u32>(polled).await > before).await;
                assert_eq!(ana.ask::<String>("return document.activeElement.textContent").await, "general");
            })
            .await;
        chromium
            .window(Window { width: 400, spanish: true, ..Window::default() }, async |ana| {
                ana.open(&url).await;
                ana.wait("it is live", async || ana.text_of("#word").await == "En directo").await;
                ana.wait("the plots are there", async || {
                    plot_labels(&ana).await.iter().all(|label| label.starts_with("Ahora"))
                })
                .await;
                let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(ana.ask::<i32>(overflow).await, 0, "the page scrolls sideways");
                ana.look_at_all_of_it(400).await;
                ana.expect_accessible(axe, "status-400").await;
            })
            .await;
        other.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_said_to_be_and_comes_back_by_itself() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let port = server.url.rsplit(':').next().unwrap().to_owned();
        let database = server.database.name().to_owned();
        let url = format!("{}/status", server.url);
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&url).await;
                ana.wait("it is live", async || ana.text_of("#word").await == "Live").await;
                server.stop().await;
                ana.wait("that is said", async || ana.text_of("#word").await == "No answer").await;
                assert!(ana.text_of("#sentence").await.contains("is from"));
                ana.picture("status-gone").await;
                let again = TestServer::start_on(&database, &["--port", &port]).await;
                ana.wait("it is live again", async || ana.text_of("#word").await == "Live").await;
                again.stop().await;
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn without_javascript_the_numbers_of_the_moment_are_there() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        server.post(json!({ "room": "dev", "sender": "Ana", "content": "x" })).await;
        chromium
            .window(Window { without_javascript: true, ..Window::default() }, async |ana| {
                ana.wait("the room is there", async || {
                    ana.open(&format!("{}/status", server.url)).await;
                    ana.text_of("#rooms").await.contains("dev")
                })
                .await;
                assert_eq!(ana.text_of("#word").await, "Live");
                assert!(ana.text_of(".notice").await.contains("need JavaScript"));
                assert!(ana.text_of("#plots").await.is_empty());
            })
            .await;
        server.stop().await;
    })
    .await;
}
