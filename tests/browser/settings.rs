//! As operators may set the server up: under a path, and for reading only.

use mongodb::bson::doc;
use thirtyfour::prelude::*;

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

#[tokio::test]
async fn under_a_path_of_a_proxy_the_chat_lives_as_at_the_root() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--base-path", "/apps/chat"]).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&server.url).await;
                ana.say("Ana", "¡Hola!").await;
                ana.wait_for_messages(&["¡Hola!"]).await;
                // A room that its list did not know, and the inbox that a name opens: made by the script.
                server.say("dev", "elsewhere").await;
                for path in ["/rooms/dev", "/inbox/Ana"] {
                    let link = format!("a.place[href='/apps/chat{path}']");
                    ana.wait(&link, async || ana.driver.find(By::Css(&link)).await.is_ok()).await;
                }
                // The name is in a cookie of this path.
                ana.open_live(&format!("{}/rooms/dev", server.url)).await;
                ana.wait_for_messages(&["elsewhere"]).await;
                let cookies = ana.driver.get_all_cookies().await.unwrap();
                let paths: Vec<_> = cookies.iter().filter_map(|cookie| cookie.path.clone()).collect();
                assert_eq!(paths, ["/apps/chat"]);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_page_for_reading_only_is_live_and_has_no_form() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--read-only"]).await;
        let messages = server.messages();
        messages.insert_one(doc! { "content": "before", "sender": "robot" }).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.wait_for_messages(&["before"]).await;
                let date = mongodb::bson::DateTime::now();
                messages.insert_one(doc! { "content": "live", "sender": "robot", "date": date }).await.unwrap();
                ana.wait_for_messages(&["before", "live"]).await;
                assert!(ana.text_of("#read-only").await.contains("for reading only"));
                assert!(ana.driver.find_all(By::Css("form#composer, textarea")).await.unwrap().is_empty());
                ana.picture("read-only").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}
