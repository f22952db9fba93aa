//! Everybody can use it: by keyboard alone, with an input method, with assistive technology.

use mongodb::bson::{DateTime, doc};
use serde_json::json;
use thirtyfour::prelude::*;

use crate::{
    axe::axe,
    chromium::{Window, with_chromium},
    harness::TestServer,
};

#[tokio::test]
async fn axe_finds_nothing_in_either_theme() {
    let Some(axe) = axe().await else { return };
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        for (sender, content) in [
            ("Luis", "¿Vienes, @Ana? https://a.example/x"),
            ("Luis", "dos"),
            ("Ana", "sí"),
            ("ليلى", "مرحبا"),
            ("Ñandú con un nombre bien largo", "x"),
        ] {
            let message = json!({ "room": "general", "sender": sender, "content": content });
            assert_eq!(server.post(message).await.0, 201);
        }
        server.post(json!({ "sender": "Luis", "recipient": "Ana", "content": "psst" })).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("sender", "Ana").await;
                server.say("dev", "@Ana, news elsewhere").await;
                ana.expect_accessible(axe, "room").await;
                ana.fill("content", "").await;
                ana.click("#send").await;
                ana.click("#search-link").await;
                ana.driver
                    .find(By::Css("#finder [name=q]"))
                    .await
                    .unwrap()
                    .send_keys("vienes" + Key::Enter)
                    .await
                    .unwrap();
                ana.wait("it is found", async || ana.text_of("#finder-results").await.contains("Vienes")).await;
                ana.expect_accessible(axe, "search-panel").await;
                for (path, what) in [
                    ("/inbox/Ana", "inbox"),
                    ("/rooms/empty", "empty-room"),
                    ("/rooms/general?q=dos", "search-page"),
                    ("/nowhere", "not-found"),
                ] {
                    ana.open(&format!("{}{path}", server.url)).await;
                    ana.expect_accessible(axe, what).await;
                }
            })
            .await;
        chromium
            .window(Window { width: 400, ..Window::default() }, async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.click(".bar .menu").await;
                ana.expect_accessible(axe, "drawer").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_initials_can_be_read_on_every_colour_of_a_name() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/rooms/general", server.url)).await;
                // They are for eyes only, so axe does not look at them. The contrast is that of WCAG 2.
                let contrasts = "const avatar = document.body.appendChild(document.createElement('span'));
                    const context = new OffscreenCanvas(1, 1).getContext('2d');
                    const luminance = (colour) => {
                        context.fillStyle = colour;
                        context.fillRect(0, 0, 1, 1);
                        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((part) => part / 255)
                            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                    };
                    return Array.from({ length: 12 }, (_, hue) => {
                        avatar.className = `avatar hue-${hue}`;
                        const { color, backgroundColor } = getComputedStyle(avatar);
                        return (luminance(color) + 0.05) / (luminance(backgroundColor) + 0.05);
                    })";
                let contrasts: Vec<f64> = ana.ask(contrasts).await;
                assert!(contrasts.iter().all(|contrast| (4.5..21.0).contains(contrast)), "{contrasts:?}");
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_keyboard_is_enough() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let documents = (0..60).map(|n| doc! { "content": n.to_string(), "sender": "Luis", "date": DateTime::now() });
        server.messages().insert_many(documents).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                // The first stop leads past everything to the text.
                ana.press(Key::Tab + "").await;
                ana.press(Key::Enter + "").await;
                let focus = "return document.activeElement.id";
                assert_eq!(ana.ask::<String>(focus).await, "content");
                ana.press("hola" + Key::Enter).await;
                // Without a name nothing is sent: the focus is where it is asked for.
                assert_eq!(ana.ask::<String>(focus).await, "sender");
                assert!(ana.text_of("#error-sender").await.contains("Say who you are"));
                ana.press("Ana" + Key::Tab + Key::Tab + " 1" + Key::Enter).await;
                ana.wait("it is sent", async || ana.messages().await.last().is_some_and(|last| last == "hola 1")).await;
                // Shift and Enter is a new line.
                ana.press("uno" + Key::Shift + Key::Enter + Key::Null + "dos" + Key::Enter).await;
                ana.wait("two lines", async || ana.messages().await.last().is_some_and(|last| last == "uno\ndos")).await;
                // The last text again.
                ana.press(Key::Up + "").await;
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("uno\ndos"));
                ana.fill("content", "").await;
                // Into the conversation, away from its end, and back with Escape.
                ana.driver.execute("document.getElementById('scroller').focus()", Vec::new()).await.unwrap();
                ana.press(Key::Home + "").await;
                let distance = "const s = document.getElementById('scroller'); return s.scrollHeight - s.clientHeight - s.scrollTop";
                ana.wait("it has scrolled", async || ana.ask::<f64>(distance).await > 300.0).await;
                server.post(json!({ "room": "general", "sender": "Luis", "content": "news" })).await;
                ana.wait("the button counts", async || ana.text_of("#jump").await.contains("1 new message")).await;
                assert!(ana.driver.title().await.unwrap().starts_with("(1) general"));
                ana.press(Key::Escape + "").await;
                ana.wait("the end is in sight", async || ana.ask::<f64>(distance).await < 2.0).await;
                assert_eq!(ana.ask::<String>(focus).await, "content");
                assert!(ana.driver.title().await.unwrap().starts_with("general"));
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn enter_chooses_a_word_while_an_input_method_composes_and_is_a_new_line_on_touch() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.fill("sender", "Ana").await;
                ana.field("content").await.click().await.unwrap();
                let compose = json!({ "text": "にほん", "selectionStart": 3, "selectionEnd": 3 });
                ana.tell_chrome("Input.imeSetComposition", compose).await;
                let enter =
                    json!({ "type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229 });
                ana.tell_chrome("Input.dispatchKeyEvent", enter).await;
                ana.tell_chrome("Input.insertText", json!({ "text": "日本" })).await;
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("日本"));
                assert!(ana.messages().await.is_empty(), "the Enter of the input method sent the message");
                ana.press(Key::Enter + "").await;
                ana.wait_for_messages(&["日本"]).await;
                // A touch keyboard has no Shift+Enter: there, Enter is the new line.
                ana.tell_chrome("Emulation.setTouchEmulationEnabled", json!({ "enabled": true })).await;
                let height = "return document.getElementById('content').offsetHeight";
                let one_line: u32 = ana.ask(height).await;
                ana.press("uno" + Key::Enter + "dos").await;
                assert!(ana.ask::<u32>(height).await > one_line, "the field grows with its text");
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("uno\ndos"));
                ana.click("#send").await;
                ana.wait_for_messages(&["日本", "uno\ndos"]).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_is_read_out_and_of_a_flood_only_its_number() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                // For each new row, whether the log was a live region when it came.
                let watch = "window.aloud = []; new MutationObserver((changes) => {
                    for (const { addedNodes } of changes) for (const _ of addedNodes)
                        window.aloud.push(document.getElementById('log').ariaLive !== 'off');
                    }).observe(document.getElementById('rows'), { childList: true })";
                let is_silent = "return document.getElementById('log').ariaLive === 'off'";
                ana.wait("the page has settled", async || !ana.ask::<bool>(is_silent).await).await;
                ana.driver.execute(watch, Vec::new()).await.unwrap();
                server.say("general", "one").await;
                ana.wait("it is read out", async || ana.ask::<Vec<bool>>("return window.aloud").await == [true]).await;
                let documents =
                    (0..100).map(|n| doc! { "content": n.to_string(), "sender": "robot", "date": DateTime::now() });
                server.messages().insert_many(documents).await.unwrap();
                let news = "return document.getElementById('news').textContent";
                ana.wait("their number is said", async || ana.ask::<String>(news).await.ends_with("new messages"))
                    .await;
                let aloud: Vec<bool> = ana.ask("return window.aloud").await;
                assert_eq!(aloud.len(), 101);
                assert!(aloud.iter().filter(|is_aloud| **is_aloud).count() <= 20, "{aloud:?}");
                // Of a longer flood the number is that of all of it, however late it can be said.
                let long = "const done = arguments[0], { setTimeout } = window, now = performance.now;
                    const log = document.createElement('div'), news = document.createElement('p'), due = [];
                    const module = document.querySelector('link[rel=modulepreload][href*=\"/voice\"]').href;
                    import(module).then(({ Voice }) => {
                        let clock = 0;
                        performance.now = () => clock;
                        window.setTimeout = (run) => due.push(run);
                        const voice = new Voice({ log, news }), said = [];
                        const come = (at, count) => { clock = at; voice.expect(count); };
                        const speak = (at) => { clock = at; due.splice(0).forEach((run) => run()); said.push(news.textContent); };
                        try {
                            come(0, 100); come(5_001, 2); speak(5_002); speak(10_002); come(10_003, 7); speak(15_004);
                        } finally { Object.assign(window, { setTimeout }); performance.now = now; }
                        done(said);
                    })";
                let said: Vec<String> = ana.driver.execute_async(long, Vec::new()).await.unwrap().convert().unwrap();
                assert_eq!(said, ["", "102 new messages", "7 new messages"]);
                // And afterwards it speaks again.
                ana.wait("it listens again", async || !ana.ask::<bool>(is_silent).await).await;
                server.say("general", "two").await;
                ana.wait("it is read out", async || {
                    ana.ask::<Vec<bool>>("return window.aloud").await.last() == Some(&true)
                })
                .await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_log_is_busy_while_older_messages_load_and_holds_nothing_that_is_pending() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let documents = (0..120).map(|n| doc! { "content": n.to_string(), "sender": "Luis", "date": DateTime::now() });
        server.messages().insert_many(documents).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                // The first stop of the keyboard is in sight, and shows that it has the focus.
                ana.press(Key::Tab + "").await;
                let skip = "const link = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(link);
                    const { top, left, width, height } = link.getBoundingClientRect();
                    return [link.className, outlineStyle, parseFloat(outlineWidth), Math.min(top, left, width, height)]";
                ana.wait("the link has come into sight, with a ring around it", async || {
                    let (class, style, width, least): (String, String, f64, f64) = ana.ask(skip).await;
                    class == "skip" && style == "solid" && width >= 2.0 && least >= 0.0
                })
                .await;
                // Older messages that do not come before the test says so.
                let hold = "const { fetch } = window; window.fetch = (...args) =>
                    new Promise((resolve) => window.release = resolve).then(() => fetch(...args))";
                ana.driver.execute(hold, Vec::new()).await.unwrap();
                let busy = "return document.getElementById('log').getAttribute('aria-busy')";
                assert_ne!(ana.ask::<Option<String>>(busy).await.as_deref(), Some("true"));
                ana.driver.execute("document.querySelector('.older button').click()", Vec::new()).await.unwrap();
                assert_eq!(ana.ask::<String>(busy).await, "true");
                ana.driver.execute("release()", Vec::new()).await.unwrap();
                ana.wait("it is not busy any more", async || ana.ask::<String>(busy).await == "false").await;
                assert!(ana.messages().await.len() > 50);
                // A message that does not leave is in sight, and is none of the conversation yet.
                ana.driver.execute("WebSocket.prototype.send = () => {}", Vec::new()).await.unwrap();
                ana.say("Ana", "under way").await;
                ana.wait("it waits", async || ana.text_of("#outbox .pending").await.contains("under way")).await;
                // It looks so only when it takes longer than a blink.
                let delay = "return getComputedStyle(document.querySelector('#outbox .pending .state')).animationDelay";
                assert_eq!(ana.ask::<String>(delay).await, "0.3s");
                assert!(!ana.text_of("[role=log]").await.contains("under way"), "it is read out before it is stored");
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_page_fits_phones_their_safe_areas_and_zoom() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        server.say("general", &"long ".repeat(200)).await;
        server.say("general", &"x".repeat(500)).await;
        chromium
            .window(Window::default(), async |ana| {
                // Who zooms to 400 percent has 320 pixels left; nobody is kept from zooming by hand.
                for (width, height) in [(390, 844), (320, 640)] {
                    let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
                    ana.tell_chrome("Emulation.setDeviceMetricsOverride", screen).await;
                    ana.open_live(&format!("{}/rooms/general", server.url)).await;
                    let sizes = "const form = document.getElementById('composer').getBoundingClientRect();
                        return [innerWidth, document.documentElement.scrollWidth, innerHeight, form.bottom, form.right]";
                    let [inner_width, page_width, inner_height, bottom, right]: [f64; 5] = ana.ask(sizes).await;
                    assert!((inner_width - f64::from(width)).abs() < 1.0, "{inner_width} of {width}: it is zoomed out");
                    assert!(page_width <= inner_width && right <= inner_width + 0.5, "{page_width} of {width}");
                    assert!(bottom <= inner_height + 0.5, "{width}: the form ends at {bottom} of {inner_height}");
                }
                let viewport = "return document.querySelector('meta[name=viewport]').content";
                let viewport: String = ana.ask(viewport).await;
                assert!(!viewport.contains("scalable") && !viewport.contains("maximum"), "{viewport}");
                // Nothing lies under the bar at the bottom of a phone, or beside its camera.
                let padding = "return parseFloat(getComputedStyle(document.getElementById('composer')).paddingBottom)";
                assert!(ana.ask::<f64>(padding).await < 20.0);
                let insets = json!({ "insets": { "bottom": 34, "right": 44 } });
                ana.tell_chrome("Emulation.setSafeAreaInsetsOverride", insets).await;
                ana.wait("the form keeps clear of it", async || ana.ask::<f64>(padding).await == 34.0).await;
                let right = "return innerWidth - document.getElementById('composer').getBoundingClientRect().right";
                assert!(ana.ask::<f64>(right).await >= 44.0);
                // With the bars of the browser in sight there is less room than 100vh: the page asks for what there is.
                let heights = "const heights = [];
                    for (const { cssRules } of document.styleSheets) (function look(rules) {
                        for (const rule of rules) { if (rule.cssRules) look(rule.cssRules);
                            if (rule.style?.height) heights.push(rule.style.height); }
                    })(cssRules);
                    return heights";
                let heights: Vec<String> = ana.ask(heights).await;
                assert!(heights.iter().any(|height| height == "100dvh"), "{heights:?}");
                assert!(heights.iter().all(|height| height != "100vh"), "{heights:?}");
                // Things move, but not for those who do not want it.
                let moves = "return [...document.querySelectorAll('*')].map((part) => getComputedStyle(part)).filter(
                    (style) => style.animationName !== 'none' || /[1-9]/.test(style.transitionDuration)).length";
                for (wanted, is_still) in [("no-preference", false), ("reduce", true)] {
                    let features = json!([{ "name": "prefers-reduced-motion", "value": wanted }]);
                    ana.tell_chrome("Emulation.setEmulatedMedia", json!({ "features": features })).await;
                    assert_eq!(ana.ask::<u32>(moves).await == 0, is_still, "{wanted}");
                }
            })
            .await;
        server.stop().await;
    })
    .await;
}
