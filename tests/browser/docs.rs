//! The page on which the live side can be read and tried.

use mongodb::bson::doc;
use serde_json::json;

use crate::{
    axe::axe,
    chromium::{Person, Window, with_chromium},
    harness::TestServer,
};

impl Person {
    /// The frames that the page shows: `→ send`, `← created`, and words about the connection.
    async fn frames(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#lines > li')].map((line) => line.matches('.word')
            ? line.innerText : `${line.querySelector('.way').innerText} ${line.querySelector('.type').innerText} ${
                line.querySelector('.gist').innerText}`)";
        self.ask(script).await
    }

    async fn wait_for_frame(&self, beginning: &str) {
        let what = format!("a frame {beginning} is shown");
        self.wait(&what, async || self.frames().await.iter().any(|line| line.starts_with(beginning))).await;
    }

    async fn fill_by_id(&self, id: &str, text: &str) {
        let field = self.driver.find(thirtyfour::By::Id(id)).await.expect("the field is there");
        field.clear().await.expect("the field can be emptied");
        field.send_keys(text).await.expect("the field can be written in");
    }
}

#[tokio::test]
async fn a_socket_can_be_opened_on_the_page_and_every_frame_is_shown() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |dev| {
                dev.open(&format!("{}/docs/realtime", server.url)).await;
                assert_eq!(dev.connection().await, "Not connected");
                dev.click("#toggle").await;
                dev.wait("it is live", async || dev.connection().await == "Live").await;
                dev.wait_for_frame("← ready").await;
                dev.fill_by_id("sender", "Ana").await;
                dev.fill_by_id("content", "¡hola!").await;
                dev.click("#message button").await;
                for frame in ["→ send ¡hola!", "← created Ana: ¡hola!", "← sent"] {
                    dev.wait_for_frame(frame).await;
                }
                // One more topic, and one less.
                dev.fill_by_id("topic-name", "dev").await;
                dev.click("#follow").await;
                dev.wait_for_frame("← subscribed room dev").await;
                server.say("dev", "in the other room").await;
                dev.wait_for_frame("← created Ana: in the other room").await;
                dev.click("#unfollow").await;
                dev.wait_for_frame("← unsubscribed room dev").await;
                // An edit of somebody else's program.
                let edit = doc! { "$set": { "content": "edited" } };
                server.messages().update_one(doc! { "content": "¡hola!" }, edit).await.unwrap();
                dev.wait_for_frame("← updated Ana: edited").await;
                // Any frame: an example, one that is none, one that is refused.
                dev.click("#frame-subscribe [data-frame]").await;
                dev.click("#raw .buttons button").await;
                dev.wait_for_frame("→ subscribe room dev").await;
                dev.fill_by_id("frame", "{nonsense").await;
                dev.click("#raw .buttons button").await;
                assert_eq!(dev.text_of("#raw-error").await, "This is not JSON, so it was not sent.");
                dev.fill_by_id("frame", r#"{"type": "dance"}"#).await;
                dev.click("#raw .buttons button").await;
                dev.wait_for_frame("← error `type` must be").await;
                assert_eq!(dev.text_of("#raw-error").await, "");
                dev.picture("realtime-live").await;

                // What happens meanwhile comes when it connects again, by the cursor that the page has kept.
                dev.click("#toggle").await;
                dev.wait_for_frame("the connection ended: 1000").await;
                assert_eq!(dev.connection().await, "Not connected");
                dev.fill_by_id("topic-name", "general").await;
                server.say("general", "missed").await;
                dev.click("#clear").await;
                dev.click("#toggle").await;
                dev.wait_for_frame("← created Ana: missed").await;
                dev.wait("it is live", async || dev.connection().await == "Live").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_rest_documentation_fits_a_phone_and_leads_back_to_the_chat() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |dev| {
                let screen = json!({ "width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": true });
                dev.tell_chrome("Emulation.setDeviceMetricsOverride", screen).await;
                dev.open(&format!("{}/docs", server.url)).await;
                dev.wait("Swagger UI is there", async || dev.text_of("#ui h1, #ui h2").await.contains("Corriente"))
                    .await;
                dev.picture("rest-phone").await;
                assert_eq!(dev.ask::<f64>("return innerWidth").await, 390.0, "the page is as wide as the phone");
                dev.click("nav.corriente a").await;
                dev.wait("the chat is there", async || dev.connection().await == "Live").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_page_about_live_events_is_accessible_and_fits_a_phone() {
    let Some(axe) = axe().await else { return };
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let url = format!("{}/docs/realtime", server.url);
        for (width, name) in [(1200, "realtime"), (400, "realtime-phone")] {
            chromium
                .window(Window { width, ..Window::default() }, async |dev| {
                    // A window of Chromium's is never narrower than 500 px, but what it shows is.
                    let screen =
                        json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
                    dev.tell_chrome("Emulation.setDeviceMetricsOverride", screen).await;
                    dev.open(&url).await;
                    dev.click("#toggle").await;
                    dev.wait("it is live", async || dev.connection().await == "Live").await;
                    server.say("general", "a message that is rather long, so that it does not fit on its line").await;
                    dev.wait_for_frame("← created").await;
                    dev.expect_accessible(axe, name).await;
                    for (place, what) in
                        [("#raw", "frames"), ("#server-frames", "reference"), ("#close-1012", "closes")]
                    {
                        let look = format!("document.querySelector('{place}').scrollIntoView()");
                        dev.driver.execute(look, Vec::new()).await.unwrap();
                        dev.picture(&format!("{name}-{what}")).await;
                    }
                    let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                    assert_eq!(dev.ask::<f64>(overflow).await, 0.0, "nothing sticks out at the side");
                    let whole = "return document.documentElement.scrollHeight";
                    assert!(dev.ask::<f64>(whole).await > 1_000.0, "the frames are listed below");
                })
                .await;
        }
        chromium
            .window(Window { spanish: true, ..Window::default() }, async |dev| {
                dev.open(&url).await;
                assert_eq!(dev.text_of("h1").await, "Eventos en directo");
                dev.click("#toggle").await;
                dev.wait("it is live", async || dev.connection().await == "En directo").await;
                // As in the chat: in the reader's own form of the page's language, here Mexican Spanish.
                let time = dev.text_of("#lines .at").await;
                assert!(time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with(".m."), "{time}");
                dev.expect_accessible(axe, "realtime-es").await;
                dev.open(&format!("{}/problems/invalid-field", server.url)).await;
                assert_eq!(dev.text_of("h1").await, "Un campo incumple una regla");
                dev.expect_accessible(axe, "problem-es").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}
