//! Old messages are found again: by words, by a link, with a script and without.

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use serde_json::json;

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

/// A room of 200 messages, a minute apart, and their ids.
async fn busy_room(server: &TestServer) -> Vec<ObjectId> {
    let ids: Vec<ObjectId> = (0..200).map(|_| ObjectId::new()).collect();
    let documents = ids.iter().enumerate().map(|(n, id)| -> Document {
        let date = DateTime::from_millis(1_700_000_000_000 + n as i64 * 60_000);
        let content = if n == 77 { "Una canción".into() } else { n.to_string() };
        doc! { "_id": id, "content": content, "sender": "Ana", "date": date }
    });
    server.messages().insert_many(documents).await.unwrap();
    ids
}

#[tokio::test]
async fn a_search_leads_to_a_message_amid_its_neighbours_and_on_to_the_newest() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let ids = busy_room(&server).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("content", "a draft").await;
                ana.click("#search-link").await;
                ana.press("CANCION" + thirtyfour::Key::Enter).await;
                let found = async || ana.text_of("#finder-results .text").await == "Una canción";
                ana.wait("it is found", found).await;
                assert_eq!(ana.text_of("#finder-results mark").await, "canción");
                ana.click("#finder-results a.when").await;
                ana.wait("the message opens", async || {
                    ana.text_of(&format!("[id='m-{}'] .text", ids[77])).await == "Una canción"
                })
                .await;
                ana.wait("the page is live", async || ana.connection().await == "Live").await;
                let is_in_sight = "const { top, bottom } = document.querySelector('.shown article').getBoundingClientRect(); return top > 0 && bottom < innerHeight";
                assert!(ana.ask::<bool>(is_in_sight).await);
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("a draft"));
                // What is new is counted, not put after a hole.
                server.say("general", "news").await;
                ana.wait("the news are counted", async || ana.text_of("#jump").await.contains("1 new message")).await;
                assert!(!ana.messages().await.contains(&"news".into()));
                // Reading on comes to the end by itself, in order and without a hole.
                ana.wait("the end is reached", async || {
                    let down = "const s = document.getElementById('scroller'); s.scrollTop = s.scrollHeight";
                    ana.driver.execute(down, Vec::new()).await.unwrap();
                    ana.messages().await.last().is_some_and(|last| last == "news")
                })
                .await;
                let messages = ana.messages().await;
                let at = messages.iter().position(|text| text == "Una canción").unwrap();
                let expected: Vec<String> = (78..200).map(|n| n.to_string()).chain(["news".into()]).collect();
                assert_eq!(messages[at + 1..], expected);
                server.say("general", "and live again").await;
                ana.wait("it is live", async || ana.messages().await.last().is_some_and(|last| last == "and live again"))
                    .await;
                // The page of its own, as in another tab: its days and times are the reader's.
                ana.tell_chrome("Emulation.setTimezoneOverride", json!({ "timezoneId": "America/Lima" })).await;
                ana.open(&format!("{}/rooms/general?q=cancion", server.url)).await;
                ana.wait("its day is the reader's", async || {
                    ana.text_of("#found .day").await == "Tuesday, November 14, 2023"
                })
                .await;
                assert!(ana.text_of("#found .when").await.starts_with("6:30"));
                ana.open(&format!("{}/rooms/general?at={}", server.url, ObjectId::new())).await;
                assert!(ana.text_of("h1").await.contains("not here"));
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_javascript_search_and_links_work_too() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        busy_room(&server).await;
        let window = Window { without_javascript: true, ..Window::default() };
        chromium
            .window(window, async |ana| {
                // WebDriver takes what is scrolled out of sight for hidden, so the source is asked.
                let is_shown = async |n: u32| ana.driver.source().await.unwrap().contains(&format!(">{n}</div>"));
                ana.open(&format!("{}/rooms/general", server.url)).await;
                ana.click("#search-link").await;
                let field = ana.driver.find(thirtyfour::By::Css("[name=q]")).await.unwrap();
                field.send_keys("cancion" + thirtyfour::Key::Enter).await.unwrap();
                ana.wait("it is found", async || ana.text_of("#found .text").await == "Una canción").await;
                ana.click("#found a.when").await;
                ana.wait("its neighbours are there", async || is_shown(78).await).await;
                ana.click("#newer").await;
                ana.wait("newer ones", async || is_shown(110).await).await;
                ana.click("#newest").await;
                ana.wait("the newest", async || is_shown(199).await).await;
                let older = ana.driver.find(thirtyfour::By::Id("older")).await.unwrap();
                let older = older.attr("href").await.unwrap().unwrap();
                ana.open(&format!("{}{older}", server.url)).await;
                assert!(is_shown(149).await && is_shown(100).await && !is_shown(150).await, "the page before");
                // Whoever asks for it has the page load itself again; there, a link leads to the form.
                ana.open(&format!("{}/rooms/general?refresh=on", server.url)).await;
                let page = ana.driver.source().await.unwrap();
                assert!(page.contains("http-equiv=\"refresh\" content=\"15\"") && !page.contains("<textarea"));
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_end_key_leads_to_the_newest_message_and_moves_within_a_text() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let ids = busy_room(&server).await;
        chromium
            .window(Window::default(), async |ana| {
                // Amid its neighbours: the newest messages are left out here.
                ana.open_live(&format!("{}/rooms/general?at={}", server.url, ids[20])).await;
                assert!(!ana.messages().await.contains(&"199".into()));
                let is_at_end = "const s = document.getElementById('scroller'); return s.scrollHeight - s.clientHeight - s.scrollTop < 2";
                // In a text it is the text's.
                ana.fill("content", "a draft").await;
                ana.press(thirtyfour::Key::Home + "" + thirtyfour::Key::End).await;
                assert_eq!(ana.ask::<u32>("return document.activeElement.selectionStart").await, 7);
                assert!(!ana.messages().await.contains(&"199".into()));
                ana.driver.execute("document.getElementById('scroller').focus()", Vec::new()).await.unwrap();
                ana.press(thirtyfour::Key::End + "").await;
                ana.wait("the newest is there", async || ana.messages().await.last().is_some_and(|last| last == "199")).await;
                ana.wait("and in sight", async || ana.ask::<bool>(is_at_end).await).await;
                // From the empty field, too.
                ana.fill("content", "").await;
                ana.driver.execute("document.getElementById('scroller').scrollTop = 0", Vec::new()).await.unwrap();
                ana.wait("it has scrolled", async || !ana.ask::<bool>(is_at_end).await).await;
                ana.field("content").await.send_keys(thirtyfour::Key::End + "").await.unwrap();
                ana.wait("the end is in sight again", async || ana.ask::<bool>(is_at_end).await).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_comes_while_the_newest_page_is_on_its_way_is_shown_on_top_of_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let ids = busy_room(&server).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general?at={}", server.url, ids[77])).await;
                // A page is read at once and arrives when the test says so.
                let hold = "const { fetch } = window; window.fetch = async (...all) => {
                    const response = await fetch(...all);
                    if (!String(all[0]).includes('/api/messages')) return response;
                    window.isRead = true;
                    await new Promise((resolve) => { window.release = resolve; });
                    return response; }";
                ana.driver.execute(hold, Vec::new()).await.unwrap();
                ana.driver.execute("document.getElementById('jump').click()", Vec::new()).await.unwrap();
                ana.wait("the page is read", async || ana.ask("return window.isRead === true").await).await;
                server.say("general", "meanwhile").await;
                ana.wait("it came", async || ana.text_of("#jump").await.contains("1 new message")).await;
                ana.driver.execute("release()", Vec::new()).await.unwrap();
                ana.wait("both are there", async || {
                    let messages = ana.messages().await;
                    messages.len() >= 2 && messages[messages.len() - 2..] == ["199", "meanwhile"]
                })
                .await;
            })
            .await;
        server.stop().await;
    })
    .await;
}
